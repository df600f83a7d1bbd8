"""Captures on disk: format, round trip to geometry, determinism, bad input."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.errors import BadInputError, OutputError
from recon.surface.types import Mesh
from recon.synth.capture import SynthCaptureOptions, depth_png, equivalent_35mm, ply_bytes, write_capture
from recon.synth.dataset import make_room
from recon.synth.gt_mesh import visible_mesh
from recon.synth.render import SynthView
from recon.types import Camera

SMALL = SynthCaptureOptions(
    num_views=4, width_px=96, height_px=72, focal_px=72.0, depth_views=2, supersample=1, shadows=False, mesh_cell_m=0.1
)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SynthView]]:
    folder = tmp_path_factory.mktemp("capture")
    return folder, write_capture(folder, 104, options=SMALL)


def _read_ply(path: Path) -> Mesh:
    content = path.read_bytes()
    header, body = content.split(b"end_header\n", 1)
    words = header.split()
    vertices, faces = (int(words[words.index(name) + 1]) for name in (b"vertex", b"face"))
    points = np.frombuffer(body, "<f4", vertices * 3).reshape(-1, 3)
    rows = np.frombuffer(body[points.nbytes :], [("count", "u1"), ("corners", "<i4", 3)])
    assert len(rows) == faces
    assert set(rows["count"]) == {3}
    return Mesh(points, rows["corners"])


def test_cameras_json_and_depth_give_the_views_back(capture: tuple[Path, list[SynthView]]):
    folder, views = capture
    truth = json.loads((folder / "gt/cameras.json").read_text())
    assert truth["metric"] is True
    assert [entry["file"] for entry in truth["images"]] == [f"images/{k:04d}.jpg" for k in range(4)]
    assert [("depth" in entry) for entry in truth["images"]] == [True, False, False, True]
    for entry, view in zip(truth["images"], views):
        # The file counts pixels from their centres, our cameras from the corner: half a pixel between them.
        assert (entry["cx"] + 0.5, entry["cy"] + 0.5) == view.camera.fx_fy_cx_cy[2:]
        assert (entry["K"][0][0], entry["K"][0][2]) == (entry["fx"], entry["cx"])
        pose = np.column_stack([entry["R_cw"], entry["t_cw"]])
        np.testing.assert_allclose(pose, view.cam_from_world, atol=1e-8)
        photo = Image.open(folder / entry["file"])
        assert photo.size == (entry["width"], entry["height"]) == (96, 72)
        assert np.abs(np.asarray(photo).astype(int) - view.image).mean() < 8  # JPEG: 6 measured
        if "depth" in entry:
            stored = np.asarray(Image.open(folder / entry["depth"])).astype(np.float64) / 1000
            np.testing.assert_allclose(stored, view.depth_m, atol=5.1e-4)


def test_exif_focal_length_is_the_camera_s_within_its_rounding(capture: tuple[Path, list[SynthView]]):
    folder, views = capture
    photo = Image.open(folder / "images/0000.jpg").getexif().get_ifd(0x8769)
    focal_px = photo[0xA405] * np.hypot(96, 72) / 43.267
    assert focal_px == pytest.approx(views[0].camera.focal_px, rel=0.02)
    assert equivalent_35mm(Camera.pinhole(640, 480, 482.0, 482.0, 320.0, 240.0)) == 26


def test_mesh_lies_on_the_surface_and_covers_what_is_seen(capture: tuple[Path, list[SynthView]]):
    from scipy.spatial import cKDTree

    folder, views = capture
    mesh = _read_ply(folder / "gt/mesh.ply")
    corners = mesh.vertices_world_m[mesh.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(area), 60000, p=area / area.sum())
    share = rng.random((60000, 2))
    share = np.where(share.sum(1, keepdims=True) > 1, 1 - share, share)
    edge1, edge2 = corners[chosen, 1] - corners[chosen, 0], corners[chosen, 2] - corners[chosen, 0]
    samples = corners[chosen, 0] + share[:, :1] * edge1 + share[:, 1:] * edge2
    tree = cKDTree(samples)
    for view in views:
        fx, fy, cx, cy = view.camera.fx_fy_cx_cy
        x, y = np.meshgrid(np.arange(96) + 0.5, np.arange(72) + 0.5)
        rays = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)], -1)
        points = (rays * view.depth_m[..., None] - view.cam_from_world[:, 3]) @ view.cam_from_world[:, :3]
        distance, _ = tree.query(points.reshape(-1, 3)[::5])
        assert np.mean(distance < 0.05) > 0.93  # 0.1 m cells lose rims; 0.97 measured


def test_mesh_faces_look_outside():
    """Triangles' normals point to the views that see them."""
    views = write_views()
    mesh = visible_mesh(make_room(104, SMALL.room_m, SMALL.extra_pictures), views, 0.2)
    corners = mesh.vertices_world_m[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    centres = corners.mean(1)
    faces_some = np.zeros(len(centres), bool)
    for view in views:
        faces_some |= ((view.centre_world_m - centres) * normals).sum(1) > 0
    assert faces_some.mean() > 0.98


def write_views() -> list[SynthView]:
    from recon.synth.capture import capture_views

    return capture_views(104, SMALL)[1]


def test_the_same_seed_writes_the_same_bytes(capture: tuple[Path, list[SynthView]], tmp_path: Path):
    folder, _ = capture
    calls: list[tuple[int, int]] = []
    write_capture(tmp_path, 104, options=SMALL, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def digests(root: Path) -> dict[str, str]:
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    assert digests(folder) == digests(tmp_path)
    assert len(digests(folder)) == 4 + 2 + 2


def test_depth_png_marks_unknown_and_too_far_as_zero():
    depth = np.array([[1.0, np.nan], [65.6, 0.0004]], np.float32)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(depth_png(depth)))), [[1000, 0], [0, 0]])


def test_ply_holds_exactly_what_it_is_given(tmp_path: Path):
    mesh = Mesh(np.arange(12.0).reshape(4, 3), np.array([[0, 1, 2], [0, 2, 3]], np.int32))
    (tmp_path / "mesh.ply").write_bytes(ply_bytes(mesh))
    back = _read_ply(tmp_path / "mesh.ply")
    np.testing.assert_array_equal(back.vertices_world_m, mesh.vertices_world_m)
    np.testing.assert_array_equal(back.faces, mesh.faces)


def test_bad_arguments_give_one_line_reasons(tmp_path: Path):
    with pytest.raises(BadInputError, match="num_views must be at least 1"):
        write_capture(tmp_path, 104, 0, SMALL)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="can't write the capture"):
        write_capture(tmp_path / "file", 104, 1, SMALL)


def test_the_committed_example_is_whole_and_small():
    """``examples/room``: every photo of cameras.json is there, with its ground truth, under 2 MB in all."""
    folder = Path(__file__).resolve().parents[2] / "examples" / "room"
    truth = json.loads((folder / "gt/cameras.json").read_text())
    assert 12 <= len(truth["images"]) <= 16
    for entry in truth["images"]:
        assert Image.open(folder / entry["file"]).size == (640, 480)
        if "depth" in entry:
            assert Image.open(folder / entry["depth"]).size == (640, 480)
    assert len(_read_ply(folder / "gt/mesh.ply").faces) > 1000
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 2_000_000
