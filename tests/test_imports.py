"""The rooms import one another in one direction, heavy libraries stay where they belong, `import recon` is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

# Each room imports only rooms before it (and itself).
ROOMS = [
    "types",
    "errors",
    "capture",
    "cameras",
    "questions",
    "engine",
    "evidence",
    "mapping",
    "surface",
    "interop",
    "evaluation",
    "synth",
    "training",
]

# Heavy library -> places that may import it (folders end with "/").
HEAVY = {
    "transformers": ["recon/engine/", "recon/training/"],
    "vlm3_kernels": ["recon/engine/", "recon/training/", "kernels/"],
    "triton": ["kernels/"],
    "pycolmap": [
        "recon/capture/",
        "recon/evidence/features.py",
        "recon/evidence/added.py",
        "recon/mapping/",
        "recon/interop/colmap.py",
    ],
    "open3d": ["recon/surface/", "recon/interop/meshes.py"],
}


def imported_modules(source: str, module: str) -> Iterator[str]:
    """Dotted names of all modules that ``source`` (the text of ``module``) imports, anywhere in it.

    ``from a import b`` gives both ``a`` and ``a.b`` (b may be a module); relative imports are made absolute.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                base = ".".join([*parents, base] if base else parents)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def direction_faults(path: str, source: str) -> list[str]:
    """What in ``source`` at ``path`` (relative to the repository) breaks the rules; one line each."""
    module = path.removeprefix("kernels/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    faults = []
    for name in imported_modules(source, module):
        if is_within(name, "pipelines") and not is_within(module, "pipelines"):
            faults.append(f"{path} imports {name}: only pipelines may")
        if is_within(name, "recon") and is_within(module, "vlm3_kernels"):
            faults.append(f"{path} imports {name}: kernels stand below recon")
        if is_within(module, "recon") and is_within(name, "recon") and name.count(".") >= 1:
            room, other = module.split(".")[1:2], name.split(".")[1]
            if room and other in ROOMS and ROOMS.index(other) > ROOMS.index(room[0]):
                faults.append(f"{path} imports {name}: {other} comes after {room[0]}")
        library = name.split(".")[0]
        allowed = HEAVY.get(library)
        if allowed is not None and not path.startswith("tests/") and not any(path.startswith(a) for a in allowed):
            faults.append(f"{path} imports {library}: allowed in {', '.join(allowed)}")
    return faults


def source_files() -> list[Path]:
    return sorted(p for top in ("recon", "pipelines", "kernels") for p in (REPOSITORY / top).rglob("*.py"))


def test_every_room_is_in_the_order() -> None:
    folders = {p.name for p in (REPOSITORY / "recon").iterdir() if (p / "__init__.py").is_file()}
    files = {p.stem for p in (REPOSITORY / "recon").glob("*.py")} - {"__init__"}
    assert (folders | files) <= set(ROOMS)


def test_imports_follow_the_rooms() -> None:
    files = source_files()
    assert len(files) > 30
    faults = [
        fault
        for path in files
        for fault in direction_faults(path.relative_to(REPOSITORY).as_posix(), path.read_text(encoding="utf-8"))
    ]
    assert not faults, "\n".join(sorted(set(faults)))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("recon/capture/folder.py", "from recon.mapping.scale import estimate_scale"),
        ("recon/capture/folder.py", "def f():\n    from recon import mapping"),
        ("recon/capture/folder.py", "from ..mapping import scale"),
        ("recon/types.py", "import recon.errors"),
        ("recon/surface/fuse.py", "import pipelines.cli"),
        ("recon/questions/depth.py", "import transformers"),
        ("recon/evidence/depth.py", "import pycolmap"),
        ("pipelines/cli.py", "from open3d import t"),
        ("kernels/vlm3_kernels/lm_head/kernel.py", "from recon.types import Camera"),
    ],
)
def test_wrong_imports_are_found(path: str, source: str) -> None:
    assert direction_faults(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("recon/mapping/scale.py", "from recon.evidence.depth import ask_depth\nimport pycolmap"),
        ("recon/engine/engine.py", "import torch\nfrom . import packing\nimport vlm3_kernels.lm_head"),
        ("pipelines/reconstruct.py", "from recon.surface import fuse"),
    ],
)
def test_right_imports_pass(path: str, source: str) -> None:
    assert direction_faults(path, source) == []


@pytest.mark.parametrize("module", ["recon", "recon.types", "recon.errors", "pipelines.cli"])
def test_light_modules_import_nothing_heavy(module: str) -> None:
    heavy = ["torch", "transformers", "pycolmap", "open3d", "cv2", "av", "vlm3_kernels", "triton"]
    code = f"import sys, {module}; print(*[m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.split() == []
