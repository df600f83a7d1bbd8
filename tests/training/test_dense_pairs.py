"""Pairs in memory: labels follow every change of a view; descriptors and motion are learned; a killed run continues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from recon.errors import BadInputError
from recon.questions.dialects import get_dialect
from recon.questions.pose import rotation_from_euler
from recon.synth.correspondence import true_correspondence
from recon.training.dense import DenseViews
from recon.training.dense_pairs import MIRROR, DensePairs, motion_of, pose_of_motion
from recon.training.descriptors import match_loss, reading_kernel, token_shares
from recon.training.match_structure import MatchLayout
from recon.training.pool import list_pool, pooled_pair, read_pair
from recon.training.shape import ModelSize, make_config
from recon.training.teacher import teach_pairs
from recon.training.tokenizer import build_image_processor
from recon.training.vision import DenseModel, VisionSettings, school_vision

SIZE = ModelSize(
    text_layers=4, text_hidden=192, text_heads=6, text_kv_heads=3, text_mlp=64, vision_layers=1, vision_hidden=48,
    vision_heads=3, vision_mlp=64, position_grid=16, deepstack=(),
)  # fmt: skip
PAIRS = 2  # of the first three rooms, those whose two photos have one size


@pytest.fixture(scope="module")
def pairs_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    form = get_dialect("recon-1").match
    assert form is not None
    for index in range(3):
        pooled_pair(folder, "train", index, form.image)
    return folder


@pytest.fixture(scope="module")
def pairs(pairs_pool: Path) -> DensePairs:
    return DensePairs(sorted(pairs_pool.iterdir()), build_image_processor())


def _model(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    torch.manual_seed(0)
    return Qwen3VLForConditionalGeneration(make_config(SIZE, tokenizer)).float()


def test_places_are_those_of_the_exact_correspondence(pairs_pool: Path, pairs: DensePairs) -> None:
    assert len(pairs) == PAIRS
    known = {}
    for path in sorted(pairs_pool.glob("pair-*.npz")):
        pair = read_pair(path)
        known[round(float(np.linalg.norm(pair.cam1_from_cam2[:, 3])), 4)] = pair
    for batch in pairs.in_order(pairs=1):
        pair = known[round(float(batch.motion[0, 6].exp()), 4)]
        rows, columns = batch.views.rows, batch.views.columns
        size1, size2 = (
            np.array([view.image.camera.width_px, view.image.camera.height_px]) for view in (pair.first, pair.second)
        )
        cell = 4 * columns * 5 + 7  # the sixth row's eighth cell
        point = (np.array([7.5, 5.5]) / [4 * columns, 4 * rows] * size1)[None]
        found, seen = true_correspondence(pair.first.geometry(), pair.second.geometry(), point)
        assert bool(batch.seen[0, cell]) == bool(seen[0])
        if seen[0]:
            expected = found[0] / size2 * [columns, rows]
            np.testing.assert_allclose(batch.places[0, cell].numpy(), expected, atol=0.01)
        assert batch.seen.float().mean() > 0.25


def test_changed_pairs_show_the_same_points(pairs: DensePairs) -> None:
    """There and back: what lies at a cell's place in the partner has its own place near that cell."""
    rng = np.random.default_rng(0)
    checked = 0
    for _ in range(8):
        batch = pairs.draw(300, rng)
        rows, columns, count = batch.views.rows, batch.views.columns, len(batch.motion)
        partner = torch.arange(2 * count).roll(count)
        for side in range(2 * count):
            seen = batch.seen[side]
            there = batch.places[side][seen]  # in tokens
            cell = (there * 4).floor().long()
            cell = torch.minimum(cell.clamp(min=0), torch.tensor([4 * columns - 1, 4 * rows - 1]))
            index = cell[:, 1] * 4 * columns + cell[:, 0]
            back, mutual = batch.places[partner[side]][index], batch.seen[partner[side]][index]
            numbers = seen.nonzero().flatten()
            own = torch.stack([numbers % (4 * columns) + 0.5, numbers // (4 * columns) + 0.5], dim=1) / 4
            distance = (back - own)[mutual].norm(dim=1)
            assert distance.median() < 0.25  # tokens: the size of a cell
            checked += len(distance)
    assert checked > 1000


def test_motion_is_written_and_read() -> None:
    pose = np.column_stack([rotation_from_euler(30.0, -12.0, 4.0), [0.3, -0.1, 0.8]])
    motion = motion_of(pose)
    np.testing.assert_allclose(pose_of_motion(motion.astype(np.float64)), pose, atol=1e-6)
    mirror = np.diag([-1.0, 1.0, 1.0])
    mirrored = np.column_stack([mirror @ pose[:, :3] @ mirror, mirror @ pose[:, 3]])
    np.testing.assert_allclose(motion_of(mirrored), motion * MIRROR, atol=1e-6)


def test_shares_hold_the_place_and_kernels_look_at_it() -> None:
    shares = token_shares(torch.tensor([[2.25, 1.5], [0.1, 2.9]]), 3, 4)
    assert torch.allclose(shares.sum(-1), torch.ones(2))
    assert torch.allclose(shares[0].reshape(3, 4)[1], torch.tensor([0.0, 0.25, 0.75, 0.0]))
    assert shares[1].reshape(3, 4)[2, 0] == 1.0
    kernel = reading_kernel(3, 4).reshape(12, 16, 3, 4)
    # cell (5, 9) lies in token (1, 2), its upper left part
    assert int(kernel[5, 9].flatten().argmax()) == 1 * 4 + 2
    assert kernel[5, 9, 1, 1] > kernel[5, 9, 1, 3]


def test_schooling_with_pairs_learns_and_continues(
    tokenizer: PreTrainedTokenizerFast, pool: Path, pairs_pool: Path, pairs: DensePairs, tmp_path: Path
) -> None:
    processor = build_image_processor()
    views = DenseViews(list_pool(pool), processor)
    settings = VisionSettings(
        steps=24, tokens=150, pair_tokens=150, warmup=2, learning_rate=3e-3, matrix_rate=4e-3, save_every=12
    )
    whole = _model(tokenizer)
    before = _entropy(DenseModel(whole), pairs)
    dense, _ = school_vision(whole, views, settings, pairs=pairs)
    assert _entropy(dense, pairs) < 0.9 * before

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == 17:
            raise Killed

    halves, state = _model(tokenizer), tmp_path / "state.pt"
    with pytest.raises(Killed):
        school_vision(halves, views, settings, kill, pairs, state)
    fresh = _model(tokenizer)
    again, _ = school_vision(fresh, views, settings, pairs=pairs, state=state)
    for name, tensor in dense.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name

    taught, rendered = tmp_path / "taught", sorted(pairs_pool.iterdir())
    assert teach_pairs(dense, processor, rendered, taught) == len(rendered)
    assert teach_pairs(dense, processor, rendered, taught) == 0
    kept = 0
    for path in taught.iterdir():
        guessed, true = read_pair(path).cam1_from_cam2, read_pair(pairs_pool / path.name).cam1_from_cam2
        np.testing.assert_allclose(guessed[:, :3] @ guessed[:, :3].T, np.eye(3), atol=1e-6)
        kept += int(np.allclose(guessed, true))
    assert kept == len(rendered) - PAIRS  # what a tower can't compare keeps its truth

    state.write_bytes(b"nothing")
    with pytest.raises(BadInputError, match="not of this run"):
        school_vision(_model(tokenizer), views, settings, pairs=pairs, state=state)


@torch.no_grad()
def _entropy(dense: DenseModel, pairs: DensePairs) -> float:
    assert dense.motion is not None
    batch = pairs.in_order()[0]
    tokens, _, _ = dense(batch.views.patches, batch.views.rows, batch.views.columns)
    descriptors = tokens[..., MatchLayout(tokens.shape[-1]).descriptor]
    return float(match_loss(tokens, descriptors, dense.motion, batch).cross_entropy)


def test_pairs_need_a_model_that_can_match(pool: Path, pairs: DensePairs, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no pair of views"):
        DensePairs([], build_image_processor())
