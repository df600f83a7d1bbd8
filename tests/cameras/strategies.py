"""Cameras of every model with plausible parameters, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from recon.cameras.pinhole import MODELS
from recon.types import Camera

# mild enough that every pixel has a ray, strong enough to move corners by tens of pixels
_DISTORTION: dict[str, list[tuple[float, float]]] = {
    "SIMPLE_PINHOLE": [],
    "PINHOLE": [],
    "SIMPLE_RADIAL": [(-0.15, 0.2)],
    "RADIAL": [(-0.12, 0.2), (-0.02, 0.05)],
    "OPENCV": [(-0.12, 0.2), (-0.02, 0.05), (-0.003, 0.003), (-0.003, 0.003)],
    "OPENCV_FISHEYE": [(-0.03, 0.05), (-0.01, 0.01), (-0.002, 0.002), (-0.001, 0.001)],
    "FULL_OPENCV": [
        *[(-0.1, 0.2), (-0.02, 0.05), (-0.003, 0.003), (-0.003, 0.003)],
        *[(-0.01, 0.01), (-0.02, 0.02), (-0.01, 0.01), (-0.005, 0.005)],
    ],
}


@st.composite
def cameras(draw: st.DrawFn, models: tuple[str, ...] = tuple(MODELS)) -> Camera:
    model = draw(st.sampled_from(models))
    width, height = draw(st.integers(64, 800)), draw(st.integers(64, 800))
    fx = max(width, height) * draw(st.floats(0.8, 2.0))
    fy = fx * draw(st.floats(0.97, 1.03))
    cx = width * draw(st.floats(0.45, 0.55))
    cy = height * draw(st.floats(0.45, 0.55))
    focals = [fx] if model.startswith("SIMPLE_") or model == "RADIAL" else [fx, fy]
    distortion = [draw(st.floats(low, high)) for low, high in _DISTORTION[model]]
    return Camera(model, width, height, (*focals, cx, cy, *distortion))
