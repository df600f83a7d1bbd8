"""Depth maps become one surface: truncated signed distances in Open3D's sparse voxel blocks.

Method: volumetric fusion (Curless and Levoy 1996). The averages are computed here (torch), not by
``VoxelBlockGrid.integrate``, because observations are weighed by confidence and viewing angle and because voxels that a
view sees as empty are carved wherever they were allocated; Open3D holds the grid and extracts the triangles.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from recon.errors import SurfaceError
from recon.surface.backend import open3d
from recon.surface.grid import BLOCK_SIDE, GridPlan, plan_grid, usable
from recon.surface.options import FuseOptions
from recon.surface.types import DepthMap, Mesh

logger = logging.getLogger(__name__)

_BLOCKS_PER_CHUNK = 512  # 262 144 voxels at a time: temporaries stay in the cache
_CELL_PX = 16  # cells of the coarse depth bounds that classify whole blocks
_MAX_SLOPE_COSINE = 0.1  # surfaces seen flatter than about 84 degrees are edges between objects, not surfaces


def fuse(
    depth_maps: Sequence[DepthMap],
    options: FuseOptions,
    progress: Callable[[int, int], None] | None = None,
    plan: GridPlan | None = None,
) -> Mesh:
    """Fuse depth maps into a triangle mesh without colours, not yet cleaned.

    Args:
        depth_maps: maps with poses in one world frame; a lazy sequence (``recon.surface.store``) bounds memory.
        options: voxel size, truncation, weights.
        progress: called with (maps integrated, maps).
        plan: voxel size and blocks, chosen from the data where not given.

    Raises:
        SurfaceError: no usable depth, or no voxel reached ``options.min_weight``.
    """
    if len(depth_maps) == 0:
        raise SurfaceError("no depth maps to fuse")
    plan = plan if plan is not None else plan_grid(depth_maps, options)
    logger.info("TSDF: voxel %.4g, %d blocks, %.0f MB", plan.voxel_m, len(plan.blocks), plan.memory_mb)
    volume = _Volume(plan)
    for done, depth_map in enumerate(depth_maps, start=1):
        volume.integrate(depth_map, options)
        if progress is not None:
            progress(done, len(depth_maps))
    mesh = volume.extract(options.min_weight)
    if len(mesh.faces) == 0:
        raise SurfaceError(
            f"the depth maps support no surface: no voxel gathered a weight of {options.min_weight:g}; take photos "
            "with more overlap"
        )
    return mesh


def in_canonical_order(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> Mesh:
    """The mesh of vertices [V, 3] and faces [F, 3] with both sorted and equal vertices joined; the winding stays.

    Open3D extracts with several threads, in an order that changes from run to run.
    """
    unique, index = np.unique(vertices, axis=0, return_inverse=True)
    corners = index.reshape(-1)[faces]  # [F, 3]
    first = corners.argmin(axis=1)[:, None]
    corners = np.take_along_axis(corners, (first + np.arange(3)) % 3, axis=1)
    return Mesh(unique, corners[np.lexsort(corners.T[::-1])].astype(np.int32))


def view_weights(depth_map: DepthMap, options: FuseOptions) -> NDArray[np.float32]:
    """Weight of each pixel's observation, [H, W]: confidence times the cosine of the viewing angle, 0 where unusable.

    Pixels on a depth edge (seen flatter than 84 degrees, or beside unknown depth) get 0: their depth is a blend.
    """
    cosine = view_cosines(depth_map)
    weights = np.where(usable(depth_map, options) & (cosine > _MAX_SLOPE_COSINE), depth_map.confidence * cosine, 0.0)
    return weights.astype(np.float32)


def view_cosines(depth_map: DepthMap) -> NDArray[np.float32]:
    """Cosine between the viewing ray and the surface normal from neighbouring depths, [H, W]; 0 where unknown."""
    fx, fy, cx, cy = depth_map.camera.fx_fy_cx_cy
    depth = depth_map.depth_m
    height, width = depth.shape
    ray_x = (np.arange(width) + 0.5 - cx) / fx  # [W]
    ray_y = (np.arange(height) + 0.5 - cy) / fy  # [H]
    padded = np.pad(depth, 1, constant_values=np.nan)
    # The smaller one-sided difference: pixels at the rim of an object keep their own surface's slope.
    grad_x = _smaller(padded[1:-1, 2:] - depth, depth - padded[1:-1, :-2])
    grad_y = _smaller(padded[2:, 1:-1] - depth, depth - padded[:-2, 1:-1])
    # A surface z(u, v) has the normal (-fx z_u, -fy z_v, z + (u - cx) z_u + (v - cy) z_v), up to its length.
    normal_x, normal_y = fx * grad_x, fy * grad_y
    normal_z = -(depth + fx * ray_x[None, :] * grad_x + fy * ray_y[:, None] * grad_y)
    dot = normal_x * ray_x[None, :] + normal_y * ray_y[:, None] + normal_z
    length = np.sqrt(normal_x**2 + normal_y**2 + normal_z**2) * np.sqrt(ray_x[None, :] ** 2 + ray_y[:, None] ** 2 + 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.abs(dot) / length
    return np.nan_to_num(cosine, nan=0.0).astype(np.float32)


def _smaller(first: NDArray, second: NDArray) -> NDArray:
    with np.errstate(invalid="ignore"):
        choose_first = (np.abs(first) <= np.abs(second)) | np.isnan(second)
    return np.where(choose_first, first, second)


class _Volume:
    """Open3D's voxel block grid, its memory shared with torch tensors in which the averages are updated."""

    def __init__(self, plan: GridPlan) -> None:
        o3d = open3d()
        self._plan = plan
        self._grid = o3d.t.geometry.VoxelBlockGrid(
            attr_names=("tsdf", "weight"),
            attr_dtypes=(o3d.core.float32, o3d.core.float32),
            attr_channels=((1,), (1,)),
            voxel_size=plan.voxel_m,
            block_resolution=BLOCK_SIDE,
            block_count=len(plan.blocks),
        )
        hashmap = self._grid.hashmap()
        buffer_rows, _ = hashmap.activate(o3d.core.Tensor(plan.blocks))
        self._rows = torch.from_numpy(buffer_rows.numpy().astype(np.int64))  # [B]
        voxels = BLOCK_SIDE**3
        # numpy() of an Open3D CPU tensor shares its memory: writing here writes into the grid.
        self._tsdf = torch.from_numpy(self._grid.attribute("tsdf").numpy()).view(-1, voxels)  # [capacity, 512]
        self._weight = torch.from_numpy(self._grid.attribute("weight").numpy()).view(-1, voxels)
        self._tsdf.zero_()
        self._weight.zero_()
        self._origins = torch.from_numpy(plan.blocks.astype(np.float32)) * (BLOCK_SIDE * plan.voxel_m)  # [B, 3]
        steps = torch.arange(BLOCK_SIDE, dtype=torch.float32) * plan.voxel_m
        z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")  # Open3D stores x fastest
        self._offsets = torch.stack([x, y, z], dim=-1).reshape(-1, 3)  # [512, 3]

    def integrate(self, depth_map: DepthMap, options: FuseOptions) -> None:
        weights = view_weights(depth_map, options)
        if not weights.any():
            return
        depth = torch.from_numpy(np.where(weights > 0, depth_map.depth_m, np.nan).astype(np.float32))
        images = _SampledMap(depth, torch.from_numpy(weights), depth_map)
        inside, empty = self._classify(images)
        for rows in empty.split(_BLOCKS_PER_CHUNK):
            self._update(self._rows[rows], torch.ones(1), torch.full((1,), options.carve_weight * images.mean_weight))
        for rows in inside.split(_BLOCKS_PER_CHUNK):
            points = (self._origins[rows, None, :] + self._offsets).reshape(-1, 3)
            distance, weight = images.signed_distance(points)
            truncation = self._plan.truncation_m
            weight = torch.where(distance < -truncation, torch.zeros(()), weight)
            weight = torch.where(distance > truncation, options.carve_weight * weight, weight)
            tsdf = (distance / truncation).clamp(-1.0, 1.0)
            shape = (len(rows), BLOCK_SIDE**3)
            self._update(self._rows[rows], tsdf.view(shape), weight.view(shape))

    def _update(self, rows: torch.Tensor, tsdf: torch.Tensor, weight: torch.Tensor) -> None:
        old = self._weight[rows]
        total = old + weight
        self._tsdf[rows] = torch.where(
            total > 0, (self._tsdf[rows] * old + tsdf * weight) / total.clamp_min(1e-12), self._tsdf[rows]
        )
        self._weight[rows] = total

    def _classify(self, images: _SampledMap) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of the blocks to look at voxel by voxel, and of those that the view sees as empty altogether."""
        side = BLOCK_SIDE * self._plan.voxel_m
        radius = side * 3**0.5 / 2
        z, nearest, farthest, in_view = images.depth_bounds(self._origins + side / 2, radius)
        not_behind = in_view & (z - radius - self._plan.truncation_m < farthest)
        empty = not_behind & (z + radius + self._plan.truncation_m < nearest)
        return (not_behind & ~empty).nonzero()[:, 0], empty.nonzero()[:, 0]

    def extract(self, min_weight: float) -> Mesh:
        # Open3D keeps cells whose weights are all above the threshold.
        mesh = self._grid.extract_triangle_mesh(weight_threshold=min_weight)
        if "positions" not in mesh.vertex or len(mesh.vertex.positions) == 0:
            return Mesh(np.empty((0, 3)), np.empty((0, 3), dtype=np.int32))
        return in_canonical_order(mesh.vertex.positions.numpy(), mesh.triangle.indices.numpy())


class _SampledMap:
    """A depth map as torch images that can be asked about world points."""

    def __init__(self, depth: torch.Tensor, weights: torch.Tensor, depth_map: DepthMap) -> None:
        self.mean_weight = float(weights[weights > 0].mean())
        self._depth, self._weights = depth, weights  # [H, W]
        self._height, self._width = depth.shape
        self._intrinsics = depth_map.camera.fx_fy_cx_cy
        pose = torch.from_numpy(depth_map.cam_from_world.astype(np.float32))
        self._rotation, self._translation = pose[:, :3], pose[:, 3]
        # Bounds over 3x3 cells; unknown pixels make a cell's nearest depth 0, so nothing is declared empty there.
        known = torch.isfinite(depth)
        nearest = torch.where(known, depth, torch.zeros(()))[None, None]
        farthest = torch.where(known, depth, torch.full((), -1.0))[None, None]
        self._cell_min = -_cells(-nearest)
        self._cell_max = _cells(farthest)

    def _project(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        fx, fy, cx, cy = self._intrinsics
        camera_points = points @ self._rotation.T + self._translation
        z = camera_points[:, 2]
        inverse = 1.0 / z.clamp_min(1e-9)
        return camera_points[:, 0] * inverse * fx + cx, camera_points[:, 1] * inverse * fy + cy, z

    def depth_bounds(
        self, centres: torch.Tensor, radius: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """z of block centres [B], nearest and farthest depth around their projections, and whether they're in view."""
        x, y, z = self._project(centres)
        reach = self._intrinsics[0] * radius / z.clamp_min(1e-9)  # radius of the block in pixels
        in_view = (z > radius) & (x > -reach) & (x < self._width + reach) & (y > -reach) & (y < self._height + reach)
        column = (x / _CELL_PX).clamp(0, self._cell_min.shape[1] - 1).long()
        row = (y / _CELL_PX).clamp(0, self._cell_min.shape[0] - 1).long()
        nearest, farthest = self._cell_min[row, column], self._cell_max[row, column]
        large = reach > _CELL_PX  # the 3x3 cells don't cover the block: look at every voxel
        nearest = torch.where(large, torch.zeros(()), nearest)
        farthest = torch.where(large, torch.full((), torch.inf), farthest)
        return z, nearest, farthest, in_view & (farthest > 0)

    def signed_distance(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Depth of the surface minus depth of each point (positive in front of it), and its weight (0: not seen)."""
        x, y, z = self._project(points)
        inside = (z > 0) & (x >= 0) & (x < self._width) & (y >= 0) & (y < self._height)
        column, row = x.clamp(0, self._width - 1).long(), y.clamp(0, self._height - 1).long()
        weight = torch.where(inside, self._weights[row, column], torch.zeros(()))
        nearest = self._depth[row, column]
        grid = torch.stack([2 * x / self._width - 1, 2 * y / self._height - 1], dim=-1)[None, None]
        smooth = F.grid_sample(self._depth[None, None], grid, mode="bilinear", align_corners=False)[0, 0, 0]
        # Between pixels of one surface the depth is interpolated; across an edge (or beside NaN) it's the pixel's own.
        same = (smooth - nearest).abs() < 0.01 * nearest
        depth = torch.where(same, smooth, nearest)
        return torch.nan_to_num(depth - z, nan=0.0), weight


def _cells(image: torch.Tensor) -> torch.Tensor:
    """Maximum over cells of ``_CELL_PX`` pixels and their eight neighbours, [ceil(H / cell), ceil(W / cell)]."""
    height, width = image.shape[-2:]
    pooled = (
        F.max_pool2d(image, _CELL_PX, ceil_mode=True) if min(height, width) >= _CELL_PX else image.amax((2, 3), True)
    )
    return F.max_pool2d(pooled, 3, 1, 1)[0, 0]
