"""Reading JSON and YAML written by people strictly: what is unknown, missing or odd is named with what is accepted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from recon.errors import CheckpointError, ReconError

T = TypeVar("T")


def keys(
    data: object,
    required: tuple[str, ...],
    optional: tuple[str, ...],
    where: str,
    form: str = "a JSON object",
    error: type[ReconError] = CheckpointError,
) -> dict[str, Any]:
    """The object, when it has all required keys and no others than these; raises ``error`` otherwise."""
    if not isinstance(data, dict):
        raise error(f"{where}: expected {form}, found {type(data).__name__}")
    missing = [key for key in required if key not in data]
    unknown = [str(key) for key in data if key not in required + optional]
    if missing or unknown:
        faults = [f"missing {', '.join(missing)}"] if missing else []
        faults += [f"unknown {', '.join(unknown)}"] if unknown else []
        raise error(f"{where}: {' and '.join(faults)}; accepted keys: {', '.join(required + optional)}")
    return data


def read(entries: dict[str, Any], key: str, reader: Callable[[object], T], where: str) -> T:
    """One entry through its reader, which raises ValueError with what is accepted."""
    try:
        return reader(entries[key])
    except ValueError as error:
        raise CheckpointError(f"{where}.{key}: found {entries[key]!r}; accepted: {error}") from error


def text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text")
    return value


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def positive(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ValueError("a positive number")
    return float(value)


def positive_integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError("a positive whole number")
    return value


def figures(value: object) -> dict[str, float]:
    if not isinstance(value, dict) or not all(
        isinstance(figure, (int, float)) and not isinstance(figure, bool) for figure in value.values()
    ):
        raise ValueError("names and numbers")
    return {str(name): float(figure) for name, figure in value.items()}


def interval(value: object) -> tuple[float, float]:
    """``[smallest, largest]``, both positive."""
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("[smallest, largest], both positive")
    low, high = positive(value[0]), positive(value[1])
    if low >= high:
        raise ValueError("[smallest, largest], both positive")
    return low, high


def choice(*accepted: str) -> Callable[[object], Any]:
    """A reader that accepts these texts only."""

    def read_choice(value: object) -> Any:
        if value not in accepted:
            raise ValueError(", ".join(accepted))
        return value

    return read_choice
