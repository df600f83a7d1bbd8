"""How well neighbouring photos agree with a depth hypothesis: zero-mean normalised cross-correlation by warping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from recon.types import Camera, ImageArray

# Variance of grey values (in [0, 1]) below which a window says nothing: about 1.5 grey levels of 255.
_NOISE_VARIANCE = (1.5 / 255) ** 2


@dataclass(frozen=True)
class GreyView:
    """A grey image [H, W] in [0, 1] with its pinhole camera and pose [3, 4]."""

    grey: torch.Tensor
    camera: Camera
    cam_from_world: NDArray[np.float64]


def grey_view(
    color: ImageArray, camera: Camera, cam_from_world: NDArray[np.float64], reduction: int, device: torch.device
) -> GreyView:
    """The view reduced by a whole factor (area averages, so that nothing aliases)."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    grey = (torch.from_numpy(color.copy()).float() / 255.0) @ weights  # [H, W]
    height, width = grey.shape
    size = (max(1, round(height / reduction)), max(1, round(width / reduction)))
    if reduction > 1:
        grey = F.interpolate(grey[None, None], size=size, mode="area")[0, 0]
    return GreyView(grey.to(device).contiguous(), camera.resized(size[1], size[0]), cam_from_world)


def box_mean(images: torch.Tensor, side: int) -> torch.Tensor:
    """Mean over a window of ``side`` x ``side`` (odd) pixels of [..., H, W], borders repeated.

    Runs of 1, 2, 4 ... pixels are summed by doubling and put together: much faster on a CPU than average pooling, and
    without the rounding of cumulative sums.
    """
    half = side // 2
    batch = images.reshape(-1, 1, *images.shape[-2:])
    padded = F.pad(batch, (half, half, half, half), mode="replicate")
    summed = _run_sum(_run_sum(padded, side, -1), side, -2)
    return (summed / side**2).reshape(images.shape)


def _run_sum(images: torch.Tensor, length: int, dim: int) -> torch.Tensor:
    size = images.shape[dim] - length + 1
    run, run_length, start = images, 1, 0
    result: torch.Tensor | None = None
    remaining = length
    while remaining:
        if remaining & 1:
            part = run.narrow(dim, start, size)
            result = part if result is None else result + part
            start += run_length
        remaining >>= 1
        if remaining:
            valid = run.shape[dim] - run_length
            run = run.narrow(dim, 0, valid) + run.narrow(dim, run_length, valid)
            run_length *= 2
    assert result is not None
    return result


class Matcher:
    """Scores depth hypotheses of a reference view against its neighbours."""

    def __init__(self, reference: GreyView, neighbours: Sequence[GreyView], window_px: int) -> None:
        self.height, self.width = reference.grey.shape
        self._window_px = window_px
        self._reference = reference.grey
        mean, square = box_mean(torch.stack([reference.grey, reference.grey**2]), window_px)
        self._mean = mean
        self._variance = (square - mean**2).clamp_min(0.0)
        self._images = [neighbour.grey for neighbour in neighbours]
        self._lines = [_epipolar_lines(reference, neighbour) for neighbour in neighbours]

    @property
    def num_neighbours(self) -> int:
        return len(self._images)

    @property
    def variance(self) -> torch.Tensor:
        """Grey variance of each window, [H, W]."""
        return self._variance

    def pixels_per_inverse_depth(self) -> float:
        """How far (pixels, median of the image, farthest-moving neighbour) a point moves per unit of inverse depth.

        Linearised at infinity, which bounds from above what happens at finite depth only roughly; good for step sizes.
        """
        speeds = []
        for infinite, motion in self._lines:
            z = infinite[2].clamp_min(1e-6)
            u, v = infinite[0] / z, infinite[1] / z
            du = (motion[0] - u * motion[2]) / z
            dv = (motion[1] - v * motion[2]) / z
            # normalised coordinates span 2 over the image
            speed = torch.sqrt((du * self.width / 2) ** 2 + (dv * self.height / 2) ** 2)
            speeds.append(float(speed[::8, ::8].median()))
        return max(speeds)

    def scores(self, inverse_depth: torch.Tensor) -> torch.Tensor:
        """ZNCC of each neighbour at inverse depths [H, W], [n, H, W] in [-1, 1]; 0 where the neighbour doesn't look.

        Each pixel of a window is warped by its own inverse depth, so windows follow slanted and curved surfaces.
        """
        return torch.stack([self._score(k, inverse_depth) for k in range(self.num_neighbours)])

    def best_half(self, inverse_depth: torch.Tensor) -> torch.Tensor:
        """Mean ZNCC over the better half of the neighbours (a neighbour may be occluded), [H, W]."""
        return mean_of_best(self.scores(inverse_depth))

    def _score(self, k: int, inverse_depth: torch.Tensor) -> torch.Tensor:
        infinite, motion = self._lines[k]
        z = infinite[2] + motion[2] * inverse_depth
        in_front = z > 1e-6
        inverse_z = 1.0 / z.clamp_min(1e-6)
        x = (infinite[0] + motion[0] * inverse_depth) * inverse_z
        y = (infinite[1] + motion[1] * inverse_depth) * inverse_z
        inside = in_front & (x.abs() < 1) & (y.abs() < 1)
        grid = torch.stack([x, y], dim=-1)[None]
        warped = F.grid_sample(
            self._images[k][None, None], grid, mode="bilinear", padding_mode="border", align_corners=False
        )[0, 0]
        means = box_mean(torch.stack([warped, warped * warped, warped * self._reference]), self._window_px)
        variance = (means[1] - means[0] ** 2).clamp_min(0.0)
        covariance = means[2] - means[0] * self._mean
        score = covariance / torch.sqrt((variance + _NOISE_VARIANCE) * (self._variance + _NOISE_VARIANCE))
        return torch.where(inside, score, torch.zeros_like(score))


def mean_of_best(scores: torch.Tensor) -> torch.Tensor:
    """Mean over the better half (rounded up, at least 2 where there are) of the first dimension, [n, ...] -> [...]."""
    number = len(scores)
    kept = min(number, max(2, (number + 1) // 2))
    if kept == number:
        return scores.mean(dim=0)
    # Sum minus the worst ones: running minima are far cheaper than sorting a few long rows.
    worst: list[torch.Tensor] = []
    for score in scores:
        for i, low in enumerate(worst):
            worst[i], score = torch.minimum(low, score), torch.maximum(low, score)
        if len(worst) < number - kept:
            worst.append(score)
    total = scores.sum(dim=0)
    for low in worst:
        total = total - low
    return total / kept


def _epipolar_lines(reference: GreyView, neighbour: GreyView) -> tuple[torch.Tensor, torch.Tensor]:
    """``a`` [3, H, W] and ``b`` [3, 1, 1]: homogeneous position ``a + b / depth`` in the neighbour, in [-1, 1]."""
    height, width = reference.grey.shape
    fx, fy, cx, cy = reference.camera.fx_fy_cx_cy
    x = (np.arange(width) + 0.5 - cx) / fx
    y = (np.arange(height) + 0.5 - cy) / fy
    rays = np.stack([*np.meshgrid(x, y), np.ones((height, width))])  # [3, H, W]
    rotation1, translation1 = reference.cam_from_world[:, :3], reference.cam_from_world[:, 3]
    rotation2, translation2 = neighbour.cam_from_world[:, :3], neighbour.cam_from_world[:, 3]
    rotation = rotation2 @ rotation1.T
    translation = translation2 - rotation @ translation1
    other_height, other_width = neighbour.grey.shape
    to_unit = np.array([[2 / other_width, 0, -1], [0, 2 / other_height, -1], [0, 0, 1]])
    matrix = to_unit @ neighbour.camera.matrix
    infinite = np.einsum("ij,jhw->ihw", matrix @ rotation, rays)
    device = reference.grey.device
    return (
        torch.from_numpy(infinite.astype(np.float32)).to(device),
        torch.from_numpy((matrix @ translation).astype(np.float32)).to(device)[:, None, None],
    )
