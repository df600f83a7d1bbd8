"""Open3D, imported where it is needed, with a clear error where the system lacks its libraries."""

from __future__ import annotations

from typing import Any

from recon.errors import ReconError

SYSTEM_LIBRARIES = "libusb-1.0-0 libgl1 libegl1 libgomp1 libx11-6"


def open3d() -> Any:
    """The ``open3d`` module.

    Raises:
        ReconError: Open3D isn't installed or can't load a system library; the message has the command that helps.
    """
    try:
        import open3d as module
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ReconError(
            f"Open3D can't be loaded ({reason}): install it with `pip install open3d` and its system libraries with "
            f"`apt-get install -y {SYSTEM_LIBRARIES}`"
        ) from error
    return module
