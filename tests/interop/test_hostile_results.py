"""Damaged and hostile files are refused with one line that names the file; nothing is unpickled or over-allocated."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from recon.errors import BadInputError
from recon.interop import archive
from recon.interop.result import named_by_order
from recon.interop.results import read_result
from tests.interop.toy import HEIGHT, WIDTH, colmap_model, toy, write_da3, write_truth, write_vggt

SCENE = toy(3)


def refused(path: Path, match: str = ".") -> str:
    with pytest.raises(BadInputError, match=match) as caught:
        read_result(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message or str(path) in message
    return message


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.write_text, (self.target, "unpickled")


def test_a_pickled_array_is_never_loaded(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    poisoned = np.array([Bomb(canary)], dtype=object)
    pickle.loads(pickle.dumps(poisoned))  # the bomb works
    assert canary.exists()
    canary.unlink()
    path = tmp_path / "predictions.npz"
    for key in ("extrinsic", "intrinsic", "depth"):
        write_vggt(path, SCENE, **{key: poisoned})
        refused(path, "pickled")
    write_vggt(path, SCENE, pose_enc_list=poisoned)  # not needed, so not touched
    assert len(read_result(path).poses) == 3
    assert not canary.exists()


def test_truncated_archive(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    write_vggt(path, SCENE)
    content = path.read_bytes()
    for keep in (0, 10, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:keep])
        refused(path)


def test_damaged_bytes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "results.npz"
    write_da3(path, SCENE)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF  # in the depth maps: found by the archive's checksum
    path.write_bytes(bytes(content))
    result = read_result(path)
    load = result.load_depth
    assert load is not None
    with pytest.raises(BadInputError, match=r"results\.npz"):
        print([load(name) for name in result.depth_names])


def _npy(shape: tuple[int, ...], payload: bytes, dtype: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + payload


@pytest.mark.parametrize(
    ("shape", "payload"),
    [((1 << 40, 3, 4), 4800), ((3, 3, 4), 1 << 22), ((1 << 62, 1 << 62), 16), ((-3, 3, 4), 144), ((3, 3, 4), 40)],
)
def test_declared_sizes_are_checked_before_anything_is_made(
    tmp_path: Path, shape: tuple[int, ...], payload: int
) -> None:
    path = tmp_path / "predictions.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("extrinsic.npy", _npy(shape, bytes(payload)))
        file.writestr("intrinsic.npy", _npy((3, 3, 3), bytes(108)))
        file.writestr("depth.npy", _npy((3, HEIGHT, WIDTH, 1), bytes(12 * HEIGHT * WIDTH)))
    assert path.stat().st_size < 1 << 20
    refused(path)


def test_an_array_read_whole_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert archive.MAX_ARRAY_BYTES == 256 << 20
    monkeypatch.setattr(archive, "MAX_ARRAY_BYTES", 2 << 20)
    path = tmp_path / "predictions.npz"  # 3 KB that become 3 MB
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("extrinsic.npy", _npy((3 << 18, 1), bytes(3 << 20)))
    with pytest.raises(BadInputError, match="declares 3 MiB; accepted: up to 2"):
        archive.NamedArrays(path).read("extrinsic")


def test_arrays_that_do_not_fit_each_other(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    poses = SCENE.poses.astype(np.float32)
    bad_pose = poses.copy()
    bad_pose[1, 0, 0] = np.nan
    for changed, match in (
        ({"intrinsic": np.eye(3)[None]}, "intrinsics have shape"),
        ({"depth": SCENE.depth[:2, ..., None]}, "shape"),
        ({"depth_conf": SCENE.depth[:, :5]}, "different sizes"),
        ({"extrinsic": poses[:, :2]}, "poses have shape"),
        ({"extrinsic": bad_pose}, "not finite"),
        ({"extrinsic": 2 * poses}, "not rotations"),
        ({"intrinsic": np.zeros((3, 3, 3))}, "positive focal"),
        ({"extrinsic": np.array(["a", "b", "c"])}, "not a number"),
        ({"extrinsic": poses[:0], "depth": SCENE.depth[:0, ..., None], "intrinsic": np.zeros((0, 3, 3))}, "no photo"),
    ):
        write_vggt(path, SCENE, **changed)
        refused(path, match)


def test_a_missing_array_is_named_with_those_there(tmp_path: Path) -> None:
    path = tmp_path / "results.npz"
    np.savez(path, depth=SCENE.depth, exts=SCENE.poses)
    assert "'intrinsics' or 'ixts'" in refused(path)
    np.savez(path, colour=np.zeros(3))
    assert "found: colour" in refused(path)


def test_two_entries_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("depth.npy", _npy((1, 1, 1), bytes(4)))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("depth.npy", _npy((1, 1, 1), bytes(4)))
    refused(path, "same name")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b.jpg", "C:\\x.jpg", "..\\b.jpg"])
def test_photo_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    model = colmap_model(SCENE)
    model.image(1).name = name
    model.write_binary(tmp_path)
    refused(tmp_path / "", "not a path within a folder")
    matrix = np.eye(4).tolist()
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": [{"file_path": name, "transform_matrix": matrix}]}))
    refused(tmp_path / "transforms.json", "not a path within a folder")
    folder = tmp_path / "truth"
    write_truth(folder, SCENE)
    text = (folder / "gt" / "cameras.json").read_text().replace("images/photo_00.jpg", name.replace("\\", "\\\\"))
    (folder / "gt" / "cameras.json").write_text(text)
    with pytest.raises(BadInputError, match="not a path within a folder"):
        read_result(folder)


@pytest.mark.parametrize("file", ["cameras.bin", "images.bin"])
def test_colmap_binary_files_cut_or_boasting(tmp_path: Path, file: str) -> None:
    colmap_model(SCENE).write_binary(tmp_path)
    path = tmp_path / file
    content = path.read_bytes()
    for damaged in (b"", content[:7], content[:40], content[:-1], struct.pack("<Q", 1 << 60) + content[8:]):
        path.write_bytes(damaged)
        with pytest.raises(BadInputError, match="COLMAP"):
            read_result(tmp_path)


def test_colmap_points_cut_or_boasting(tmp_path: Path) -> None:
    colmap_model(SCENE).write_binary(tmp_path)
    path = tmp_path / "points3D.bin"
    content = path.read_bytes()
    for damaged in (content[:30], content[:-1], struct.pack("<Q", 1 << 60) + content[8:]):
        path.write_bytes(damaged)
        surface = read_result(tmp_path).surface
        assert surface is not None
        with pytest.raises(BadInputError, match=r"points3D\.bin"):
            surface.load(1 << 30, 0)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "no header"),
        (b"solid stl", "no header"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 9000000000\nproperty float x\nproperty float y\n"
         b"property float z\nend_header\n", "more than its"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty list uchar int x\n"
         b"end_header\n1234", "list"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float q\nend_header\n1234", "no x, y"),
        (b"ply\nformat ascii 1.0\nelement vertex many\nend_header\n", "damaged"),
        (b"ply\nformat ascii 1.0\nelement vertex 0\nelement face 0\nend_header\n", "no points"),
    ],
)  # fmt: skip
def test_damaged_ply(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "cloud.ply"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=match) as caught:
        read_result(path).surface.load(10, 0)  # type: ignore[union-attr]
    assert "cloud.ply" in str(caught.value)


def _square(faces: bytes, count: int = 1, index: str = "int", encoding: str = "binary_little_endian") -> bytes:
    head = f"ply\nformat {encoding} 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    head += f"element face {count}\nproperty list uchar {index} vertex_indices\nend_header\n"
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "<f4")
    text = "".join(f"{x} {y} {z}\n" for x, y, z in corners).encode()
    return head.encode() + (text if encoding == "ascii" else corners.tobytes()) + faces


@pytest.mark.parametrize(
    "faces",
    [
        struct.pack("<B4i", 4, 0, 1, 2, 1 << 29),  # polygons like this end the whole process in Open3D 0.20
        struct.pack("<B4i", 4, 0, 1, 2, -7),
        struct.pack("<B3i", 3, 0, 1, 4),
        struct.pack("<B3i", 255, 0, 1, 2),
        struct.pack("<B2i", 2, 0, 1) + bytes(4),
    ],
)
def test_faces_of_vertices_that_are_not_there(tmp_path: Path, faces: bytes) -> None:
    path = tmp_path / "mesh.ply"
    path.write_bytes(_square(faces))
    with pytest.raises(BadInputError, match=r"mesh\.ply"):
        read_result(path).surface.load(10, 0)  # type: ignore[union-attr]


def test_faces_in_every_form_that_is_right(tmp_path: Path) -> None:
    triangles = struct.pack("<B3iB3i", 3, 0, 1, 2, 3, 0, 2, 3)
    for content, count in (
        (_square(triangles, 2), 2),
        (_square(struct.pack("<B4i", 4, 0, 1, 2, 3)), 2),
        (_square(struct.pack("<B4iB3i", 4, 0, 1, 2, 3, 3, 0, 1, 2), 2), 3),
        (_square(struct.pack("<B3HB3H", 3, 0, 1, 2, 3, 0, 2, 3) + bytes(12), 2, "ushort"), 2),
        (_square(b"4 0 1 2 3\n", encoding="ascii"), 2),
    ):
        path = tmp_path / "mesh.ply"
        path.write_bytes(content)
        loaded = read_result(path).surface.load(10, 0)  # type: ignore[union-attr]
        assert len(loaded.faces) == count  # type: ignore[union-attr]
    path.write_bytes(_square(b"4 0 1 2 9\n", encoding="ascii"))
    with pytest.raises(BadInputError, match="not there"):
        read_result(path).surface.load(10, 0)  # type: ignore[union-attr]


def test_a_cloud_cut_by_one_byte(tmp_path: Path) -> None:
    path = tmp_path / "cloud.ply"
    whole = _square(b"", 0).replace(b"element face 0\nproperty list uchar int vertex_indices\n", b"")
    path.write_bytes(whole)
    assert len(read_result(path).surface.load(10, 0).points_world_m) == 4  # type: ignore[union-attr]
    path.write_bytes(whole[:-1])
    refused(path, "more than its")


def test_a_header_of_an_array_that_never_ends(tmp_path: Path) -> None:
    path = tmp_path / "results.npz"
    with zipfile.ZipFile(path, "w") as file:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3"
        file.writestr("extrinsics.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        file.writestr("intrinsics.npy", _npy((3, 3, 3), bytes(108)))
        file.writestr("depth.npy", _npy((3, HEIGHT, WIDTH), bytes(12 * HEIGHT * WIDTH)))
    refused(path, "can't be read")


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"frames": 3}', '{"frames": [{"file_path": "a.jpg"}]}', "[" * 100_000,
                '{"frames": [{"file_path": "a.jpg", "transform_matrix": [[1, 2], [3, 4]]}]}', '{"frames": []}']
)  # fmt: skip
def test_damaged_transforms(tmp_path: Path, content: str) -> None:
    (tmp_path / "transforms.json").write_text(content)
    refused(tmp_path / "transforms.json")


def test_damaged_glb_clouds(tmp_path: Path) -> None:
    import trimesh

    path = tmp_path / "cloud.glb"
    trimesh.PointCloud(np.ones((9, 3))).export(path)
    whole = path.read_bytes()
    size = struct.unpack_from("<I", whole, 12)[0]

    def with_document(*pairs: str) -> bytes:
        text = whole[20 : 20 + size].decode()
        for old, new in zip(pairs[::2], pairs[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        changed = text.encode()
        changed += b" " * (-len(changed) % 4)
        rest = struct.pack("<I4s", len(changed), b"JSON") + changed + whole[20 + size :]
        return struct.pack("<4sII", b"glTF", 2, 12 + len(rest)) + rest

    damaged = [
        b"", whole[:30], whole[:-60], with_document('"count":9', '"count":8000000000'),
        with_document('"byteOffset":0', '"byteOffset":9'), with_document('"byteOffset":0', '"byteOffset":-8'),
        with_document('"mode":0', '"mode":1'), with_document('"mesh":0', '"mesh":0,"children":[0]'),
        with_document('"nodes":[0]', '"nodes":[0,0]'),
        with_document('"nodes":[{', '"nodes":[{"mesh":0},{"mesh":0},{"mesh":0},{"mesh":0},{',
                      '"nodes":[0]', '"nodes":[0,1,2,3,4]'),
        with_document('"POSITION":0', '"POSITION":7'), with_document("{", "["),
    ]  # fmt: skip
    for content in damaged:
        path.write_bytes(content)
        surface = read_result(path).surface
        assert surface is not None
        with pytest.raises(BadInputError, match=r"cloud\.glb"):
            surface.load(10, 0)
    (tmp_path / "empty.obj").write_text("v 1 nothing 3\n")
    with pytest.raises(BadInputError, match=r"empty\.obj"):
        read_result(tmp_path / "empty.obj").surface.load(10, 0)  # type: ignore[union-attr]


def test_depth_picture_of_another_size(tmp_path: Path) -> None:
    from PIL import Image

    write_truth(tmp_path, SCENE)
    Image.fromarray(np.zeros((5, 5), np.uint16)).save(tmp_path / "gt" / "depth" / "photo_00.png")
    result = read_result(tmp_path)
    assert result.load_depth is not None
    with pytest.raises(BadInputError, match=r"photo_00\.png"):
        result.load_depth("photo_00.jpg")


def test_counts_without_names_that_do_not_agree(tmp_path: Path) -> None:
    write_vggt(tmp_path / "predictions.npz", SCENE)
    write_truth(tmp_path / "truth", toy(4))
    with pytest.raises(BadInputError, match="stores 3 photos without names"):
        named_by_order(read_result(tmp_path / "predictions.npz"), read_result(tmp_path / "truth"))
