"""The live viewer: what it shows, its controls, measuring, and who may connect. The server runs in this process."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("viser", reason='needs the extra "view"')

from pipelines import view
from pipelines.runs import open_run
from pipelines.view import Options, serve, show
from pipelines.viewer import NOTHING, Viewer, depth_points, start_server
from recon.errors import BadInputError
from recon.interop.run import depth_files
from tests.interop.toy import HEIGHT, WIDTH, toy, wall
from tests.pipelines.finished_run import make_run

SCENE = toy()
ANY_PORT = 0


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    mesh = make_run(tmp_path_factory.mktemp("run"))
    viewer = show(open_run(mesh), Options(mesh, port=ANY_PORT))
    yield viewer
    viewer.server.stop()


def node(viewer: Viewer, name: str) -> Any:
    return viewer.server.scene.get_handle_by_name(name)


def test_the_mesh_and_the_cameras_with_their_photos(shown: Viewer) -> None:
    import trimesh

    glb = trimesh.load(io.BytesIO(node(shown, "/mesh").glb_data), file_type="glb", force="mesh")
    assert len(glb.faces) == len(wall().faces)
    np.testing.assert_allclose(np.sort(glb.bounds[:, 2]), [3.5, 4.0], atol=1e-6)  # in the scene's own axes
    for name, pose in SCENE.by_name.items():
        frustum = node(shown, f"/cameras/{name}")
        np.testing.assert_allclose(frustum.position, -pose[:, :3].T @ pose[:, 3], atol=1e-9)
        assert frustum.image.shape == (HEIGHT, WIDTH, 3)
        assert frustum.fov == pytest.approx(2 * np.arctan(HEIGHT / 2 / 50.0))
    assert node(shown, "/points").points.shape == (40, 3)


def test_depth_of_a_photo_above_a_confidence(shown: Viewer, tmp_path: Path) -> None:
    assert node(shown, "/depth") is None
    shown.depth_choice.value = SCENE.names[2]
    shown.show_depth(SCENE.names[2])
    np.testing.assert_allclose(node(shown, "/depth").points[:, 2], 4.0, atol=1e-4)  # every pixel lies on the wall
    assert len(node(shown, "/depth").points) == WIDTH * HEIGHT
    assert shown._depth is not None
    half = np.linspace(0, 1, WIDTH * HEIGHT, dtype=np.float32)
    shown._depth = (shown._depth[0], shown._depth[1], half)
    shown.confidence.value = 0.75
    shown._show_confident()
    assert len(node(shown, "/depth").points) == (half >= 0.75).sum()
    assert shown.depth_text.content.startswith(f"{(half >= 0.75).sum()} of {WIDTH * HEIGHT}")
    shown.show_depth(NOTHING)
    assert node(shown, "/depth") is None


def test_two_clicks_measure(shown: Viewer) -> None:
    shown.measuring.value = True
    shown._measure_or_not()
    shown.click((0.0, 0.0, 9.0), (0.0, 0.0, 1.0))
    assert "nothing is there" in shown.measure_text.content
    shown.click((-2.0, 2.0, 0.0), (0.0, 0.0, 1.0))
    assert shown.measurement is None
    shown.click((2.0, 2.0, 0.0), (0.0, 0.0, 1.0))
    assert shown.measurement is not None
    assert shown.measurement.distance == pytest.approx(4.0)
    assert shown.measure_text.content == "**4 m (95 %: 3.88 to 4.12 m)**"
    assert node(shown, "/measured/line") is not None
    shown.measuring.value = False
    shown._measure_or_not()
    assert node(shown, "/measured/line") is None


def websocket_status(port: int, origin: str | None) -> int:
    """The answer to a browser's opening of a WebSocket from a page of ``origin``."""
    import viser

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": f"viser-v{viser.__version__}",
    } | ({"Origin": origin} if origin else {})  # fmt: skip
    connection.request("GET", "/", headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_only_this_machine_and_its_own_page_may_connect(shown: Viewer) -> None:
    port = shown.server.get_port()
    assert shown.server.get_host() == "127.0.0.1"
    assert listening_addresses(port) == {"127.0.0.1"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert answer.status == 200
    assert b"<html" in answer.read().lower()
    assert websocket_status(port, f"http://127.0.0.1:{port}") == 101
    assert websocket_status(port, f"http://localhost:{port}") == 101
    for stranger in (
        "https://example.org",
        f"http://example.org:{port}",
        f"http://127.0.0.1.example.org:{port}",
        "null",
    ):
        assert websocket_status(port, stranger) == 403, stranger


def listening_addresses(port: int) -> set[str]:
    """Addresses of this machine on which something listens on a port, as the kernel has them."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines():
            match = re.match(r"\s*\d+: ([0-9A-F]+):([0-9A-F]{4}) \S+ 0A ", line)  # 0A: listening
            if match and int(match[2], 16) == port:
                raw = match[1]
                found.add(socket.inet_ntoa(struct.pack("<I", int(raw, 16))) if len(raw) == 8 else f"IPv6 {raw}")
    return found


def test_no_tunnel_to_the_internet_is_opened(shown: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    import viser._viser

    def opened(*args: object, **kwargs: object) -> None:
        raise AssertionError("a tunnel was opened")

    monkeypatch.setattr(viser._viser, "ViserTunnel", opened)
    assert shown.server.request_share_url() is None


def test_a_run_without_its_mesh_shows_the_maps_points(tmp_path: Path) -> None:
    mesh = make_run(tmp_path, metric=False, depth=False)
    mesh.unlink()
    viewer = show(open_run(tmp_path / "mesh-workspace"), Options(mesh, port=ANY_PORT))
    try:
        assert node(viewer, "/mesh") is None
        assert node(viewer, "/points").visible
        target = viewer.scene.points_world[7]
        viewer.click(target - [0, 0, 2.0], (0.0, 0.0, 1.0))
        np.testing.assert_array_equal(viewer.first_click, target)
        viewer.click(viewer.scene.points_world[8] - [0, 0, 2.0], (0.0, 0.0, 1.0))
        assert "the scale is unknown" in viewer.measure_text.content
    finally:
        viewer.server.stop()


def test_the_command_says_where_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mesh = make_run(tmp_path)

    def interrupted() -> None:
        raise KeyboardInterrupt

    serve(open_run(mesh), Options(mesh, port=ANY_PORT), wait=interrupted)
    said = capsys.readouterr().out
    assert re.search(r"at http://127\.0\.0\.1:\d+; Ctrl\+C ends", said)
    assert "ended" in said


def test_a_taken_port_gives_the_next_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = start_server(taken.getsockname()[1], "x")
        try:
            assert server.get_port() != taken.getsockname()[1]
        finally:
            server.stop()


def test_damage_is_named(tmp_path: Path) -> None:
    mesh = make_run(tmp_path)
    file = next(iter(depth_files(tmp_path / "mesh-workspace").values()))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BadInputError, match=re.escape(str(file))):
        depth_points(file)
    text = mesh.read_bytes()
    mesh.write_bytes(text[:-4] + struct.pack("<i", 1 << 30))  # a corner that is not there
    with pytest.raises(BadInputError, match=r"mesh\.ply: damaged"):
        show(open_run(mesh), Options(mesh, port=ANY_PORT))
    with pytest.raises(BadInputError, match="--port must be between 0 and 65535, found 70000"):
        view.run(Options(mesh, port=70000))
    with pytest.raises(BadInputError, match="--max-faces must be between"):
        view.run(Options(mesh, max_faces=1))
    with pytest.raises(BadInputError, match="does not exist"):
        view.run(Options(tmp_path / "absent"))
    assert json.loads((tmp_path / "mesh-workspace" / "summary.json").read_text())["status"] == "done"
