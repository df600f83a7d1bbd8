from __future__ import annotations

import numpy as np
import pytest

from recon.errors import MappingError
from recon.mapping.single import single_photo_scene
from recon.types import Camera, DepthSamples

CAMERA = Camera.pinhole(64, 48, 60.0, 60.0, 32.0, 24.0)


def samples(source: str, trusted: bool = True, number: int = 5) -> DepthSamples:
    return DepthSamples(
        "a.jpg", np.ones((number, 2)), np.full(number, 2.0), np.full(number, 0.1), "z", 60.0, source, trusted
    )


def test_a_sensor_sets_the_scale_before_a_checkpoint() -> None:
    scene = single_photo_scene("a.jpg", CAMERA, [samples("vlm:x"), samples("sensor")])
    assert scene.scale.used == ("sensor depth",)
    assert scene.scale.low == pytest.approx(np.exp(-1.96 * 0.01))
    assert [vote.source for vote in scene.scale.votes] == ["sensor depth", "vlm:x depth"]
    np.testing.assert_array_equal(scene.views[0].cam_from_world, np.eye(3, 4))


def test_a_checkpoint_alone_gives_a_wide_interval() -> None:
    scale = single_photo_scene("a.jpg", CAMERA, [samples("vlm:x")]).scale
    assert scale.metres_per_unit == 1.0
    assert scale.high / scale.low == pytest.approx(np.exp(2 * 1.96 * 0.10))
    assert "one usable photo" in scale.notes[0]


@pytest.mark.parametrize("depths", [[], [samples("vlm:x", trusted=False)], [samples("vlm:x", number=0)]])
def test_without_trusted_depth_there_is_no_scene(depths: list[DepthSamples]) -> None:
    with pytest.raises(MappingError, match=r"a\.jpg: one photo alone needs metric depth"):
        single_photo_scene("a.jpg", CAMERA, depths)
