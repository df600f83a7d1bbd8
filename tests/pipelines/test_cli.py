"""What the command line says when it is used wrongly: one line, exactly, and the right exit code; never a traceback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.cli import COMMANDS, main, option_names, parse
from pipelines.options import Options
from pipelines.query import Options as QueryOptions
from recon import __version__
from recon.capture.options import CaptureOptions


def say(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code and what stands on stderr."""
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return code, captured.err


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def test_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert say(capsys) == (
        2,
        "error: nothing to do; try `vlm3-recon SCENE --out mesh.ply` or a command: "
        f"{', '.join(COMMANDS)} (or --help)\n",
    )


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert say(capsys, "frobnicate") == (
        2,
        f"error: 'frobnicate' is neither a folder of photos nor a command; accepted commands: {', '.join(COMMANDS)}\n",
    )


def test_unknown_option_names_all_accepted_ones(capsys: pytest.CaptureFixture[str], scene: Path) -> None:
    code, error = say(capsys, scene, "--out", "mesh.ply", "--frobnicate", "3")
    assert code == 2
    assert error.startswith("error: unknown option --frobnicate; accepted: SCENE --out --workspace --known-distance ")
    for name in ("--known-distance", "--depth-model", "--camera-model", "--budget", "--surface.*", "--overwrite"):
        assert f" {name} " in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["query", "train"])
def test_unknown_options_of_commands(capsys: pytest.CaptureFixture[str], command: str) -> None:
    required = ["--out", "x", "--mixture", "y", "--steps", "1"] if command == "train" else ["photo.jpg"]
    code, error = say(capsys, command, *required, "--frobnicate")
    assert code == 2
    assert re.fullmatch(
        rf"error: unknown option --frobnicate; accepted: .*--out.*|error: unknown option --frobnicate; "
        rf"accepted: .*--at .*\(see vlm3-recon {command} --help\)",
        error.strip(),
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--out", "m.ply", "--as", "voxels"], "invalid choice 'voxels' for argument '--as'. Expected one of"),
        ([], "Missing from vlm3-recon: --out PATH"),
        (["--out", "m.ply", "--voxel-m", "fine"], "Error parsing --voxel-m"),
        (["--out", "m.ply", "--known-distance", "a", "b"], "Error parsing --known-distance"),
        (["--out", "m.ply", "more.jpg"], "unexpected argument more.jpg; accepted: SCENE --out"),
    ],
)
def test_wrong_values(capsys: pytest.CaptureFixture[str], scene: Path, arguments: list[str], line: str) -> None:
    code, error = say(capsys, scene, *arguments)
    assert code == 2
    assert error.startswith(f"error: {line}")
    assert error.endswith("(see vlm3-recon --help)\n")
    assert error.count("\n") == 1
    assert not set("│╭╰─") & set(error)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--out", "{tmp}/mesh.xyz"],
            "{tmp}/mesh.xyz: format '.xyz' can't hold a mesh; accepted: .ply .obj .stl .glb",
        ),
        (
            ["--out", "{tmp}/mesh"],
            "{tmp}/mesh: a name without a format can't hold a mesh; accepted: .ply .obj .stl .glb",
        ),
        (
            ["--out", "{tmp}/c.obj", "--as", "cloud"],
            "{tmp}/c.obj: format '.obj' can't hold a cloud; accepted: .ply .pcd",
        ),
        (["--out", "{tmp}/file/m.ply"], "--out {tmp}/file: {tmp}/file is a file, a folder is needed"),
        (["--workspace", "{tmp}/file/w"], "--workspace {tmp}/file/w: {tmp}/file is a file, a folder is needed"),
        (["--voxel-m", "0"], "--voxel-m must be positive, found 0.0"),
        (["--budget", "0"], "--budget must be 1 or more, found 0"),
        (["--known-distance", "a", "b", "-1"], "--known-distance must be a positive number of metres, found -1.0"),
        (["--known-distance", "a", "a", "1"], "--known-distance needs two different photos, found a twice"),
        (
            ["--workspace", "{tmp}/full"],
            "--workspace {tmp}/full: the folder holds other files; give an empty or a new folder",
        ),
        (["--workspace", "{tmp}/photos"], "--workspace {tmp}/photos: is the folder of photos itself; name another"),
        (
            ["--model", "{tmp}/nothing"],
            "{tmp}/nothing: no such folder; accepted: a checkpoint folder, a hub id, or 'embedded'",
        ),
        (["--camera-model", "EYE"], "camera_model 'EYE' is unknown; accepted: SIMPLE_PINHOLE"),
        (["--dialect", "klingon"], "dialect 'klingon' is unknown; accepted: "),
    ],
)
def test_what_cannot_work_is_said_before_any_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, scene: Path, mute_checkpoint: Path, arguments: list[str],
    line: str,
) -> None:  # fmt: skip
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    defaults = {"--out": tmp_path / "m.ply", "--model": mute_checkpoint}
    others = [part for name, value in defaults.items() if name not in given for part in (name, value)]
    code, error = say(capsys, scene, *given, *others)
    assert code == 1
    assert error.startswith("error: " + line.format(tmp=tmp_path))
    assert error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full", "photos"]


def test_a_scene_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, error = say(capsys, tmp_path / "nowhere", "--out", tmp_path / "m.ply")
    accepted = "accepted: a folder of photos or a video file"
    assert (code, error) == (1, f"error: {tmp_path}/nowhere: does not exist; {accepted}\n")


def test_unexpected_errors_keep_the_traceback_in_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, scene: Path
) -> None:
    def broken(self: Options) -> None:
        raise ZeroDivisionError("a defect\nin two lines")

    monkeypatch.setattr(Options, "check", broken)
    code, error = say(capsys, scene, "--out", "m.ply")
    found = re.fullmatch(
        r"error: unexpected ZeroDivisionError: a defect in two lines; details in (\S+vlm3-recon-\w+\.log)\n", error
    )
    assert code == 1
    assert found
    assert "Traceback (most recent call last)" in Path(found[1]).read_text()
    Path(found[1]).unlink()


def test_interruption(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, scene: Path) -> None:
    def interrupted(self: Options) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Options, "check", interrupted)
    assert say(capsys, scene, "--out", "m.ply") == (
        130,
        "interrupted; the same command continues where it stopped\n",
    )


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vlm3-recon {__version__}\n"
    for command in ([], ["query"], ["compare"], ["train"], ["bench"]):
        with pytest.raises(SystemExit) as exit_:
            main([*command, "--help"])
        assert exit_.value.code == 0
        assert "usage: vlm3-recon" in capsys.readouterr().out


def test_defaults_are_those_of_the_rooms() -> None:
    options = parse(Options, "reconstruct", ["photos", "--out", "m.ply"])
    assert options == Options(Path("photos"), Path("m.ply"))
    assert options.capture == CaptureOptions()
    assert options.workspace_folder == Path("m-workspace")


def test_options_reach_the_rooms() -> None:
    line = "photos --out m.glb --voxel-m 0.02 --target-faces 100 --device cpu --focal-px 500 --capture.min-side-px 8"
    options = parse(Options, "reconstruct", [*line.split(), "--surface.multiview.work-px", "99", "-v"])
    surface = options.surface_options
    assert (surface.fuse.voxel_m, surface.fuse.target_faces, surface.device) == (0.02, 100, "cpu")
    assert surface.multiview.work_px == 99
    assert (options.cameras.focal_px, options.capture.min_side_px, options.verbose) == (500.0, 8, True)


def test_listed_options_are_the_ones_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for command, options in {"reconstruct": Options, "query": QueryOptions}.items():
        with pytest.raises(SystemExit):
            parse(options, command, ["--help"])
        text = capsys.readouterr().out
        for name in option_names(options):
            assert name.removesuffix("*") in text or name.isupper()


def test_every_command_exists() -> None:
    for module, options, function in cli.COMMANDS.values():
        loaded = __import__(module, fromlist=[options])
        assert callable(getattr(loaded, function))
