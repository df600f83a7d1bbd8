"""``report.html``: what is in it, what it escapes, what it does without, and what it refuses."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines import cli
from pipelines.licences import checkpoint_licences, licence_of
from pipelines.report import ReportOptions, write_report
from pipelines.report.axes import find_axes
from pipelines.report.packing import LEVELS, pack, quantised, unpack
from pipelines.report.pairs import choose
from pipelines.report.pictures import draw_depth, photo_path
from pipelines.report.svg import nice_step
from pipelines.report.write import NAME
from pipelines.runs import open_run
from recon.errors import BadInputError
from recon.interop.meshes import write_cloud, write_mesh
from recon.surface.types import DepthMap, PointCloud
from tests.interop.toy import toy, wall, write_truth
from tests.pipelines.finished_run import STRAIGHT, make_run
from tests.pipelines.reports import HOSTILE_NAME, HOSTILE_REASON, make_report_run

VOID = {"meta", "img", "input", "br", "link"}


class Page(html.parser.HTMLParser):
    """Elements, their attributes and the text of a page, as a browser would take them apart."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not (self.open and self.open[-1] == "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = write_report(make_report_run(tmp_path_factory.mktemp("hostile")))
    return Page(path.read_text(encoding="utf-8"))


def test_says_what_the_run_did(hostile: Page) -> None:
    for part in ("6 of 7", "95 % interval −3.0 % to +3.0 %", "photos are not in the map", "GPS positions of 5 photos",
                 "3 pairs of photos have matches", "30 verified matches, 10 of them the checkpoint's",
                 "All 7,200 triangles of mesh.ply", "12 s"):  # fmt: skip
        assert part in hostile.text, part
    assert hostile.open == []
    assert hostile.count("h1") == 1
    assert [t for t, _ in hostile.elements if t == "canvas"] == ["canvas"]


def test_names_and_reasons_stay_text(hostile: Page) -> None:
    assert HOSTILE_NAME in hostile.text
    assert HOSTILE_REASON in hostile.text
    assert hostile.count("script") == 4  # data, three.js, viewer, page
    assert all(not key.startswith("on") for _, attributes in hostile.elements for key in attributes)
    data = json.loads(hostile.scripts[0])
    assert data["cameras"][0]["name"] == HOSTILE_NAME
    assert "<" not in hostile.scripts[0]
    assert "../../outside.jpg" in hostile.text  # named, not opened: it would be the seventh picture
    assert sum(attributes.get("class") == "photo" for tag, attributes in hostile.elements if tag == "img") == 6


def test_loads_nothing_and_may_load_nothing(hostile: Page) -> None:
    for tag, attributes in hostile.elements:
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:image/webp;base64,", "#")), (tag, key, value[:80])
    policy = next(a["content"] for _, a in hostile.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not any("style" in attributes for _, attributes in hostile.elements)


def test_pictures_have_words_for_those_who_do_not_see_them(hostile: Page) -> None:
    pictures = [a for tag, a in hostile.elements if tag == "img" and "src" in a]
    assert len(pictures) == 6 + 2 * 5  # one photo has no depth
    assert all(a.get("alt") for a in pictures)
    drawings = [a for tag, a in hostile.elements if tag == "svg" and a.get("aria-hidden") != "true"]
    assert drawings
    assert all(a.get("aria-label") for a in drawings)


def test_the_mesh_in_the_page_is_the_mesh(hostile: Page, tmp_path: Path) -> None:
    data = json.loads(hostile.scripts[0])["mesh"]
    places = np.array(data["low"]) + data["size"] * unpack(data["position"]).astype(float) / LEVELS
    mesh = make_report_run(tmp_path, hostile=False)
    from recon.interop.meshes import read_mesh

    truth = read_mesh(mesh)
    assert np.abs(places - truth.vertices_world_m).max() <= data["size"] / LEVELS
    assert np.array_equal(unpack(data["index"]), truth.faces)
    assert truth.colors is not None
    assert np.array_equal(unpack(data["color"]), truth.colors)


def test_a_run_that_lacks_nearly_everything(tmp_path: Path) -> None:
    mesh = make_run(tmp_path, STRAIGHT, metric=False, depth=False)
    root = tmp_path / "mesh-workspace"
    mesh.unlink()
    shutil.rmtree(root / "images")
    (root / "summary.json").unlink()
    page = Page(write_report(root).read_text(encoding="utf-8"))
    for part in ("The surface is not beside the workspace", "its shape is right", "no readable COLMAP database",
                 "The run's summary is missing", "did not record its checkpoints"):  # fmt: skip
        assert part in page.text
    assert page.count("img") == 1  # the empty one of the camera's card


def test_damaged_files_cost_their_picture_only(tmp_path: Path) -> None:
    mesh = make_report_run(tmp_path, hostile=False)
    root = tmp_path / "mesh-workspace"
    (root / "images" / "photo_00.jpg").write_bytes(b"no photo")
    depth = next((root / "dense").rglob("*.npz"))
    depth.write_bytes(depth.read_bytes()[:-2000])
    mesh.write_bytes(mesh.read_bytes()[:3000])
    page = Page(write_report(root).read_text(encoding="utf-8"))
    assert "The surface can't be shown" in page.text
    assert sum(a.get("class") == "photo" for tag, a in page.elements if tag == "img") == 5


def test_a_cloud_is_drawn_at_random(tmp_path: Path) -> None:
    mesh = make_report_run(tmp_path, hostile=False)
    rng = np.random.default_rng(0)
    write_cloud(PointCloud(rng.random((5000, 3)), rng.integers(0, 255, (5000, 3)).astype(np.uint8)), mesh)
    page = Page(write_report(mesh, options=ReportOptions(points=300)).read_text(encoding="utf-8"))
    assert "300 random points of the 5,000 of mesh.ply are shown" in page.text
    data = json.loads(page.scripts[0])
    assert data["cloud"]["position"]["rows"] == data["cloud"]["color"]["rows"] == 300
    assert "mesh" not in data


def test_many_photos_get_few_pictures_and_a_thinned_mesh(tmp_path: Path) -> None:
    mesh = make_report_run(tmp_path, hostile=False)
    page = Page(write_report(mesh, options=ReportOptions(pictures=2, faces=500)).read_text(encoding="utf-8"))
    assert "2 of 7 photos have pictures in this report, evenly chosen" in page.text
    said = re.search(r"Shown are (\d+) triangles, thinned evenly from the 7,200 of mesh.ply", page.text)
    assert said is not None
    assert 250 < int(said[1]) <= 500


def test_comparisons_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mesh = make_report_run(tmp_path, hostile=False)
    truth = tmp_path / "truth & <b>gt"
    truth.mkdir()
    write_truth(truth, toy())
    write_mesh(wall(), truth / "gt" / "mesh.ply")
    out = tmp_path / "compared.html"
    assert cli.main(["report", str(mesh), "--with", str(truth), "--out", str(out), "--compare.points", "2000"]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {out} (")
    page = Page(out.read_text(encoding="utf-8"))
    for part in ("AUC@5°", "1.000", "F-score", "scale error", "aligned by rigid, centres of 6 cameras", "δ1"):
        assert part in page.text, part
    assert page.count("b") == 0
    # a perfect result: the curve of the poses is at the top from the first degree on
    curve = next(a["d"] for tag, a in page.elements if tag == "path" and a.get("class") == "line s0")
    assert curve is not None
    heights = [float(point.split()[1]) for point in curve[1:].split("L")]
    assert heights[0] == max(heights)
    assert len(heights) == 31
    assert set(heights[1:]) == {min(heights)}


def test_a_report_of_comparisons_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_truth(tmp_path, toy())
    write_mesh(wall(), tmp_path / "gt" / "mesh.ply")
    path = tmp_path / "r.html"
    arguments = ["compare", str(tmp_path), "--with", str(tmp_path), "--points", "2000", "--report"]
    assert cli.main([*arguments, str(path)]) == 0
    assert cli.main([*arguments, str(tmp_path / "r.txt")]) == 1
    assert "--report" in capsys.readouterr().err
    page = Page(path.read_text(encoding="utf-8"))
    assert page.count("canvas") == 0
    assert page.count("script") == 1
    assert "AUC@5°" in page.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent"], "absent: does not exist; accepted: a workspace, or the mesh beside it"),
        (["{mesh}", "--out", "{parent}/x.txt"], "x.txt: the name of a report ends in .html"),
        (["{mesh}", "--out", "{mesh}/x.html"], "--out"),
        (["{mesh}", "--faces", "5"], "--faces must be between 100 and"),
        (["{mesh}", "--pictures", "-1"], "--pictures must be between 0 and"),
        (["{mesh}", "--with", "absent"], "absent: does not exist"),
    ],
)
def test_refusals_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    mesh = make_run(tmp_path)
    assert cli.main(["report", *(a.format(mesh=mesh, parent=tmp_path) for a in arguments)]) in {1, 2}
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert not (tmp_path / "mesh-workspace" / NAME).exists()


def test_a_failing_report_does_not_fail_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import reconstruct
    from pipelines.options import Options
    from pipelines.stages import Stages
    from pipelines.summary import Summary
    from pipelines.workspace import Workspace

    root = make_report_run(tmp_path, hostile=False).parent / "mesh-workspace"
    options = Options(tmp_path, tmp_path / "mesh.ply", quiet=True)
    for error in (BadInputError("no such thing"), ZeroDivisionError("division by zero")):
        stages = Stages(Workspace(root))
        summary = Summary("photos", str(tmp_path / "mesh.ply"), {}, status="done", stages=stages.reports)

        def broken(path: Path, error: Exception = error) -> Path:
            raise error

        monkeypatch.setattr(reconstruct, "write_report", broken)
        (root / NAME).write_text("of an earlier run")
        reconstruct.make_report(stages, options, summary)
        assert not (root / NAME).exists()
        assert [(s.name, s.status, s.reason) for s in stages.reports] == [("report", "failed", str(error))]
        assert summary.status == "done"
        assert summary.notices == [f"no report was made: {error}"]


@given(arrays(np.uint16, st.tuples(st.integers(1, 20), st.integers(1, 4))))
def test_packing_round_trip(array: np.ndarray) -> None:
    for kind in (np.uint8, np.uint16, np.uint32):
        wide = array.astype(kind) * kind(3)
        assert np.array_equal(unpack(pack(wide)), wide)


def test_quantised_points_are_near() -> None:
    points = np.random.default_rng(0).normal(size=(1000, 3)) * [10, 1, 0.1] + 1000
    numbers, low, size = quantised(points)
    assert np.abs(np.array(low) + size * numbers / LEVELS - points).max() <= size / LEVELS / 2 * 1.001
    assert np.array_equal(quantised(np.ones((2, 3)))[0], np.zeros((2, 3)))


@pytest.mark.parametrize("tilt_deg", [0.0, 35.0])
def test_up_is_found_from_level_photos(tmp_path: Path, tilt_deg: float) -> None:
    """Cameras on a ring, held level but looking down by an angle, in a world that is turned any way."""
    import dataclasses

    from scipy.spatial.transform import Rotation

    scene = open_run(make_run(tmp_path)).scene
    world = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()  # turned from (x east, y north, z up)
    views = []
    for index, view in enumerate(scene.views):
        angle, tilt = index * np.pi / 3, np.radians(tilt_deg)
        ahead = np.array([np.cos(angle) * np.cos(tilt), np.sin(angle) * np.cos(tilt), -np.sin(tilt)])
        right = np.cross(ahead, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        turn = np.stack([right, np.cross(ahead, right), ahead]) @ world.T
        views.append(dataclasses.replace(view, cam_from_world=np.column_stack([turn, turn @ world @ (4 * ahead)])))
    box = np.random.default_rng(0).uniform(-1, 1, (4000, 3)) * [5, 2, 1]
    axes = find_axes(dataclasses.replace(scene, views=tuple(views)), box @ world.T)
    assert np.allclose(axes.up, world[:, 2], atol=1e-6)
    assert abs(axes.right @ world[:, 0]) > 0.999  # the longer side
    assert np.allclose(axes.matrix @ axes.matrix.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(axes.matrix) == pytest.approx(1)


def test_depth_pictures_by_hand() -> None:
    depth = np.full((4, 5), np.nan, np.float32)
    depth[:2] = 2.0
    depth[0, 0] = 4.0
    black = np.zeros((4, 5, 3), np.uint8)
    made = draw_depth(DepthMap("a", depth, np.full((4, 5), 0.5, np.float32), STRAIGHT, np.eye(3, 4), black))
    assert made is not None
    assert made.coverage == 0.5
    assert made.mean_confidence == 0.5
    assert made.near == 2.0
    assert 2.0 < made.far <= 4.0
    nothing = DepthMap("a", depth * np.nan, depth, STRAIGHT, np.eye(3, 4), black)
    assert draw_depth(nothing) is None


def test_photos_outside_of_the_workspace_are_not_opened(tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "a").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (images / "a" / "b.jpg").write_bytes(b"x")
    (images / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    assert photo_path(images, "a/b.jpg") == images / "a/b.jpg"
    for name in ("../secret.jpg", "a/../../secret.jpg", str(tmp_path / "secret.jpg"), "link.jpg", "", "a", "x\0.jpg"):
        assert photo_path(images, name) is None, name


def test_pairs_that_tell_most() -> None:
    counts = {("a", "b"): 90, ("a", "c"): 60, ("b", "c"): 40, ("c", "d"): 30, ("d", "e"): 20, ("a", "e"): 9}
    angles = {("b", "c"): 10.0, ("c", "d"): 50.0, ("a", "e"): 80.0}
    assert choose(counts, angles) == {
        ("a", "b"): "most matches", ("c", "d"): "widest angle", ("b", "c"): "typical pair",
        ("d", "e"): "fewest that still hold",
    }  # fmt: skip
    assert choose({("a", "b"): 3}, {}) == {("a", "b"): "most matches"}


@pytest.mark.parametrize(
    ("files", "licence", "where"),
    [
        ({"README.md": "---\nlicense: apache-2.0\n---\n# x"}, "apache-2.0", "its README.md"),
        ({"README.md": "---\nlicense: other\nlicense_name: my-own\n---\n"}, "my-own", "its README.md"),
        ({"README.md": "# license: none of this", "LICENSE": "\n# The Licence\nmore"}, "The Licence", "its LICENSE"),
        ({"README.md": "---\nlicense: [a\n---\n"}, "not stated", ""),
        ({"README.md": "---\n- a\n---\n", "LICENSE": "\n\n"}, "not stated", ""),
        ({}, "not stated", ""),
    ],
)
def test_licence_of_a_folder(tmp_path: Path, files: dict[str, str], licence: str, where: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence_of(str(tmp_path)) == (licence, where)


def test_licences_of_what_was_asked() -> None:
    found = checkpoint_licences({"depth": "embedded", "match": "facebook/VLM3-corr", "pose": "embedded"})
    assert [(row.source, row.tasks, row.licence) for row in found] == [
        ("embedded", ("depth", "pose"), "Apache-2.0"), ("facebook/VLM3-corr", ("match",), "FAIR CC-BY-NC"),
    ]  # fmt: skip
    assert licence_of("/gone") == ("not stated", "")
    assert licence_of("no-such-owner/no-such-checkpoint") == ("not stated", "")  # never fetched: nothing to read
    assert checkpoint_licences({}) == ()


def test_licence_of_a_checkpoint_fetched_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--net"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text("{}")
    (snapshot / "README.md").write_text("---\nlicense: mit\n---\n")
    assert licence_of("owner/net") == ("mit", "its README.md")
    assert licence_of("../net") == ("not stated", "")


def test_checkpoints_are_those_that_the_summary_recorded(tmp_path: Path) -> None:
    mesh = make_report_run(tmp_path, hostile=False)
    path = tmp_path / "mesh-workspace" / "summary.json"
    summary = json.loads(path.read_text())
    assert "did not record its checkpoints" in write_report(mesh).read_text()
    row = {"source": "/gone/net", "tasks": ["depth", "pose"], "licence": "MIT <b>", "stated_in": "its LICENSE"}
    path.write_text(json.dumps(summary | {"checkpoints": [row]}))
    page = write_report(mesh).read_text()
    assert "/gone/net" in page
    assert "depth, pose questions" in page
    assert "MIT &lt;b&gt;" in page
    path.write_text(json.dumps(summary | {"checkpoints": []}))
    assert "No checkpoint was asked." in write_report(mesh).read_text()


@pytest.mark.parametrize(("extent", "step"), [(10, 2), (4, 1), (0.9, 0.2), (1234, 200), (0, 1)])
def test_nice_steps(extent: float, step: float) -> None:
    assert nice_step(extent) == pytest.approx(step)
