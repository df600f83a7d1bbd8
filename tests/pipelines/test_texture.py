"""``--texture``: what it needs, what the run leaves, and what the other commands make of it."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from pipelines import cli
from pipelines.export import export
from pipelines.options import Options
from pipelines.reconstruct import reconstruct
from pipelines.report.packing import LEVELS, unpack
from pipelines.report.texture import packed_texture
from pipelines.report.write import write_report
from pipelines.runs import open_run
from recon.errors import BadInputError
from recon.interop.meshes import read_mesh
from recon.surface.options import FuseOptions
from tests.interop.toy import wall
from tests.pipelines.textured_run import HALVES, make_textured_run, textured_wall


def line(scene: Path, out: Path, *more: str) -> Options:
    return cli.parse(Options, "reconstruct", [str(scene), "--out", str(out), *more])


@pytest.mark.parametrize(
    ("out", "more", "message"),
    [
        ("m.ply", ["--texture"], r"--texture: .*m\.ply: format '\.ply' can't hold a texture; accepted: \.glb \.obj"),
        ("m.ply", ["--texture", "--as", "cloud"], "--texture is about meshes; found --as cloud"),
        ("m.glb", ["--texture-size", "2048"], "--texture-size says .* add --texture"),
        ("m.glb", ["--texture", "--texture-size", "64"], "--texture-size must be between 256 and 16384, found 64"),
        ("m.glb", ["--texture", "--surface.texture.candidates", "0"], "candidates must be between 1 and 64, found 0"),
    ],
)
def test_what_it_needs_is_said_first(tmp_path: Path, out: str, more: list[str], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        line(tmp_path, tmp_path / out, *more).check()


def test_a_textured_mesh_is_simplified_and_no_other(tmp_path: Path) -> None:
    plain, textured = (line(tmp_path, tmp_path / "m.glb", *more) for more in ([], ["--texture"]))
    assert plain.surface_options.fuse == FuseOptions()
    assert textured.surface_options.fuse.target_faces == textured.surface_options.texture.target_faces == 200_000
    fewer = line(tmp_path, tmp_path / "m.glb", "--texture", "--target-faces", "500", "--texture-size", "512")
    assert fewer.surface_options.fuse.target_faces == 500
    assert fewer.surface_options.texture.page_px == 512


@pytest.mark.slow
def test_resuming_with_the_texture_redoes_only_what_it_needs(
    tmp_path: Path, few_photos: Path, mute_checkpoint: Path
) -> None:
    small = ["--model", str(mute_checkpoint), "--device", "cpu", "--budget", "4", "--quiet", "--no-report",
             "--workspace", str(tmp_path / "work"), "--surface.multiview.work-px", "96",
             "--surface.multiview.num-neighbours", "2"]  # fmt: skip

    def run(out: str, *more: str) -> dict[str, str]:
        summary = reconstruct(line(few_photos, tmp_path / out, *small, *more))
        return {stage.name: stage.status for stage in summary.stages}

    assert "texture" not in run("plain.ply")
    depth = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "dense").rglob("*.npz")}
    assert depth
    first = run("mesh.glb", "--texture")
    assert [first[stage] for stage in ("features", "map", "scale")] == ["reused"] * 3
    assert [first[stage] for stage in ("fusion", "texture", "mesh")] == ["done"] * 3
    assert depth == {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "dense").rglob("*.npz")}
    other = run("mesh.obj", "--texture")
    assert [other[stage] for stage in ("fusion", "texture", "mesh")] == ["reused", "reused", "done"]
    smaller = run("mesh.obj", "--texture", "--texture-size", "256")
    assert [smaller[stage] for stage in ("fusion", "texture", "mesh")] == ["reused", "done", "done"]
    assert (tmp_path / "mesh.texture0.jpg").is_file()

    glb = trimesh.load(tmp_path / "mesh.glb")
    pictures = [part.visual.material.baseColorTexture for part in glb.geometry.values()]
    assert sum(len(part.faces) for part in glb.geometry.values()) > 500
    assert all(np.asarray(picture.convert("L")).std() > 10 for picture in pictures)


def test_exports_keep_the_texture_where_the_format_can(tmp_path: Path) -> None:
    run = open_run(make_textured_run(tmp_path))
    assert run.textured() is not None
    out, _ = export(run, "obj", tmp_path / "there" / "wall.obj")
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "wall.mtl", "wall.obj", "wall.texture0.jpg", "wall.texture1.jpg",
    ]  # fmt: skip
    loaded = trimesh.load(out)
    assert sum(len(part.faces) for part in loaded.geometry.values()) == len(wall().faces)
    with pytest.raises(BadInputError, match="is there already"):
        export(run, "obj", out)
    out.unlink()
    with pytest.raises(BadInputError, match=r"wall\.mtl beside it is there already; name another or add --overwrite"):
        export(run, "obj", out)
    export(run, "obj", out, overwrite=True)
    again, _ = export(run, "glb", tmp_path / "other.glb")
    assert again.read_bytes() == (tmp_path / "mesh.glb").read_bytes()

    ply = read_mesh(export(run, "ply")[0])  # shared vertices with their colours
    assert len(ply.vertices_world_m) == len(wall().vertices_world_m)
    np.testing.assert_array_equal(ply.colors, wall().colors)


def test_another_file_of_the_workspace_has_no_texture(tmp_path: Path) -> None:
    make_textured_run(tmp_path)
    from recon.interop.meshes import write_mesh

    write_mesh(wall(), tmp_path / "mesh.ply")  # of an earlier run
    assert open_run(tmp_path / "mesh.ply").textured() is None
    assert open_run(tmp_path / "mesh-workspace").textured() is not None
    (tmp_path / "mesh-workspace" / "stages" / "texture.npz").unlink()
    assert open_run(tmp_path / "mesh.glb").textured() is None


def test_the_report_has_the_texture_in_a_size_that_can_be_mailed(tmp_path: Path) -> None:
    textured = textured_wall()
    data = packed_texture(textured)
    position, faces = unpack(data["position"]) / LEVELS * data["size"] + data["low"], unpack(data["index"])
    uv = unpack(data["uv"]) / LEVELS
    order = np.argsort(textured.page, kind="stable")
    np.testing.assert_allclose(position[faces], textured.mesh.vertices_world_m[textured.mesh.faces[order]], atol=2e-4)
    np.testing.assert_allclose(uv[faces], textured.uv[order], atol=2e-5)
    normals = unpack(data["normal"]).astype(float) - 128
    assert (np.linalg.norm(normals, axis=1) > 120).all()
    assert [page["count"] for page in data["pages"]] == [3 * 144, 3 * 144]
    assert [page["start"] for page in data["pages"]] == [0, 3 * 144]
    pixels = 0
    for page, color in zip(data["pages"], HALVES):
        with Image.open(io.BytesIO(base64.b64decode(page["picture"].split(",")[1]))) as picture:
            pixels += picture.width * picture.height
            assert np.abs(np.asarray(picture)[50, 50].astype(int) - color).max() < 12
    assert 4_500_000 < pixels <= 5_000_000
    page = write_report(make_textured_run(tmp_path)).read_text()
    assert f"All {len(wall().faces)} triangles of mesh.glb are shown, with its texture made smaller." in page


def test_a_textured_mesh_with_too_many_triangles_is_shown_with_its_colours(tmp_path: Path) -> None:
    from pipelines.report import ReportOptions

    page = write_report(make_textured_run(tmp_path), options=ReportOptions(faces=100)).read_text()
    assert "of mesh.glb, without their texture." in page


def test_the_viewer_shows_the_texture(tmp_path: Path) -> None:
    pytest.importorskip("viser", reason='needs the extra "view"')
    from pipelines.view import Options as ViewOptions
    from pipelines.view import show

    mesh = make_textured_run(tmp_path)
    for most, textured in ((1_000_000, True), (1000, True), (100, False)):
        options = dataclasses.replace(ViewOptions(mesh, port=0), max_faces=most)
        viewer = show(open_run(mesh), options)
        try:
            glb = viewer.server.scene.get_handle_by_name("/mesh").glb_data
            document = json.loads(glb[20 : 20 + int.from_bytes(glb[12:16], "little")])
            assert ("images" in document) == textured
        finally:
            viewer.server.stop()
