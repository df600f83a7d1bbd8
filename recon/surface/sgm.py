"""Semi-global matching: smooth a cost volume along image lines (Hirschmüller 2008), in torch."""

from __future__ import annotations

import torch


def aggregate(cost: torch.Tensor, guide: torch.Tensor, small_step: float, large_step: float) -> torch.Tensor:
    """Sum of the path costs from four directions, [D, H, W].

    Args:
        cost: matching cost of each depth hypothesis, [D, H, W].
        guide: grey image in [0, 1], [H, W]; depth may jump more cheaply where it has an edge.
        small_step: cost of a step by one hypothesis between neighbouring pixels (slanted surfaces).
        large_step: cost of a larger jump where the image is flat; down to twice ``small_step`` at an edge.
    """
    total = torch.zeros_like(cost)
    for axis in (1, 2):
        lines = cost.movedim(axis, 0).movedim(1, -1).contiguous()  # [length, other, D]
        change = guide.diff(dim=axis - 1).abs().movedim(axis - 1, 0)  # [length - 1, other]
        jump = (large_step * torch.exp(-change / 0.04)).clamp_min(2 * small_step)
        for reverse in (False, True):
            paths = _one_way(lines.flip(0) if reverse else lines, jump.flip(0) if reverse else jump, small_step)
            paths = paths.flip(0) if reverse else paths
            total += paths.movedim(-1, 1).movedim(0, axis)
    return total


def _one_way(lines: torch.Tensor, jump: torch.Tensor, small_step: float) -> torch.Tensor:
    """Path costs along dimension 0 of ``lines`` [length, other, D]; ``jump`` [length - 1, other]."""
    paths = torch.empty_like(lines)
    paths[0] = lines[0]
    padded = torch.full((lines.shape[1], lines.shape[2] + 2), torch.inf, dtype=lines.dtype, device=lines.device)
    for i in range(1, len(lines)):
        previous = paths[i - 1]
        least = previous.amin(dim=-1, keepdim=True)
        padded[:, 1:-1] = previous
        step = torch.minimum(padded[:, :-2], padded[:, 2:]) + small_step
        best = torch.minimum(torch.minimum(previous, step), least + jump[i - 1, :, None])
        torch.add(lines[i], best - least, out=paths[i])
    return paths
