"""Coarse matches made precise by the photographs themselves.

A checkpoint's match is good to a hundredth of the image. Around it the second photo is searched for what the first one
shows there (zero-mean normalised cross-correlation on a pyramid level where the match's error is a few pixels), then
an affine warp is fitted down the pyramid by Gauss-Newton (Lucas and Kanade 1981; affine-aware least-squares matching
as Gruen 1985). The first warp comes from the neighbouring matches, so that wide baselines with strong foreshortening
are found too. What has no texture, looks alike elsewhere in the search window, or does not fit in the end is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from recon.evidence.local_affine import global_affine, local_affines
from recon.types import FloatArray, ImageArray

Float32 = NDArray[np.float32]
Float64Array = NDArray[np.float64]

_CHUNK = 1000  # patches per call of cv2.remap, which counts rows in 16 bits


@dataclass(frozen=True)
class SubpixelOptions:
    """How coarse matches are refined.

    Attributes:
        patch_px: edge of the compared windows, odd.
        search_sigmas: how far around a match the second photo is searched, in the match's standard deviations.
        coarse_sigma_px: the search happens on the pyramid level where the standard deviation is at most this.
        min_correlation: of the fitted windows, in [-1, 1].
        min_margin: by which the best place must beat every other place in the search window that is farther than 2
            pixels (of the search's level) away.
        max_noise_px: largest standard deviation of the refined position, from the windows' gradients.
        snap_px: matches move to the strongest corner within this distance in photo 1 first (0: stay).
        iterations: Gauss-Newton steps per pyramid level.
        keep_coarse_below: pairs with fewer refined matches keep the coarse ones that fit their geometry, too.
    """

    patch_px: int = 19
    search_sigmas: float = 3.0
    coarse_sigma_px: float = 1.5
    min_correlation: float = 0.85
    min_margin: float = 0.03
    max_noise_px: float = 0.3
    snap_px: float = 6.0
    iterations: int = 10
    keep_coarse_below: int = 30


@dataclass(frozen=True)
class Refined:
    """Refined matches: ``row`` [K] of the coarse ones, ``pixels1`` and ``pixels2`` [K, 2], ``correlation`` [K]."""

    row: NDArray[np.int64]
    pixels1: Float64Array
    pixels2: Float64Array
    correlation: Float64Array


@dataclass(frozen=True)
class Pyramid:
    """Grey levels in [0, 255], finest first, and the strength of corners at the finest."""

    levels: tuple[Float32, ...]
    corners: Float32

    @staticmethod
    def of(image: ImageArray, count: int = 6) -> Pyramid:
        """Halves the image (RGB [H, W, 3]) while it stays longer than 40 pixels."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        levels = [cv2.GaussianBlur(grey, (0, 0), 0.7)]
        while len(levels) < count and min(levels[-1].shape) > 80:
            levels.append(cv2.pyrDown(levels[-1]))
        return Pyramid(tuple(levels), cv2.cornerMinEigenVal(grey, 7).astype(np.float32))


def refine_matches(
    first: Pyramid,
    second: Pyramid,
    pixels1: FloatArray,
    pixels2: FloatArray,
    sigma_px: float,
    options: SubpixelOptions | None = None,
) -> Refined:
    """Refines matches ``pixels1`` -> ``pixels2`` [N, 2] (continuous pixels) known to ``sigma_px`` per axis.

    Wrong matches among them are no harm beyond their own: the result holds those whose windows agree.
    """
    options = options or SubpixelOptions()
    p1, p2 = np.asarray(pixels1, dtype=np.float64), np.asarray(pixels2, dtype=np.float64)
    linear, _ = local_affines(p1, p2, sigma_px)
    size = np.sqrt(np.abs(np.linalg.det(linear)))
    usable = (size > 0.3) & (size < 3.0) & (np.linalg.det(linear) > 0)
    common = global_affine(p1, p2, sigma_px)[:, :2] if len(p1) >= 4 else np.eye(2)
    linear[~usable] = common if 0.3 < np.sqrt(abs(np.linalg.det(common))) < 3.0 else np.eye(2)
    if options.snap_px > 0:
        snapped = _snap(first.corners, p1, options.snap_px)
        p2 = p2 + np.einsum("nij,nj->ni", linear, snapped - p1)
        p1 = snapped
    top = min(len(first.levels), len(second.levels)) - 1
    level = min(top, max(0, int(np.ceil(np.log2(max(sigma_px / options.coarse_sigma_px, 1e-9))))))
    reach = max(2, int(np.ceil(options.search_sigmas * sigma_px / 2**level)))

    best, place, margin = np.full(len(p1), -1.0), p2.copy(), np.zeros(len(p1))
    warp = linear.copy()
    for candidate in (linear, np.broadcast_to(np.eye(2), linear.shape)):  # little may have changed but the place
        score, found, gap = _search(first.levels[level], second.levels[level], p1, p2, candidate, level, reach, options)
        better = score > best
        best[better], place[better], margin[better] = score[better], found[better], gap[better]
        warp[better] = candidate[better]
    row = np.flatnonzero((best > 0.5) & (margin >= options.min_margin))
    p1, start, place, warp = p1[row], p2[row], place[row], warp[row]
    correlation, noise = np.zeros(len(row)), np.zeros(len(row))
    for k in range(level, -1, -1):
        place, warp, correlation, noise = _fit(first.levels[k], second.levels[k], p1, place, warp, k, options)
    travelled = np.linalg.norm(place - start, axis=1)
    height, width = second.levels[0].shape
    inside = (place >= 0).all(axis=1) & (place[:, 0] < width) & (place[:, 1] < height)
    good = inside & (correlation >= options.min_correlation) & (noise <= options.max_noise_px)
    good &= travelled <= 1.5 * options.search_sigmas * sigma_px + 2.0
    return Refined(row[good], p1[good], place[good], correlation[good])


def _snap(corners: Float32, pixels: Float64Array, reach_px: float) -> Float64Array:
    """The centre of the strongest corner pixel within ``reach_px``: the same pixel for all pairs of a photo."""
    reach = int(reach_px)
    height, width = corners.shape
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = dx**2 + dy**2 <= reach_px**2
    rows = np.clip(np.floor(pixels[:, 1:2]).astype(int) + dy[disc], 0, height - 1)  # [N, D]
    columns = np.clip(np.floor(pixels[:, 0:1]).astype(int) + dx[disc], 0, width - 1)
    chosen = np.argmax(corners[rows, columns], axis=1)
    index = np.arange(len(pixels))
    return np.column_stack([columns[index, chosen], rows[index, chosen]]) + 0.5


def _sample(image: Float32, pixels: Float64Array, level: int) -> Float32:
    """Bilinear values [N, ...] at continuous full-size pixels [N, ..., 2] of a pyramid level (edges repeat).

    An image of L layers [H, W, L] gives [N, ..., L].
    """
    # pyrDown keeps every second pixel centre: index / 2, not corner / 2
    index = ((pixels - 0.5) / 2**level).astype(np.float32)
    if index.size == 0:
        return np.zeros(index.shape[:-1] + image.shape[2:], dtype=np.float32)
    flat = index.reshape(len(index), -1, 2)
    parts = [
        cv2.remap(image, part[..., 0], part[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for part in np.split(flat, range(_CHUNK, len(flat), _CHUNK))
        if len(part)
    ]
    return np.concatenate(parts).reshape(index.shape[:-1] + image.shape[2:])


def _grid(half: int, step: float) -> Float64Array:
    """Offsets [2 * half + 1, 2 * half + 1, 2] of a window's pixels, (x, y)."""
    axis = np.arange(-half, half + 1) * step
    return np.stack(np.meshgrid(axis, axis), axis=-1)


def _normalised(patches: Float32, weight: Float32) -> tuple[Float32, Float32]:
    """Patches [N, P] with weighted mean 0 and norm 1 (flat ones become 0), and their norms [N]."""
    total = weight.sum()
    centred = patches - ((patches * weight).sum(axis=-1, keepdims=True) / total)
    norm = np.sqrt((centred**2 * weight).sum(axis=-1, keepdims=True))
    return np.where(norm > 1.5 * np.sqrt(total), centred / np.maximum(norm, 1e-6), 0.0), norm[..., 0]


def _window(half: int) -> Float32:
    """Gaussian weights [P] of a window: its middle counts most."""
    axis = np.exp(-0.5 * (np.arange(-half, half + 1) / (0.6 * half + 0.5)) ** 2)
    return np.outer(axis, axis).astype(np.float32).ravel()


def _template(image: Float32, p1: Float64Array, warp: Float64Array, level: int, half: int) -> Float32:
    """What photo 1 shows around ``p1`` in photo 2's frame, [N, P]."""
    offsets = _grid(half, 2.0**level).reshape(-1, 2)
    return _sample(image, p1[:, None] + np.einsum("nij,pj->npi", np.linalg.inv(warp), offsets), level)


def _search(
    image1: Float32,
    image2: Float32,
    p1: Float64Array,
    p2: Float64Array,
    warp: Float64Array,
    level: int,
    reach: int,
    options: SubpixelOptions,
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Best correlation [N] within ``reach`` level pixels of ``p2``, its place [N, 2], and its margin [N]."""
    half = options.patch_px // 2
    weight = np.ones((2 * half + 1) ** 2, dtype=np.float32)
    edge = 2 * half + 1
    score, place, margin = np.zeros(len(p1)), p2.copy(), np.zeros(len(p1))
    shifts = _grid(reach, 2.0**level)
    for part in np.split(np.arange(len(p1)), range(200, len(p1), 200)):
        if not len(part):
            continue
        template, _ = _normalised(_template(image1, p1[part], warp[part], level, half), weight)  # [n, P]
        area = _sample(image2, p2[part][:, None, None] + _grid(half + reach, 2.0**level), level)  # [n, E, E]
        windows = np.lib.stride_tricks.sliding_window_view(area, (edge, edge), axis=(1, 2))  # [n, S, S, e, e]
        dot = np.einsum("nabij,nij->nab", windows, template.reshape(-1, edge, edge), optimize=True)
        total = np.stack([cv2.boxFilter(a, -1, (edge, edge), normalize=False) for a in area])
        squares = np.stack([cv2.boxFilter(a * a, -1, (edge, edge), normalize=False) for a in area])
        inner = slice(half, half + 2 * reach + 1)
        variance = np.maximum(squares[:, inner, inner] - total[:, inner, inner] ** 2 / edge**2, 0.0)
        norm = np.sqrt(variance)
        zncc = np.where(norm > 1.5 * edge, dot / np.maximum(norm, 1e-6), 0.0)  # the template's mean is zero
        flat = zncc.reshape(len(part), -1)
        best = flat.argmax(axis=1)
        score[part] = flat[np.arange(len(part)), best]
        shift = shifts.reshape(-1, 2)[best]
        place[part] = p2[part] + shift
        apart = np.linalg.norm(shifts[None] - shift[:, None, None], axis=3) / 2.0**level > 2.0
        rival = np.where(apart, zncc, -1.0).reshape(len(part), -1).max(axis=1)
        margin[part] = score[part] - rival
    return score, place, margin


def _fit(
    image1: Float32,
    image2: Float32,
    p1: Float64Array,
    p2: Float64Array,
    warp: Float64Array,
    level: int,
    options: SubpixelOptions,
) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array]:
    """Gauss-Newton of place and warp on one level: place [N, 2], warp [N, 2, 2], correlation [N], noise [N] px.

    Brightness may change by a factor and an offset: both windows are normalised. The noise is the standard deviation
    of the place that the remaining difference of the windows explains.
    """
    half, unit = options.patch_px // 2, 2.0**level
    weight = _window(half)
    offsets = _grid(half, unit).reshape(-1, 2)  # [P, 2] in photo 2
    template, norm1 = _normalised(_template(image1, p1, warp, level, half), weight)
    layers = cv2.merge([image2, cv2.Scharr(image2, -1, 1, 0) / 32, cv2.Scharr(image2, -1, 0, 1) / 32])
    shift, change = np.zeros_like(p2), np.zeros((len(p2), 2, 2))
    correlation, noise = np.zeros(len(p2)), np.full(len(p2), np.inf)
    if len(p2) == 0:
        return p2, warp, correlation, noise
    active = norm1 > 0
    root, total = np.sqrt(weight), float(weight.sum())
    scaled = (offsets / (half * unit)).astype(np.float32).T  # [2, P]
    # Rows of one Gram matrix: derivatives by place and warp, the window of photo 2, the template, a constant.
    rows = np.empty((len(p2), 9, len(weight)), dtype=np.float32)
    rows[:, 7], rows[:, 8] = template * root, root
    for iteration in range(options.iterations + 1):
        last = iteration == options.iterations
        columns = 6 if iteration > 2 and not last else 2  # the place first: a warp fitted at the wrong place runs away
        seen = ((np.eye(2) + change).reshape(-1, 2) @ offsets.T).reshape(len(p2), 2, -1) + (p2 + shift)[:, :, None]
        sampled = _sample(layers, seen.transpose(0, 2, 1), level)
        values, norm2 = _normalised(sampled[..., 0], weight)
        # residual of unit-norm windows; the gradient in the same measure
        scale = root / np.maximum(norm2, 1e-6)[:, None]
        rows[:, 0], rows[:, 1], rows[:, 6] = sampled[..., 1] * scale, sampled[..., 2] * scale, values * root
        if columns == 6:
            rows[:, 2:4], rows[:, 4:6] = rows[:, 0:1] * scaled, rows[:, 1:2] * scaled
        used = np.r_[0:columns, 6:9]
        some = rows[:, used] if columns == 2 else rows
        gram = (some @ some.transpose(0, 2, 1)).astype(np.float64)
        by_values, by_template, by_one = (gram[:, :columns, columns + k] for k in range(3))
        squared, correlation = gram[:, columns, columns], gram[:, columns, columns + 1]
        # a change of brightness is no change of place: the derivatives' parts along the window and a constant go
        normal = gram[:, :columns, :columns] - by_one[:, :, None] * by_one[:, None] / total
        normal -= (2.0 - squared)[:, None, None] * by_values[:, :, None] * by_values[:, None]
        if last:
            leftover = np.maximum(gram[:, columns + 1, columns + 1] - 2 * correlation + squared, 1e-4) / total
            noise = unit * np.sqrt(leftover * np.trace(np.linalg.inv(normal + 1e-12 * np.eye(2)), axis1=1, axis2=2))
            break
        right = by_template - by_values - (correlation - squared)[:, None] * by_values
        normal += np.eye(columns) * (1e-9 + 1e-3 * np.einsum("nii->n", normal)[:, None, None] / columns)
        step = np.linalg.solve(normal, right[..., None])[..., 0]
        step = np.clip(step, -1.0, 1.0) * active[:, None]
        shift += step[:, :2] * unit
        if columns == 6:
            change += step[:, 2:].reshape(-1, 2, 2) / half
    final = (np.eye(2) + change) @ warp
    return p2 + shift, final, np.where(active, correlation, 0.0), noise
