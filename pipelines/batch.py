"""``vlm3-recon batch FOLDER --out FOLDER``: every scene of a folder through the reconstruction, one after the other."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from pipelines.making import MakingOptions
from pipelines.options import Options as SceneOptions
from pipelines.summary import known_numbers, versions
from pipelines.workspace import check_output_folder, readable_os_errors, write_text
from recon.capture.sources import VIDEO_SUFFIXES, WORKSPACE_MARKER
from recon.errors import BadInputError, MappingError, ReconError
from recon.interop.run import read_summary

__all__ = ["Options", "Row", "batch", "run"]

Outcome = tuple[str, str]  # "done", "failed" or "interrupted", and the reason
Work = Callable[[SceneOptions], Outcome]


@dataclass(frozen=True)
class _Many:
    """What is said of all scenes. A base, so that these options come first."""

    scenes: Positional[Path]
    """a folder with one folder of photos or one video per scene"""
    out: Path
    """folder for the results: SCENE.ply and SCENE-workspace of each"""
    format: Literal["ply", "obj", "stl", "glb", "pcd"] = "ply"
    """of the results (.ply .pcd for clouds)"""


@dataclass(frozen=True)
class Options(MakingOptions, _Many):
    """Reconstruct every scene of a folder; one that fails stops no other.

    A scene is a folder of photos, or a video. The same command continues an interrupted batch: what is done is kept,
    what failed is tried again. Ends with a table, batch.json in the output folder, and exit code 1 if a scene failed.
    """

    def of_scene(self, source: Path) -> SceneOptions:
        """The options of one scene's reconstruction."""
        making = {entry.name: getattr(self, entry.name) for entry in fields(MakingOptions)}
        return SceneOptions(scene=source, out=self.out / f"{scene_name(source)}.{self.format}", **making)


@dataclass(frozen=True)
class Row:
    """How one scene ended. Numbers are those of its ``summary.json``, 0 or None where the run didn't come that far;
    ``scale`` is the 95 % interval of the metric scale as parts of it (0.97, 1.03), None where it is unknown.
    """

    scene: str
    source: str
    status: str
    reason: str
    output: str
    workspace: str
    photos_given: int
    photos_registered: int
    scale: tuple[float, float] | None
    vertices: int
    faces: int
    seconds: float


def run(options: Options) -> None:
    """The command: prints the table. Raises MappingError when a scene failed, KeyboardInterrupt after Ctrl+C."""
    rows = batch(options)
    failed = [row.scene for row in rows if row.status != "done"]
    if any(row.status == "interrupted" for row in rows):
        raise KeyboardInterrupt
    if failed:
        raise MappingError(
            f"{len(failed)} of {len(rows)} scenes failed: {', '.join(failed[:10])}{' ...' if failed[10:] else ''}; "
            f"reasons in {options.out / 'batch.json'}; the same command tries them again"
        )


def batch(options: Options, work: Work | None = None) -> list[Row]:
    """Reconstructs scene after scene, each in a process of its own, so that not even a crash stops the next one.

    ``batch.json`` is brought up to date after every scene. An interruption ends the batch: the scenes left have the
    status ``interrupted``. ``work`` does one scene (default: the reconstruction).

    Raises:
        BadInputError: no scene there, options that can't work, two scenes of one name.
        OutputError: the output folder can't be written.
    """
    work = work or in_own_process
    sources = find_scenes(options.scenes, options.out)
    check_output_folder(options.out, "--out")
    for source in sources:
        options.of_scene(source).check()
    rows: list[Row] = []
    stopped = False
    for number, source in enumerate(sources, start=1):
        settings = options.of_scene(source)
        outcome: Outcome = ("interrupted", "the batch was interrupted before")
        if not stopped:
            if not options.quiet:
                print(f"scene {number} of {len(sources)}: {source}", file=sys.stderr, flush=True)
            try:
                outcome = work(settings)
            except KeyboardInterrupt:
                outcome = ("interrupted", "")
            stopped = outcome[0] == "interrupted"
        rows.append(_row(settings, outcome))
        content = {"format": 1, "scenes": [asdict(row) for row in rows], "left": len(sources) - number}
        with readable_os_errors():
            options.out.mkdir(parents=True, exist_ok=True)
            text_ = json.dumps(known_numbers({**content, "versions": versions()}), indent=1, ensure_ascii=False)
            write_text(options.out / "batch.json", text_ + "\n")
    if not options.quiet:
        print(table(rows))
    return rows


def find_scenes(folder: Path, out: Path) -> list[Path]:
    """The scenes below ``folder`` in name order: folders (not ``out``, workspaces or hidden ones) and videos.

    Raises:
        BadInputError: no such folder, no scene in it, or two whose results would have one name.
    """
    if not folder.is_dir():
        raise BadInputError(f"{folder}: is no folder; accepted: a folder with a folder of photos or a video per scene")
    found: dict[str, Path] = {}
    with readable_os_errors():
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        is_scene = entry.is_dir() and entry.resolve() != out.resolve() and not (entry / WORKSPACE_MARKER).exists()
        if not is_scene and not (entry.is_file() and entry.suffix.lower() in VIDEO_SUFFIXES):
            continue
        name = scene_name(entry).casefold()  # some disks make no difference between a and A
        if name in found:
            raise BadInputError(f"{entry}: its results would have the name of those of {found[name]}; rename one")
        found[name] = entry
    if not found:
        raise BadInputError(
            f"{folder}: holds no scene; accepted: a folder with a folder of photos or a video per scene"
        )
    return list(found.values())


def scene_name(source: Path) -> str:
    """What a scene's results are called."""
    return source.name if source.is_dir() else source.stem


# ---------------------------------------------------------------------------------------------------------------------
# one scene


def in_own_process(options: SceneOptions, target: Callable[[SceneOptions, Connection], None] | None = None) -> Outcome:
    """Reconstructs a scene in a new process and waits for it."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target or _reconstruct, args=(options, sender))
    process.start()
    sender.close()
    try:
        outcome: Outcome | None = receiver.recv()
    except EOFError:
        outcome = None
    except KeyboardInterrupt:  # the process was told by the terminal, too, and ends by itself
        outcome = ("interrupted", "")
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            process.join()
    if outcome is None:
        code = process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        memory = " (the memory was used up?)" if code == -signal.SIGKILL else ""
        return "failed", f"the process ended with {how}{memory}; details in {options.workspace_folder / 'run.log'}"
    return outcome


def _reconstruct(options: SceneOptions, sender: Connection) -> None:
    from pipelines.reconstruct import reconstruct

    try:
        summary = reconstruct(options)
        if not options.quiet:
            print(summary.text(), flush=True)
        sender.send(("done", ""))
    except KeyboardInterrupt:
        sender.send(("interrupted", ""))
    except ReconError as error:
        sender.send(("failed", _one_line(error)))
    except Exception as error:  # its traceback is in the run's log
        notes = "; ".join(getattr(error, "__notes__", []))
        sender.send(("failed", _one_line(f"unexpected {type(error).__name__}: {error}; {notes}")))


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _row(options: SceneOptions, outcome: Outcome) -> Row:
    status, reason = outcome
    try:
        summary: dict[str, Any] = read_summary(options.workspace_folder)
    except ReconError:
        summary = {}
    scale, mesh = summary.get("scale") or {}, summary.get("mesh") or {}
    known = status == "done" and bool(scale.get("known"))
    return Row(
        scene=scene_name(options.scene), source=str(options.scene), status=status, reason=reason,
        output=str(options.out), workspace=str(options.workspace_folder),
        photos_given=int(summary.get("photos_given", 0)), photos_registered=int(summary.get("photos_registered", 0)),
        scale=(scale["low"] / scale["metres_per_unit"], scale["high"] / scale["metres_per_unit"]) if known else None,
        vertices=int(mesh.get("vertices", 0)) if status == "done" else 0,
        faces=int(mesh.get("faces", 0)) if status == "done" else 0, seconds=float(summary.get("seconds", 0.0)),
    )  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """All scenes for the console, a line each."""
    width = max(len("scene"), *(len(row.scene) for row in rows))
    lines = [f"{'scene':<{width}}  {'photos':>11}  {'scale, 95 %':>18}  {'vertices':>10}  {'time':>8}"]
    for row in rows:
        if row.status != "done":
            lines.append(f"{row.scene:<{width}}  {row.status}{': ' if row.reason else ''}{row.reason}")
            continue
        low, high = row.scale or (None, None)
        scale = f"{100 * (low - 1):+.1f} % to {100 * (high - 1):+.1f} %" if low and high else "unknown"
        photos = f"{row.photos_registered} of {row.photos_given}"
        lines.append(f"{row.scene:<{width}}  {photos:>11}  {scale:>18}  {row.vertices:>10}  {row.seconds:>6.0f} s")
    return "\n".join(lines)
