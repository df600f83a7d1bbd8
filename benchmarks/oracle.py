"""What the geometry makes of answers of the published quality: the whole pipeline with an oracle for a checkpoint.

    python -m benchmarks.oracle synthetic --seeds 0 1 2 --out benchmarks/results/oracle_synthetic.json
    python -m benchmarks.oracle redkitchen --data ../shared/data --out benchmarks/results/oracle_redkitchen.json

Every run goes through ``pipelines.reconstruct`` as the command does: photos, questions and answers in text (errors of
:class:`recon.synth.oracle.OracleErrors`), features, map, scale, dense depth, mesh. Variants leave a part out; those of
one seed share a workspace, so that they redo only what differs (``reused`` names the rest: time a stage where it was
computed). Each run has a process of its own, so that its peak memory is its own. Each row of the JSON is written when
it is done; the same command goes on where it was stopped, and rows that are there are kept.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from benchmarks.oracle_scoring import score_run
from benchmarks.provenance import provenance
from pipelines.cli import parse
from pipelines.models import TaskModel
from pipelines.options import Options as RunOptions
from pipelines.reconstruct import reconstruct
from recon.errors import ReconError
from recon.interop.colmap import read_ground_truth
from recon.interop.groundtruth import read_folder
from recon.questions.profile import PUBLIC_PROFILES, CheckpointProfile
from recon.synth.capture import SynthCaptureOptions, write_capture
from recon.synth.dataset import split_seed
from recon.synth.oracle import Oracle, OracleView
from recon.types import Task

TASKS: tuple[Task, ...] = ("depth", "match", "pose")

# What each variant leaves out or changes: tasks that the oracle answers (None: the embedded checkpoint answers),
# sensor depth given or not, further options.
VARIANTS: dict[str, tuple[tuple[Task, ...] | None, bool, tuple[str, ...]]] = {
    "full": (TASKS, False, ()),
    "photos-alone": ((), False, ()),
    "no-refinement": (TASKS, False, ("--surface.no-refine",)),
    "no-planes": (TASKS, False, ("--surface.no-planes",)),
    "coarse-to-fine": (TASKS, False, ("--planning", "coarse-to-fine")),
    "no-prior": (("match", "pose"), False, ()),
    "no-matches": (("depth", "pose"), False, ()),
    "no-poses": (("depth", "match"), False, ()),
    "sensor": ((), True, ()),
    "embedded": (None, False, ("--trust-model",)),
    "embedded-pairs": (None, False, ("--trust-model", "--match-model", "embedded", "--pose-model", "embedded")),
}


@dataclass(frozen=True)
class Options:
    """Which captures and variants."""

    capture: tyro.conf.Positional[Literal["synthetic", "redkitchen"]]
    """procedural rooms of the test split, or the real RGB-D capture"""
    seeds: tuple[int, ...] = (0,)
    """synthetic: rooms of the split; of the oracle's errors in both"""
    variants: tuple[str, ...] = ("full",)
    """of: full photos-alone no-refinement no-planes coarse-to-fine no-prior no-matches no-poses sensor, and with the
    embedded checkpoint instead of the oracle: embedded, embedded-pairs (asks it for matches and poses, too)"""
    views: int = 12
    """photos of a synthetic room"""
    width: int = 640
    """of a synthetic photo"""
    budget: int = 256
    """depth questions per photo"""
    data: Path = Path("../shared/data")
    """folder that holds redkitchen-a"""
    keep: Path | None = None
    """folder for captures and workspaces (default: a temporary one); a second run goes on there"""
    more: tyro.conf.UseAppendAction[Annotated[tuple[str, ...], tyro.conf.arg(metavar="OPTION")]] = ()
    """further options of the reconstruction, each with its own ``--more=``"""
    out: Path | None = None
    """JSON file to write"""


class OracleModel(TaskModel):
    """An oracle where the pipeline expects a checkpoint; offers only the tasks it's told to."""

    def __init__(self, task: Task, oracle: Oracle, offered: bool, label: str) -> None:
        self.task, self.source, self.profile = task, f"oracle:{label}", oracle.checkpoint.profile
        self._oracle, self._offered = oracle, offered

    @property
    def offers_task(self) -> bool:
        return self._offered

    @property
    def too_coarse(self) -> str:
        return ""

    @property
    def trusted(self) -> bool:
        return True

    @property
    def engine(self) -> Any:
        return self._oracle

    def release(self) -> None:
        pass

    @property
    def notice(self) -> str:
        return ""

    @property
    def identity(self) -> dict[str, object]:
        return {"source": self.source, "errors": self._oracle.errors, "seed": self._oracle.seed}


def public_profile() -> CheckpointProfile:
    """The four public checkpoints' profile in one: their prompts, image sizes and stated errors."""
    tasks = {task: PUBLIC_PROFILES[f"facebook/VLM3-{short}"].task(task) for task, short in zip(TASKS, _SHORT)}
    return CheckpointProfile("oracle", "vlm3-released", "none", "ground truth with errors", True, tasks)


_SHORT = ("depth", "corr", "pose")


def known_views(scene: Path) -> list[OracleView]:
    """A capture's photos with their cameras, depth and poses (``gt/`` beside ``images/``)."""
    truth = read_folder(scene)
    cameras, poses, _ = read_ground_truth(scene / "gt" / "cameras.json")
    assert truth.load_depth is not None
    views = []
    for name in truth.depth_names:
        from PIL import Image

        with Image.open(scene / "images" / name) as image:
            pixels = np.asarray(image.convert("RGB"))
        views.append(OracleView(name, pixels, cameras[name], truth.load_depth(name).depth_m, poses[name]))
    return views


def oracle_of(scene: Path, seed: int) -> Oracle:
    """An oracle that knows a capture's photos."""
    return Oracle(known_views(scene), public_profile(), seed=seed)


def oracle_models(scene: Path, seed: int, tasks: tuple[Task, ...]) -> dict[Task, TaskModel]:
    """One oracle for all tasks, which offers only ``tasks``."""
    oracle = oracle_of(scene, seed)
    return {task: OracleModel(task, oracle, task in tasks, str(seed)) for task in TASKS}


def synthetic_scene(folder: Path, seed: int, options: Options) -> Path:
    """A room of the test split, made once."""
    scene = folder / f"room-{seed}"
    if not (scene / "gt" / "mesh.ply").is_file():
        size = SynthCaptureOptions(
            num_views=options.views,
            depth_views=options.views,
            width_px=options.width,
            height_px=options.width * 3 // 4,
            focal_px=482.0 * options.width / 640,
        )
        write_capture(scene, split_seed("test", seed), options=size)
    return scene


def with_sensor(scene: Path, folder: Path) -> Path:
    """The capture with its true depth as sensor depth."""
    target = folder / f"{scene.name}-sensor"
    for source, name in ((scene / "images", "images"), (scene / "gt" / "depth", "depth")):
        if not (target / name).is_dir():
            shutil.copytree(source, target / name)
    return target


def run_one(scene: Path, folder: Path, seed: int, variant: str, options: Options) -> dict[str, Any]:
    """One reconstruction and its scores."""
    tasks, sensor, extra = VARIANTS[variant]
    photos = with_sensor(scene, folder) if sensor else folder / f"{scene.name}-photos"
    if not sensor and not photos.is_dir():
        shutil.copytree(scene / "images", photos / "images")
    out = folder / f"{scene.name}-{seed}-{variant}.ply"
    workspace = folder / f"{photos.name}-{seed}-workspace"
    line = [
        str(photos), "--out", str(out), "--workspace", str(workspace), "--budget", str(options.budget),
        "--device", "cpu", "--quiet",
    ]  # fmt: skip
    run_options = parse(RunOptions, "reconstruct", [*line, *extra, *options.more])
    result: dict[str, Any] = {"capture": scene.name, "variant": variant, "seed": seed}
    started = time.perf_counter()
    try:
        summary = reconstruct(run_options, None if tasks is None else oracle_models(scene, seed, tasks))
    except ReconError as error:
        return result | {"failed": str(error)}
    result["seconds"] = {stage.name: round(stage.seconds, 1) for stage in summary.stages if stage.seconds >= 0.05}
    result["reused"] = [stage.name for stage in summary.stages if stage.status == "reused"]
    result["seconds_in_all"] = round(time.perf_counter() - started, 1)
    result["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return result | score_run(summary, out, run_options, read_folder(scene))


def main(options: Options) -> dict[str, Any]:
    """Runs what ``--out`` does not hold yet, writes each row when it is done; returns what is written."""
    unknown = set(options.variants) - set(VARIANTS)
    if unknown:
        raise SystemExit(f"--variants: no such variant {', '.join(sorted(unknown))}; accepted: {', '.join(VARIANTS)}")
    runs: list[dict[str, Any]] = []
    kept: dict[str, Any] = {}
    if options.out is not None and options.out.is_file():
        kept = json.loads(options.out.read_text(encoding="utf-8"))
        runs = kept["runs"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
            for seed in options.seeds:
                scene: Path | None = None
                for variant in options.variants:
                    settings = row_settings(options, seed, variant)
                    if any(all(run.get(key) == value for key, value in settings.items()) for run in runs):
                        continue
                    if scene is None and options.capture == "synthetic":
                        scene = pool.submit(synthetic_scene, folder, seed, options).result()
                    row = pool.submit(run_one, scene or options.data / "redkitchen-a", folder, seed, variant, options)
                    runs.append(settings | row.result() | {"commit": _measured()["commit"]})
                    print(json.dumps(runs[-1], indent=2), file=sys.stderr, flush=True)
                    _write(options, kept, runs)
    return {**_measured(), "runs": runs}


def _measured() -> dict[str, Any]:
    return provenance("python -m benchmarks.oracle " + " ".join(sys.argv[1:]))


def row_settings(options: Options, seed: int, variant: str) -> dict[str, Any]:
    """What a row depends on besides the code: a row of the same settings is not run again."""
    return {
        "capture": f"room-{seed}" if options.capture == "synthetic" else "redkitchen-a",
        "photos": options.views if options.capture == "synthetic" else 30,
        "variant": variant,
        "seed": seed,
        "budget": options.budget,
        "options": list(options.more),
    }


def _write(options: Options, kept: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        partial = options.out.with_suffix(".tmp")
        partial.write_text(json.dumps({**kept, **_measured(), "runs": runs}, indent=1) + "\n", encoding="utf-8")
        partial.replace(options.out)


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=2))
