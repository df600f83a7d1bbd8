"""Schooling of a new vision tower: targets, held structure, and that it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recon.cameras.unify import ImageProfile
from recon.errors import BadInputError
from recon.training.attention import use_linear_patches
from recon.training.export import build_parts
from recon.training.init import trainable_masks
from recon.training.pool import render_pool
from recon.training.vision import (
    BINS,
    FARTHEST_M,
    NEAREST_M,
    VisionSettings,
    school_vision,
    soft_bins,
    whiten_patches,
)


def test_soft_bins_hold_the_depth() -> None:
    depth_m = torch.tensor([NEAREST_M, 1.0, 3.3, FARTHEST_M])
    shares = soft_bins(depth_m)
    centres = NEAREST_M * (FARTHEST_M / NEAREST_M) ** (torch.arange(BINS) / (BINS - 1))
    assert torch.allclose(shares.sum(-1), torch.ones(4))
    # linear between two bins in the logarithm, so the mean of logarithms is exact
    assert torch.allclose((shares @ centres.log()).exp(), depth_m, rtol=1e-4)


def test_unknown_depth_teaches_nothing_and_far_depth_the_last_bin() -> None:
    shares = soft_bins(torch.tensor([float("nan"), 100.0, 0.01]))
    assert shares[0].sum() == 0
    assert shares[1].argmax() == BINS - 1
    assert shares[2].argmax() == 0


def test_linear_patches_equal_the_convolution() -> None:
    parts = build_parts("tiny", 0)
    embed = parts.model.model.visual.patch_embed
    patches = torch.randn(12, 3 * 2 * 16 * 16)
    with torch.no_grad():
        expected = embed(patches)
        use_linear_patches(parts.model)
        # largest difference seen: 5e-7
        assert torch.allclose(embed(patches), expected, atol=1e-5)


def test_schooling_learns_and_leaves_the_structure(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    render_pool(pool, "train", 0, 2, ImageProfile("focal", 112))
    parts = build_parts("tiny", 0)
    before = {name: p.detach().clone() for name, p in parts.model.named_parameters()}
    settings = VisionSettings(steps=24, batch=2, warmup=4, learning_rate=2e-3, log_every=8)
    losses = school_vision(parts.model, parts.image_processor, pool, settings)
    assert losses[-1] < 0.85 * losses[0]
    masks = trainable_masks(parts.model)
    moved = 0
    for name, parameter in parts.model.named_parameters():
        if name in masks:
            held = masks[name] == 0
            np.testing.assert_array_equal(parameter.detach()[held].numpy(), before[name][held].numpy(), err_msg=name)
        if "visual" in name:
            moved += int(not torch.equal(parameter, before[name]))
        else:
            assert torch.equal(parameter, before[name]), name
    assert moved > 10


def test_an_empty_pool_is_named(tmp_path: Path) -> None:
    parts = build_parts("tiny", 0)
    with pytest.raises(BadInputError, match="no rendered views"):
        school_vision(parts.model, parts.image_processor, tmp_path, VisionSettings(steps=1))


def test_whitened_patches_see_texture_as_well_as_colour() -> None:
    parts = build_parts("tiny", 0)
    generator = torch.Generator().manual_seed(0)
    colour = torch.randn(4000, 3, 1, 1, generator=generator)
    texture = 0.3 * torch.randn(4000, 3, 1, 256, generator=generator)
    patches = (colour + texture).expand(-1, -1, 2, -1).reshape(4000, -1).contiguous()
    whiten_patches(parts.model, patches)
    with torch.no_grad():
        seen = parts.model.model.visual.patch_embed(patches)
    held = trainable_masks(parts.model)["model.visual.patch_embed.proj.weight"].flatten(1).amax(1) == 0
    deviations = seen.std(dim=0)
    assert torch.all(deviations[held] == 0)
    assert deviations[~held].min() > 0.5
    assert deviations[~held].max() < 1.5
