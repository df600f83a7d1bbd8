"""The wheel holds everything: installed without the repository, the command runs."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

pytestmark = pytest.mark.slow


def run(*line: object, cwd: Path) -> str:
    """Output of a command that must succeed, with nothing of the repository on Python's path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in line], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, REPOSITORY, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_contents(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("recon/types.py", "pipelines/cli.py", "vlm3_kernels/__init__.py", "recon/capture/folder.py"):
        assert name in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"recon", "pipelines", "vlm3_kernels", "vlm3_recon"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    folders = (REPOSITORY / "recon" / "assets", REPOSITORY / "pipelines" / "report" / "assets")
    assets = {path.relative_to(REPOSITORY).as_posix() for folder in folders for path in folder.rglob("*.*")}
    assert assets <= names
    assert "recon/assets/embedded/model.safetensors" in names
    assert wheel.stat().st_size < 20e6


def test_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own that borrows only the dependencies."""
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    (site,) = place.glob("lib/python*/site-packages")
    run(place / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    dependencies = Path(pytest.__file__).resolve().parent.parent
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    command = place / "bin" / "vlm3-recon"
    origin = run(place / "bin" / "python", "-c", "import recon; print(recon.__file__)", cwd=tmp_path)
    assert Path(origin.strip()).is_relative_to(place)
    assert "usage: vlm3-recon" in run(command, "--help", cwd=tmp_path)
    photo = REPOSITORY / "examples" / "room" / "images" / "0000.jpg"
    said = run(command, "query", photo, "--at", "320,240", "--device", "cpu", cwd=tmp_path)
    assert "asked       Depth in metres at x" in said
