"""Rendered pictures show the mesh where the camera sees it, in its colours."""

import numpy as np

from recon.surface.picture import render_mesh
from recon.surface.types import Mesh
from recon.types import Camera

CAMERA = Camera.pinhole(60, 40, 40.0, 40.0, 30.0, 20.0)


def red_square() -> Mesh:
    """The square [-0.5, 0.5]^2 at z = 2: pixels 20..40 by 10..30."""
    vertices = np.array([[-0.5, -0.5, 2.0], [0.5, -0.5, 2.0], [0.5, 0.5, 2.0], [-0.5, 0.5, 2.0]])
    colors = np.tile(np.array([[200, 30, 20]], dtype=np.uint8), (4, 1))
    return Mesh(vertices, np.array([[0, 2, 1], [0, 3, 2]], dtype=np.int32), colors)


def test_a_square_covers_exactly_its_pixels():
    image = render_mesh(red_square(), CAMERA, np.eye(3, 4), "color")
    assert image.shape == (40, 60, 3)
    expected = np.zeros((40, 60), dtype=bool)
    expected[10:30, 20:40] = True
    np.testing.assert_array_equal((image == [200, 30, 20]).all(axis=-1), expected)
    assert (image[~expected] == 255).all()


def test_clay_hides_the_colour_and_shading_darkens_slanted_faces():
    frontal = render_mesh(red_square(), CAMERA, np.eye(3, 4), "clay")[20, 30]
    assert frontal.max() - frontal.min() < 20
    tilted = red_square()
    vertices = tilted.vertices_world_m.copy()
    vertices[:, 2] += 1.5 * vertices[:, 0]
    slanted = render_mesh(Mesh(vertices, tilted.faces), CAMERA, np.eye(3, 4), "clay")[20, 30]
    assert slanted.max() < 0.8 * frontal.max()
