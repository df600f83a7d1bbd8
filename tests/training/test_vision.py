"""Schooling of a new vision tower: labels, held structure, that it learns, and that its estimates become a pool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recon.training.attention import use_linear_patches
from recon.training.dense import CELLS, DenseViews
from recon.training.export import Parts, build_parts
from recon.training.pool import PooledView, list_pool, read_view
from recon.training.structure import trainable_masks
from recon.training.teacher import teach_pool
from recon.training.tower import GridTower
from recon.training.vision import (
    BINS,
    FARTHEST_M,
    NEAREST_M,
    DenseModel,
    VisionSettings,
    dense_depth,
    mean_log_depth,
    school_vision,
    soft_bins,
)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return build_parts("tiny", 0)


def test_soft_bins_hold_the_depth() -> None:
    depth_m = torch.tensor([NEAREST_M, 1.0, 3.3, FARTHEST_M])
    shares = soft_bins(depth_m)
    assert torch.allclose(shares.sum(-1), torch.ones(4))
    # linear between two bins in the logarithm, so the mean of logarithms is exact
    assert torch.allclose(mean_log_depth((shares + 1e-30).log()).exp(), depth_m, rtol=1e-4)


def test_unknown_depth_teaches_nothing_and_far_depth_the_last_bin() -> None:
    shares = soft_bins(torch.tensor([float("nan"), 100.0, 0.01]))
    assert shares[0].sum() == 0
    assert shares[1].argmax() == BINS - 1
    assert shares[2].argmax() == 0


def test_linear_patches_equal_the_convolution() -> None:
    own = build_parts("tiny", 0)
    embed = own.model.model.visual.patch_embed
    patches = torch.randn(12, 3 * 2 * 16 * 16)
    with torch.no_grad():
        expected = embed(patches)
        use_linear_patches(own.model)
        # largest difference seen: 5e-7
        assert torch.allclose(embed(patches), expected, atol=1e-5)


def test_the_tower_for_one_grid_equals_hugging_faces(parts: Parts, pool: Path, views: list[PooledView]) -> None:
    tower, checked = GridTower(parts.model), 0
    for batch in DenseViews(list_pool(pool), parts.image_processor).in_order():
        grid = torch.tensor([[1, 2 * batch.rows, 2 * batch.columns]] * len(batch.patches))
        frames = batch.patches.flatten(0, 1).unflatten(1, (3, 1, 256)).expand(-1, -1, 2, -1).flatten(1)
        with torch.no_grad():
            expected = parts.model.model.visual(frames, grid_thw=grid)
            tokens, extra = tower(batch.patches, *tower.places(batch.rows, batch.columns))
        # largest difference seen: 4e-6
        torch.testing.assert_close(tokens.flatten(0, 1), expected.pooler_output, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(extra.flatten(0, 1), expected.deepstack_features[0], atol=1e-4, rtol=1e-4)
        checked += len(batch.patches)
    assert checked == len(views)


def test_labels_belong_to_their_cells(parts: Parts, pool: Path, views: list[PooledView]) -> None:
    batches = DenseViews(list_pool(pool), parts.image_processor).in_order()
    found = {}
    for batch in batches:
        for depth_m, normals in zip(batch.depth_m, batch.normals, strict=True):
            image = depth_m.unflatten(0, (batch.rows, batch.columns)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
            found[round(float(image.mean()), 4)] = (image.numpy(), normals)
    for view in views:
        height, width = view.depth_m.shape
        shapes = [image.shape for image, _ in found.values()]
        matches = 0
        for rows, columns in set(shapes):
            row = ((np.arange(rows) + 0.5) / rows * height).astype(int)
            column = ((np.arange(columns) + 0.5) / columns * width).astype(int)
            expected = view.depth_m[row][:, column]
            matches += sum(image.shape == expected.shape and np.allclose(image, expected, rtol=2e-3) for image, _ in
                           found.values())  # fmt: skip
        assert matches == 1
    for _, normals in found.values():
        lengths = normals.norm(dim=-1)
        assert torch.allclose(lengths, torch.ones_like(lengths), atol=2e-3)
        assert (normals[..., 2] < 0).float().mean() > 0.9  # they look back at the camera; edges between things may not


def test_drawn_views_fill_the_budget_and_are_parts_of_the_pools(parts: Parts, pool: Path) -> None:
    views = DenseViews(list_pool(pool), parts.image_processor)
    known = [_image(d, batch.rows, batch.columns) for batch in views.in_order() for d in batch.depth_m]
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(12):
        batch = views.draw(130, rng)
        tokens = batch.rows * batch.columns
        assert batch.patches.shape == (len(batch.patches), 4 * tokens, 768)
        assert 60 <= len(batch.patches) * tokens <= 200
        for depth_m in batch.depth_m:
            drawn = _image(depth_m, batch.rows, batch.columns)
            found = [
                (mirrored, down)
                for mirrored in (False, True)
                for image in known
                for down in range(max(1, image.shape[0] - drawn.shape[0] + 1))
                for right in range(max(1, image.shape[1] - drawn.shape[1] + 1))
                if torch.equal(_part(image.flip(-1) if mirrored else image, down, right, drawn.shape), drawn)
            ]
            assert len(found) == 1
            seen.add(found[0])
    assert {mirrored for mirrored, _ in seen} == {False, True}
    assert {0, 1, 2, 3} & {down for _, down in seen} > {0}


def test_a_crop_shows_what_the_view_shows_there(parts: Parts, pool: Path) -> None:
    """Pixels, depth and normals of a crop lie over each other as in the whole view."""
    views = DenseViews(list_pool(pool), parts.image_processor)
    (rows, columns), view = next((grid, group[0]) for grid, group in views._views.items() if min(grid) > 4)
    cropped = view.cropped(1, 3)
    assert cropped.patches.shape[:2] == (rows - 1, columns - 1)
    # cell (r, c) of the crop is cell (r + 1, c + 3) of the view; its pixels begin 8 and 24 pixels further
    for row, column in ((0, 0), (5, 9)):
        r, c = row + 1, column + 3
        assert cropped.depth_m[row // 4, column // 4, row % 4, column % 4] == view.depth_m[r // 4, c // 4, r % 4, c % 4]
        y, x = 8 * row, 8 * column
        mine = cropped.patches[y // 32, x // 32, y // 16 % 2, x // 16 % 2, :, y % 16, x % 16]
        y, x = 8 * r, 8 * c
        assert np.array_equal(mine, view.patches[y // 32, x // 32, y // 16 % 2, x // 16 % 2, :, y % 16, x % 16])


def _image(depth_m: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return depth_m.unflatten(0, (rows, columns)).transpose(1, 2).flatten(2, 3).flatten(0, 1)


def _part(image: torch.Tensor, down: int, right: int, shape: torch.Size) -> torch.Tensor:
    return image[down : down + shape[0], right : right + shape[1]]


def test_schooling_learns_leaves_the_structure_and_teaches(pool: Path, tmp_path: Path) -> None:
    own = build_parts("tiny", 0)
    before = {name: p.detach().clone() for name, p in own.model.named_parameters()}
    views = DenseViews(list_pool(pool), own.image_processor)
    settings = VisionSettings(steps=80, tokens=130, warmup=4, learning_rate=2e-3, matrix_rate=4e-3, log_every=20)
    dense, losses = school_vision(own.model, views, settings)
    assert len(losses) == 4
    assert losses[-1] < 0.85 * losses[0]
    masks = trainable_masks(own.model)
    moved = 0
    for name, parameter in own.model.named_parameters():
        if name in masks:
            held = masks[name] == 0
            np.testing.assert_array_equal(parameter.detach()[held].numpy(), before[name][held].numpy(), err_msg=name)
        if "visual" in name:
            moved += int(not torch.equal(parameter, before[name]))
        else:
            assert torch.equal(parameter, before[name]), name
    assert moved > 10

    taught = tmp_path / "taught"
    assert teach_pool(dense, own.image_processor, list_pool(pool), taught) == len(list_pool(pool))
    assert teach_pool(dense, own.image_processor, list_pool(pool), taught) == 0
    for path in list_pool(pool):
        true, guessed = read_view(path), read_view(taught / path.name)
        assert np.array_equal(true.image.pixels, guessed.image.pixels)
        assert guessed.depth_m.shape == true.depth_m.shape
        assert np.all((guessed.depth_m >= NEAREST_M) & (guessed.depth_m <= FARTHEST_M))


def test_dense_depth_puts_cells_in_their_places(parts: Parts) -> None:
    dense = DenseModel(parts.model)
    rows, columns = 2, 3
    patches = torch.randn(1, 4 * rows * columns, 768)
    with torch.no_grad():
        _, logits, _ = dense(patches, rows, columns)
        image = dense_depth(dense, patches, rows, columns)
    assert image.shape == (1, rows * CELLS, columns * CELLS)
    # token (1, 2), cell (3, 1)
    assert float(image[0, 7, 9]) == pytest.approx(float(mean_log_depth(logits[0, 5, 3, 1]).exp()), rel=1e-5)
