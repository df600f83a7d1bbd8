"""The first part of ``vlm3-recon train --school-vision``: a tower that sees, kept in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tqdm import tqdm

from recon.errors import BadInputError

if TYPE_CHECKING:
    from pipelines.train import TrainOptions
    from recon.training.export import Parts
    from recon.training.mixture import Mixture, RoomDataset
    from recon.training.vision import DenseModel

COMPILED_FROM = 1000  # steps; compiling takes a minute or two
TOWER, HEADS, TAUGHT = "vision.safetensors", "vision-heads.safetensors", "taught"


def school_tower(parts: Parts, mixture: Mixture, options: TrainOptions) -> DenseModel:
    """Schools the tower of ``parts`` on the mixture's first data set of procedural views, or takes up what an earlier
    call of the same run left in ``out``.

    Raises:
        BadInputError: no such data set, a dialect without depth, or damaged files in ``out``.
    """
    from safetensors.torch import save_file

    from recon.training.dense import DenseViews
    from recon.training.pool import render_pool
    from recon.training.vision import DenseModel, VisionSettings, school_vision

    visual, out, quiet = parts.model.model.visual, options.out, options.quiet
    if options.resume and (out / TOWER).is_file():
        dense = DenseModel(parts.model)
        _load(visual, out / TOWER)
        _load(dense.heads, out / HEADS)
        return dense
    form, rooms = mixture.dialect.depth, _rooms(mixture)
    if form is None or not rooms:
        raise BadInputError(
            "--school-vision needs procedural views with depth: a data set of task depth (with rooms and pool) in "
            "--mixture, in a dialect that has depth questions"
        )
    first = rooms[0]
    with tqdm(desc="render", unit="view", disable=quiet) as bar:
        render_pool(first.pool, first.split, 0, first.rooms, form.image, bar_updates(bar), scenery=first.scenery)
    with tqdm(desc="load", unit="view", disable=quiet) as bar:
        views = DenseViews(first.pool, parts.image_processor, bar_updates(bar))
    steps = options.school_vision
    settings = VisionSettings(steps, bf16=options.bf16, compiled=steps >= COMPILED_FROM, seed=options.seed)
    with tqdm(desc="vision", unit="step", disable=quiet) as bar:
        dense, _ = school_vision(parts.model, views, settings, bar_updates(bar))
    for module, name in ((dense.heads, HEADS), (visual, TOWER)):  # the tower last: it says that all is done
        part = (out / name).with_suffix(".part")
        save_file({key: tensor.contiguous() for key, tensor in module.state_dict().items()}, part)
        part.replace(out / name)
    return dense


def taught_mixture(dense: DenseModel, parts: Parts, mixture: Mixture, out: Path, quiet: bool) -> Mixture:
    """The mixture with the tower's own estimates as the labels of its procedural depth data sets."""
    from recon.training.pool import render_pool
    from recon.training.teacher import teach_pool

    datasets = list(mixture.datasets)
    for rooms in _rooms(mixture):
        assert mixture.dialect.depth is not None
        render_pool(rooms.pool, rooms.split, 0, rooms.rooms, mixture.dialect.depth.image, scenery=rooms.scenery)
        taught = out / TAUGHT / rooms.name
        with tqdm(desc="teach", unit="view", disable=quiet) as bar:
            teach_pool(dense, parts.image_processor, rooms.pool, taught, bar_updates(bar))
        datasets[datasets.index(rooms)] = replace(rooms, pool=taught)
    return replace(mixture, datasets=tuple(datasets))


def bar_updates(bar: tqdm[NoReturn]) -> Callable[[int, int], None]:
    """A progress function that moves the bar."""

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return progress


def _rooms(mixture: Mixture) -> list[RoomDataset]:
    from recon.training.mixture import RoomDataset

    return [entry for entry in mixture.datasets if isinstance(entry, RoomDataset) and entry.task == "depth"]


def _load(module: object, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        module.load_state_dict(load_file(path))  # type: ignore[attr-defined]
    except (OSError, RuntimeError, SafetensorError) as error:
        raise BadInputError(f"{path}: not of a vision tower of this size ({' '.join(str(error).split())})") from error
