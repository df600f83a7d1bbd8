"""Agreement of a reconstruction with ground truth in the layout of ``examples/room/gt`` (cameras.json, mesh.ply)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.evaluation.cloud import CloudScores, compare_surfaces
from recon.evaluation.pose import PoseReport, Similarity, align, evaluate_poses
from recon.interop.colmap import read_ground_truth
from recon.interop.meshes import read_mesh
from recon.types import Scene

THRESHOLDS_M = (0.02, 0.05, 0.10)


@dataclass(frozen=True)
class Evaluation:
    """``scale_error`` is the relative error of the metric scale (+0.02: 2 % too large), NaN where it is unknown;
    ``surface`` compares after a rigid alignment of the cameras, so a wrong scale costs; without a scale, after a
    similarity. ``shape`` compares after a similarity, so a wrong scale costs nothing.
    """

    poses: PoseReport
    scale_error: float
    surface: CloudScores
    shape: CloudScores

    def table(self) -> str:
        """The figures for the console."""
        scale = f"{100 * self.scale_error:+.1f} %" if math.isfinite(self.scale_error) else "unknown (aligned)"
        rows = [
            ("photos registered", f"{self.poses.num_registered} of {self.poses.num_views}"),
            ("pose AUC at 5 degrees, all pairs", f"{self.poses.auc_exact[5]:.3f}"),
            ("median rotation error", f"{self.poses.median_rotation_deg:.2f} degrees"),
            ("camera centres, RMSE after similarity", f"{100 * self.poses.ate_rmse:.1f} cm"),
            ("metric scale error", scale),
        ]
        for name, scores in (("surface", self.surface), ("shape (scale aligned)", self.shape)):
            for threshold, precision, recall in zip(scores.thresholds_m, scores.precision, scores.recall, strict=True):
                figures = f"accuracy {precision:.2f}, completeness {recall:.2f}"
                rows.append((f"{name} within {100 * threshold:.0f} cm", figures))
        return "\n".join(f"  {name:<40}{value}" for name, value in rows)


def evaluate(scene: Scene, mesh_path: Path, truth: Path) -> Evaluation:
    """Compares a map and a mesh in the same frame with the ground truth in the folder ``truth``.

    Raises:
        BadInputError: the ground truth or the mesh can't be read, or fewer than 3 photos are registered.
    """
    _, true_poses, _ = read_ground_truth(truth / "cameras.json")
    poses = {view.name: view.cam_from_world for view in scene.views}
    names = [name for name in poses if name in true_poses]
    centres = np.array([_centre(poses[name]) for name in names])
    true_centres = np.array([_centre(true_poses[name]) for name in names])
    with_scale = align(centres, true_centres)
    mesh, true_mesh = read_mesh(mesh_path), read_mesh(truth / "mesh.ply")

    def surface_scores(placed: Similarity) -> CloudScores:
        return compare_surfaces(mesh, true_mesh, truth_from_world=_matrix(placed), thresholds_m=THRESHOLDS_M)

    shape = surface_scores(with_scale)
    surface = surface_scores(align(centres, true_centres, with_scale=False)) if scene.scale.is_known else shape
    scale_error = 1.0 / with_scale.scale - 1.0 if scene.scale.is_known else float("nan")
    return Evaluation(evaluate_poses(poses, true_poses), scale_error, surface, shape)


def _centre(cam_from_world: NDArray[np.float64]) -> NDArray[np.float64]:
    centre: NDArray[np.float64] = -cam_from_world[:, :3].T @ cam_from_world[:, 3]
    return centre


def _matrix(similarity: Similarity) -> NDArray[np.float64]:
    """A similarity as [4, 4]."""
    matrix = np.eye(4)
    matrix[:3, :3] = similarity.scale * similarity.rotation
    matrix[:3, 3] = similarity.translation
    return matrix
