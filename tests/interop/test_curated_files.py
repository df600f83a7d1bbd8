"""Curated files: what they hold, every way in which a line can be bad, and writing them back."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.errors import BadInputError
from recon.interop.datasets.depth_file import depth_row, read_depth_file
from recon.interop.datasets.ground_truth_pairs import read_ground_truth_pairs
from recon.interop.datasets.object_file import read_object_file
from recon.interop.datasets.pair_file import pair_row, read_pair_file
from recon.interop.datasets.records import DepthItem, PairItem, load_pixels
from recon.types import Camera
from tests.interop.curated import HEIGHT, WIDTH, photo

INTRINSICS = [60.0, 61.0, 31.5, 23.5, WIDTH, HEIGHT]
GOOD = {"image": "a.png", "intrinsics": INTRINSICS, "pixel_coords": [[0, 0], [63, 47]], "depth": [1.5, 2.5]}


def _file(folder: Path, *rows: object, name: str = "labels.jsonl") -> Path:
    photo(folder / "a.png")
    photo(folder / "b.png", seed=1)
    path = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_depth_lines_are_read_with_pixel_centres_and_kept_points(tmp_path: Path) -> None:
    marked = {**GOOD, "image": "/b.png", "pixel_coords": [[-1, -1], [5, 6]], "depth": [0.0, 2.0], "depth_kind": "ray"}
    reading = read_depth_file(_file(tmp_path, GOOD, "", marked), strict=True)
    first, second = reading.items
    np.testing.assert_array_equal(first.pixels, [[0.5, 0.5], [63.5, 47.5]])
    assert first.camera == Camera.pinhole(WIDTH, HEIGHT, 60.0, 61.0, 32.0, 24.0)
    assert (first.depth_kind, second.depth_kind) == ("z", "ray")
    assert (first.line, second.line) == (1, 3)
    np.testing.assert_array_equal(second.pixels, [[5.5, 6.5]])  # the marked point has no label
    assert second.image == tmp_path / "b.png"
    assert load_pixels(first.image, first.camera).shape == (HEIGHT, WIDTH, 3)


BAD_DEPTH: list[tuple[Any, str]] = [
    ("{broken", "not readable as JSON"),
    ("[1, 2]x", "not readable as JSON"),
    (3, "holds a int"),
    ({**GOOD, "image": "missing.png"}, "'missing.png' is missing"),
    ({**GOOD, "image": "../secret.png"}, "leads out of"),
    ({**GOOD, "image": "x/../../secret.png"}, "leads out of"),
    ({**GOOD, "image": 7}, "image is '7'"),
    ({**GOOD, "image": "a\x1b[2J.png"}, "can't be printed"),
    ({key: value for key, value in GOOD.items() if key != "depth"}, "has no 'depth'"),
    ({**GOOD, "depth": [1.0]}, "2 and 1; accepted: equal lengths"),
    ({**GOOD, "depth": "1.0"}, "equal lengths"),
    (json.dumps({**GOOD, "depth": [1.0, float("nan")]}), r"depth\[1\] is nan"),
    (json.dumps({**GOOD, "depth": [float("inf"), 1.0]}), r"depth\[0\] is inf"),
    ({**GOOD, "depth": [1.0, 10**400]}, r"depth\[1\] is 1000"),
    ({**GOOD, "depth": [1.0, -2.0]}, r"depth\[1\] is -2"),
    ({**GOOD, "depth": [0.0, 1.0]}, r"depth\[0\] is 0"),
    ({**GOOD, "depth": [True, 1.0]}, r"depth\[0\] is True"),
    ({**GOOD, "pixel_coords": [[0, 0], [64, 47]]}, "64, 47, outside the photo"),
    ({**GOOD, "pixel_coords": [[0, 0], [3, -2]]}, "3, -2, outside the photo"),
    ({**GOOD, "pixel_coords": [[0, 0], [3]]}, r"pixel_coords\[1\] is 1 values"),
    ({**GOOD, "pixel_coords": [[0, 0], None]}, "null"),
    ({**GOOD, "pixel_coords": [[-1, -1]], "depth": [1.0]}, "no labelled point"),
    ({**GOOD, "intrinsics": [60.0, 61.0]}, "intrinsics is"),
    ({**GOOD, "intrinsics": [0.0, 61.0, 31.5, 23.5]}, "positive focal lengths"),
    ({**GOOD, "intrinsics": [60.0, 61.0, 9999.0, 23.5, WIDTH, HEIGHT]}, "far outside"),
    ({**GOOD, "depth_kind": "disparity"}, "accepted: z, ray"),
    ({**GOOD, "camera": {"model": "MAGIC", "width": 64, "height": 48, "params": []}}, "MAGIC"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_DEPTH, ids=[str(k) for k in range(len(BAD_DEPTH))])
def test_a_bad_depth_line_is_left_out_with_its_number_or_stops(tmp_path: Path, bad: Any, reason: str) -> None:
    path = _file(tmp_path, GOOD, bad, GOOD)
    reading = read_depth_file(path)
    assert [item.line for item in reading.items] == [1, 3]
    assert [fault.line for fault in reading.faults] == [2]
    with pytest.raises(BadInputError, match=f"labels.jsonl line 2: .*{reason}.*without --strict"):
        read_depth_file(path, strict=True)
    assert "1 line left out (line 2: " in reading.faults_in_words()


def test_a_file_with_nothing_usable_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="2 lines left out"):
        read_depth_file(_file(tmp_path, "{", "{"))
    with pytest.raises(BadInputError, match="holds no line"):
        read_depth_file(_file(tmp_path, ""))
    with pytest.raises(BadInputError, match="can't be read"):
        read_depth_file(tmp_path / "none.jsonl")
    with pytest.raises(BadInputError, match="not readable as a JSON list"):
        read_depth_file(_file(tmp_path, "[{]"))


def test_json_lists_and_labels_in_a_sub_folder_are_read_too(tmp_path: Path) -> None:
    assert len(read_depth_file(_file(tmp_path, json.dumps([GOOD, GOOD]))).items) == 2
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt" / "labels.jsonl").write_text(json.dumps(GOOD) + "\n", encoding="utf-8")
    assert read_depth_file(tmp_path / "gt" / "labels.jsonl").items[0].image == tmp_path / "a.png"


def test_a_photo_of_another_size_or_damaged_is_told_when_it_is_loaded(tmp_path: Path) -> None:
    other = {**GOOD, "intrinsics": [*INTRINSICS[:4], 32, 24], "pixel_coords": [[1, 1]], "depth": [1.0]}
    item = read_depth_file(_file(tmp_path, other)).items[0]
    with pytest.raises(BadInputError, match="is 64x48, its labels are for 32x24"):
        load_pixels(item.image, item.camera)
    item.image.write_bytes(b"no photo")
    with pytest.raises(BadInputError, match="not a readable photo"):
        load_pixels(item.image, item.camera)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    points=st.lists(st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1)), min_size=1, max_size=5),
    depth=st.floats(0.01, 200),
    bends=st.booleans(),
)
def test_depth_rows_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[int, int]], depth: float, bends: bool
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    params = (60.0, 61.0, 32.0, 24.0, 0.1, 0.0, 0.0, 0.0)
    camera = Camera("OPENCV", WIDTH, HEIGHT, params, "given") if bends else Camera.pinhole(WIDTH, HEIGHT, *params[:4])
    pixels = np.array(points, np.float64) + 0.5
    item = DepthItem("a.png", folder / "a.png", camera, pixels, np.full(len(points), round(depth, 4)), "ray", 1)
    again = read_depth_file(_file(folder, depth_row(item)), strict=True).items[0]
    assert (again.camera, again.name, again.depth_kind) == (camera, "a.png", "ray")
    np.testing.assert_allclose(again.pixels, pixels)
    np.testing.assert_allclose(again.depth_m, item.depth_m)


# ---------------------------------------------------------------------------------------------------------------------
# pairs

TURN = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
POSE = np.column_stack([TURN, [1.0, 0.5, 2.0]]).tolist()
PAIR: dict[str, Any] = {
    "image1": "a.png", "image2": "b.png", "intrinsics1": INTRINSICS, "intrinsics2": INTRINSICS,
    "pixels1": [[1, 2], [3.5, 4]], "pixels2": [[5, 6], None], "cam1_from_cam2": POSE, "metric": True, "scene": "s",
}  # fmt: skip


def test_pairs_are_read_and_written_back(tmp_path: Path) -> None:
    item = read_pair_file(_file(tmp_path, PAIR), strict=True).items[0]
    np.testing.assert_array_equal(item.pixels1, [[1.5, 2.5], [4.0, 4.5]])
    np.testing.assert_array_equal(item.pixels2, [[5.5, 6.5], [np.nan, np.nan]])
    assert item.cam1_from_cam2 is not None
    np.testing.assert_allclose(item.cam1_from_cam2, POSE)
    again = read_pair_file(_file(tmp_path, pair_row(item)), strict=True).items[0]
    assert isinstance(again, PairItem)
    np.testing.assert_array_equal(again.pixels2, item.pixels2)
    assert (again.scene, again.is_metric) == ("s", True)
    only_pose = {key: value for key, value in PAIR.items() if not key.startswith("pixels")}
    assert len(read_pair_file(_file(tmp_path, only_pose), strict=True).items[0].pixels1) == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pixels2": None}, "pixels2 is NoneType"),
        ({"pixels2": [[5, 6]]}, "2 and 1; accepted: equal lengths"),
        ({"pixels1": [None, [1, 1]]}, "pixels1 holds null"),
        ({"cam1_from_cam2": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0]]}, "not rotations"),
        ({"cam1_from_cam2": [[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]}, "not rotations"),
        ({"cam1_from_cam2": [1, 2]}, "not a matrix"),
        ({"metric": "yes"}, "accepted: true, false"),
        ({"image2": "c.png"}, "missing"),
    ],
)
def test_a_bad_pair_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        read_pair_file(_file(tmp_path, {**PAIR, **change}), strict=True)


def test_ground_truth_pairs_are_turned_into_our_convention(tmp_path: Path) -> None:
    about = {"file": "a.png", "width": WIDTH, "height": HEIGHT, "fx": 60.0, "fy": 61.0, "cx": 31.5, "cy": 23.5}
    pair = {"image0": about, "image1": {**about, "file": "b.png"}, "R_01": TURN.tolist(), "t_01": [1.0, 2.0, 3.0]}
    (tmp_path / "gt").mkdir()
    _file(tmp_path, "")
    path = tmp_path / "gt" / "pairs.json"
    path.write_text(json.dumps({"metric": True, "pairs": [pair, {**pair, "R_01": [[1, 0, 0]]}]}), encoding="utf-8")
    reading = read_ground_truth_pairs(path)
    item = reading.items[0]
    assert item.cam1_from_cam2 is not None
    point2 = np.array([0.3, -0.2, 1.5])  # x_cam1 = R_01 x_cam0 + t_01, their cameras 0 and 1 are our 1 and 2
    point1 = item.cam1_from_cam2 @ np.append(point2, 1.0)
    np.testing.assert_allclose(TURN @ point1 + [1.0, 2.0, 3.0], point2, atol=1e-12)
    assert [fault.line for fault in reading.faults] == [2]
    with pytest.raises(BadInputError, match="pair 2"):
        read_ground_truth_pairs(path, strict=True)


# ---------------------------------------------------------------------------------------------------------------------
# objects

ENTRY: dict[str, Any] = {
    "id": "1", "image_info": {"file_path": "a.png", "height": HEIGHT, "width": WIDTH},
    "bbox": [[-3, 0, 20, 20], [10, 10, 90, 40]],
    "conversations": [{"from": "human", "value": "<image>\n Is <mask> above <mask>?"},
                      {"from": "gpt", "value": "No, Region [0] is below."}],
    "qa_info": {"type": "qualitative", "category": "above_predicate"},
}  # fmt: skip


def test_object_entries_are_read_with_clamped_boxes(tmp_path: Path) -> None:
    item = read_object_file(_file(tmp_path, json.dumps([ENTRY]), name="object.json"), strict=True).items[0]
    assert item.boxes == ((0.0, 0.0, 20.0, 20.0), (10.0, 10.0, 64.0, 40.0))
    assert item.turns == (("Is Region [0] above Region [1]?", "No, Region [0] is below."),)
    assert item.camera.focal_source == "prior"
    with_camera = {**ENTRY, "intrinsics": INTRINSICS}
    assert read_object_file(_file(tmp_path, with_camera), strict=True).items[0].camera.focal_px > 60


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [[70, 0, 90, 10]]}, "empty or outside"),
        ({"bbox": []}, "accepted: a list of 1"),
        ({"bbox": [[0, 0, 20, 20]]}, "names regions"),
        ({"qa_info": {"type": "poetic", "category": "x"}}, "qualitative, quantitative"),
        ({"conversations": ENTRY["conversations"][:1]}, "in turn"),
        ({"conversations": ENTRY["conversations"][::-1]}, "question of human"),
        ({"image_info": {"file_path": "../a.png"}}, "leads out"),
    ],
)
def test_a_bad_object_entry_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        read_object_file(_file(tmp_path, {**ENTRY, **change}), strict=True)


@settings(deadline=None, max_examples=80, derandomize=True)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(list(PAIR)), inner, max_size=4),
        max_leaves=8,
    ),
    key=st.sampled_from([*GOOD, *PAIR, *ENTRY]),
)
def test_any_json_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, value: Any, key: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    for base, read in ((GOOD, read_depth_file), (PAIR, read_pair_file), (ENTRY, read_object_file)):
        path = _file(folder, {**base, key: value})
        message = ""
        try:
            read(path)
        except BadInputError as error:
            message = str(error)
        assert "\n" not in message


# ---------------------------------------------------------------------------------------------------------------------
# long files


def test_labels_stay_in_the_file_until_they_are_asked_for(tmp_path: Path) -> None:
    """Memory grows by offsets alone: 16 bytes a line, however long the lines are."""
    long = {**GOOD, "pixel_coords": [[k % WIDTH, k % HEIGHT] for k in range(300)], "depth": [2.0] * 300}
    path = _file(tmp_path, *([long] * 60))
    read_depth_file(path)  # whatever is made once is made
    tracemalloc.start()
    try:
        reading = read_depth_file(path)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    one = reading.items[0].pixels.nbytes + reading.items[0].depth_m.nbytes
    assert one == 300 * 24
    assert kept < 60 * 16 + 12_000  # all labels would be 432 000
    again = pickle.loads(pickle.dumps(reading))  # loader processes may be spawned
    assert [item.line for item in again.items[57:]] == [58, 59, 60]


def test_lines_keep_their_numbers_behind_empty_bad_and_endless_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recon.interop.datasets.reading._MAX_LINE_BYTES", 400)
    endless = json.dumps({**GOOD, "note": "x" * 1500})
    reading = read_depth_file(_file(tmp_path, "", GOOD, endless, "{", {**GOOD, "image": "b.png"}))
    assert [item.line for item in reading.items] == [2, 5]
    assert reading.items[1].image == tmp_path / "b.png"
    assert reading.items[-1].line == 5
    assert [fault.line for fault in reading.faults] == [3, 4]
    assert "more than" in reading.faults[0].reason
    with pytest.raises(IndexError):
        reading.items[2]


def test_a_line_that_was_changed_after_the_check_is_named(tmp_path: Path) -> None:
    path = _file(tmp_path, GOOD, {**GOOD, "image": "b.png"}, GOOD)
    reading = read_depth_file(path)
    (tmp_path / "b.png").unlink()
    with pytest.raises(BadInputError, match=r"labels.jsonl line 2: image 'b.png' is missing"):
        reading.items[1]
    path.write_text("{}")
    with pytest.raises(BadInputError, match=r"labels.jsonl line 3: was changed after it had been checked"):
        reading.items[2]
    path.unlink()
    with pytest.raises(BadInputError, match="line 1: was changed"):
        reading.items[0]


def test_more_faults_than_are_kept_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recon.interop.datasets.reading.MOST_FAULTS", 7)
    reading = read_depth_file(_file(tmp_path, *(["{"] * 30), GOOD))
    assert (len(reading.faults), reading.num_faults, len(reading.items)) == (7, 30, 1)
    assert "30 lines left out" in reading.faults_in_words()
    assert "and 25 more" in reading.faults_in_words()


def test_pairs_without_labels_for_a_task_are_no_faults(tmp_path: Path) -> None:
    only_pose = {key: value for key, value in PAIR.items() if not key.startswith("pixels")}
    path = _file(tmp_path, only_pose, PAIR, only_pose)
    matches = read_pair_file(path, task="match")
    assert ([item.line for item in matches.items], matches.num_others, matches.num_faults) == ([2], 2, 0)
    assert len(read_pair_file(path, task="pose").items) == 3
    with pytest.raises(BadInputError, match="its 1 pairs have no labels for match"):
        read_pair_file(_file(tmp_path, only_pose), task="match")
