"""Real captures' ground truth read as a result: it agrees with itself, and its conventions hold."""

from __future__ import annotations

import numpy as np
import pytest

from recon.evaluation.compare import CompareOptions, compare
from recon.interop.results import read_result
from tests.helpers import shared_data


@pytest.mark.parametrize("scene", ["fountain-P11", "fox"])
def test_ground_truth_agrees_with_itself(scene: str) -> None:
    truth = read_result(shared_data(scene))
    assert truth.metric == (scene == "fountain-P11")  # fox is COLMAP's work, without a scale
    c = compare(truth, truth, CompareOptions(points=1000))
    assert c.poses is not None
    assert c.similarity is not None
    assert c.intrinsics is not None
    assert c.poses.auc_exact[5] == pytest.approx(1, abs=1e-6)
    assert c.similarity.ate.max < 1e-9
    assert c.intrinsics.pixel_shift_px_median < 1e-6


def test_rgbd_ground_truth_unprojects_onto_its_own_mesh() -> None:
    truth = read_result(shared_data("redkitchen-a"))
    assert truth.load_depth is not None
    assert truth.surface is not None
    name = truth.depth_names[0]
    depth_map = truth.load_depth(name)
    row, column = np.nonzero(np.isfinite(depth_map.depth_m))
    chosen = np.random.default_rng(0).choice(len(row), 2000, replace=False)
    row, column = row[chosen], column[chosen]
    fx, fy, cx, cy = depth_map.camera.fx_fy_cx_cy
    z = depth_map.depth_m[row, column]
    points = np.stack([(column + 0.5 - cx) / fx * z, (row + 0.5 - cy) / fy * z, z], axis=1)
    world = (points - depth_map.cam_from_world[:, 3]) @ depth_map.cam_from_world[:, :3]
    from scipy.spatial import cKDTree

    vertices = np.asarray(truth.surface.load(1, 0).vertices_world_m)  # type: ignore[union-attr]
    distance, _ = cKDTree(vertices).query(world)
    assert np.median(distance) < 0.02  # voxels of 15 mm
