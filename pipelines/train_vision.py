"""The first part of ``vlm3-recon train --school-vision``: a tower that sees, kept in the run's folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from tqdm import tqdm

from recon.errors import BadInputError

if TYPE_CHECKING:
    from pipelines.train import TrainOptions
    from recon.cameras.unify import ImageProfile
    from recon.training.datasets import RoomDataset
    from recon.training.dense_pairs import DensePairs
    from recon.training.encode import EncodedSample
    from recon.training.export import Parts
    from recon.training.matching import Measured
    from recon.training.mixture import Mixture
    from recon.training.pool import Shape
    from recon.training.vision import DenseModel

COMPILED_FROM = 1000  # steps; compiling takes a minute or two
PAIR_TASKS = ("match", "pose")
TOWER, HEADS, TAUGHT = "vision.safetensors", "vision-heads.safetensors", "taught"
MOTION, STATE = "vision-motion.safetensors", "vision-state.pt"
MEASURED_VIEWS = 64  # whose questions show how loud the streams are where matching is built in
HEADS_FIRST = 100  # steps of new heads over a tower that sees already


def add_matching(parts: Parts, mixture: Mixture) -> Parts:
    """The parts with room for matching.

    Raises:
        BadInputError: a shape that matching can't be built into, or no procedural depth views in the mixture.
    """
    from recon.training.widen import widened

    try:
        model = widened(parts.model, parts.tokenizer, _questions(parts, mixture))
    except ValueError as error:
        raise BadInputError(f"--add-matching: {error}") from error
    return replace(parts, model=model.train())


def add_regions(parts: Parts) -> Parts:
    """The parts with units that compare regions; those of a model that has them stay.

    Raises:
        BadInputError: a shape without matching.
    """
    from recon.training.regions import with_regions

    try:
        model = with_regions(parts.model, parts.tokenizer)
    except ValueError as error:
        raise BadInputError(f"--add-regions: {error}") from error
    return replace(parts, model=model.train())


def _questions(parts: Parts, mixture: Mixture) -> list[EncodedSample]:
    """A few questions of the mixture's first data set of procedural depth."""
    import numpy as np

    from recon.training.encode import Encoder

    first = _first_rooms(mixture)
    encoder = Encoder(parts.tokenizer, parts.image_processor, parts.model.config.image_token_id)
    few = replace(first, questions=8)
    count = min(MEASURED_VIEWS, first.rooms)
    return [encoder.encode(few.sample(mixture.dialect, turn, np.random.default_rng(turn))) for turn in range(count)]


def school_tower(parts: Parts, mixture: Mixture, options: TrainOptions) -> DenseModel:
    """Schools the tower of ``parts`` on the mixture's first data set of procedural views, or takes up what an earlier
    call of the same run left in ``out``. Matching then fits the tower: built in anew, or, where a text side uses it
    already, with its readings of the tower taken again.

    Raises:
        BadInputError: no such data set, a dialect without depth, a checkpoint whose structure was not made here or is
            lost, one that matches and no pairs in the mixture, or damaged files in ``out``.
    """
    from safetensors.torch import save_file

    from recon.training.dense import DenseViews
    from recon.training.vision import DenseModel, VisionSettings, school_vision

    before = _reading(parts, mixture, options)
    visual, out, quiet = parts.model.model.visual, options.out, options.quiet
    if options.resume and (out / TOWER).is_file():
        dense = DenseModel(parts.model)
        _load(visual, out / TOWER)
        _load(dense.heads, out / HEADS)
        if dense.motion is not None:
            _load(dense.motion, out / MOTION)
        _fit_matching(parts, mixture, before)
        return dense
    shutil.rmtree(out / TAUGHT, ignore_errors=True)  # another tower's estimates
    paths = _rendered(_first_rooms(mixture), mixture, "view", quiet)
    with tqdm(desc="load", unit="view", disable=quiet) as bar:
        views = DenseViews(paths, parts.image_processor, bar_updates(bar))
    pairs = _dense_pairs(parts, mixture, quiet)
    steps = options.school_vision
    settings = VisionSettings(steps, bf16=options.bf16, compiled=steps >= COMPILED_FROM, seed=options.seed)
    settings = replace(
        settings,
        matrix_rate=settings.matrix_rate * options.school_rate,
        learning_rate=settings.learning_rate * options.school_rate,
        heads_first=0 if options.from_ is None else min(HEADS_FIRST, steps // 5),
    )
    if not options.resume:
        (out / STATE).unlink(missing_ok=True)
    with tqdm(desc="vision", unit="step", disable=quiet) as bar:
        dense, _ = school_vision(parts.model, views, settings, bar_updates(bar), pairs, out / STATE)
    kept = [(dense.heads, HEADS), (dense.motion, MOTION), (visual, TOWER)]  # the tower last: it says that all is done
    for module, name in kept:
        if module is not None:
            part = (out / name).with_suffix(".part")
            save_file({key: tensor.contiguous() for key, tensor in module.state_dict().items()}, part)
            part.replace(out / name)
    (out / STATE).unlink(missing_ok=True)
    _fit_matching(parts, mixture, before)
    return dense


def _rendered(rooms: RoomDataset, mixture: Mixture, shape: Shape, quiet: bool) -> list[Path]:
    """The files of a data set's own views or pairs, whatever else its pool holds."""
    from recon.training.pool import pool_path, render_pool

    with tqdm(desc="render", unit=shape, disable=quiet) as bar:
        render_pool(
            rooms.pool, rooms.split, 0, rooms.rooms, _image(mixture), bar_updates(bar), shape, rooms.scenery
        )  # fmt: skip
    return [pool_path(rooms.pool, rooms.split, index, shape, rooms.scenery) for index in range(rooms.rooms)]


def _dense_pairs(parts: Parts, mixture: Mixture, quiet: bool) -> DensePairs | None:
    """The pairs of the mixture's first procedural match or pose data set; None without, or for a model without room."""
    from recon.training.dense_pairs import DensePairs
    from recon.training.match_structure import can_match

    rooms = _rooms(mixture, PAIR_TASKS)
    if not rooms or not can_match(parts.model.config):
        return None
    paths = _rendered(rooms[0], mixture, "pair", quiet)
    with tqdm(desc="load", unit="pair", disable=quiet) as bar:
        return DensePairs(paths, parts.image_processor, bar_updates(bar))


def _reading(parts: Parts, mixture: Mixture, options: TrainOptions) -> Measured | None:
    """How a text side that has learned to match reads the tower as it is; None where matching is built in anew."""
    from recon.training.match_structure import can_match
    from recon.training.matching import has_matching
    from recon.training.structure import has_codes
    from recon.training.widen import measure

    if options.from_ is None:
        return None
    if not has_codes(parts.model):
        raise BadInputError(
            f"--school-vision needs the coordinate codes of this project's small models; --from {options.from_} has "
            f"none, or lost them in training without --hold-structure"
        )
    if options.add_matching or not can_match(parts.model.config):
        return None
    if not has_matching(parts.model):
        raise BadInputError(
            f"--from {options.from_}: no matching is built in (or training without --hold-structure has lost it), so "
            f"that no new tower can be fitted to it"
        )
    if not _rooms(mixture, PAIR_TASKS):
        raise BadInputError(
            f"--mixture {options.mixture}: --school-vision of a checkpoint that matches needs pairs as well (a "
            f"procedural data set of task match or pose), or it would forget what its descriptors are for"
        )
    return measure(parts.model, int(parts.tokenizer.pad_token_id), _questions(parts, mixture))


def _fit_matching(parts: Parts, mixture: Mixture, before: Measured | None) -> None:
    """Matching fits the tower that schooling made."""
    from recon.training.match_structure import can_match
    from recon.training.matching import refit_matching
    from recon.training.widen import measure, rebuild

    if not can_match(parts.model.config):
        return
    questions = _questions(parts, mixture)
    if before is None:
        rebuild(parts.model, parts.tokenizer, questions)
    else:
        refit_matching(parts.model, before, measure(parts.model, int(parts.tokenizer.pad_token_id), questions))


def taught_mixture(dense: DenseModel, parts: Parts, mixture: Mixture, out: Path, quiet: bool) -> Mixture:
    """The mixture with the tower's own estimates as the labels of its procedural depth and pose data sets, and as the
    depths of what region units learn. Data sets that share a pool share the estimates."""
    from recon.training.teacher import teach_pairs, teach_pool

    datasets = list(mixture.datasets)
    written: dict[tuple[Path, str], Path] = {}
    for rooms in _rooms(mixture, ("depth", "object", "pose") if dense.motion is not None else ("depth", "object")):
        if rooms.task == "object" and not (rooms.regions and rooms.views == "any"):
            continue
        shape: Literal["view", "pair"] = "pair" if rooms.task == "pose" else "view"
        paths = _rendered(rooms, mixture, shape, quiet)
        taught = written.setdefault((rooms.pool, shape), out / TAUGHT / rooms.name)
        teach = teach_pairs if shape == "pair" else teach_pool
        with tqdm(desc="teach", unit=shape, disable=quiet) as bar:
            teach(dense, parts.image_processor, paths, taught, bar_updates(bar))
        datasets[datasets.index(rooms)] = replace(rooms, pool=taught)
    return replace(mixture, datasets=tuple(datasets))


def bar_updates(bar: tqdm[NoReturn]) -> Callable[[int, int], None]:
    """A progress function that moves the bar."""

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return progress


def _rooms(mixture: Mixture, tasks: Sequence[str] = ("depth",)) -> list[RoomDataset]:
    from recon.training.datasets import RoomDataset

    return [entry for entry in mixture.datasets if isinstance(entry, RoomDataset) and entry.task in tasks]


def _first_rooms(mixture: Mixture) -> RoomDataset:
    rooms = _rooms(mixture)
    if mixture.dialect.depth is None or not rooms:
        raise BadInputError(
            "--school-vision and --add-matching need procedural views with depth: a data set of task depth (with rooms "
            "and pool) in --mixture, in a dialect that has depth questions"
        )
    return rooms[0]


def _image(mixture: Mixture) -> ImageProfile:
    """Of all tasks: schooling shares one tower."""
    assert mixture.dialect.depth is not None
    return mixture.dialect.depth.image


def _load(module: object, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        module.load_state_dict(load_file(path))  # type: ignore[attr-defined]
    except (OSError, RuntimeError, SafetensorError) as error:
        raise BadInputError(f"{path}: not of a vision tower of this size ({' '.join(str(error).split())})") from error
