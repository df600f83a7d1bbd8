"""The one exception family of the project: every message is a line a user can act on."""

from __future__ import annotations


class ReconError(Exception):
    """A failure the user can do something about.

    The message names the file or the option, what was found, what is accepted and what to do, on one line. The
    command line prints it and exits with 1; a library caller catches it.
    """


class BadInputError(ReconError):
    """A file or an option given by the user can't be used."""


class CheckpointError(ReconError):
    """A checkpoint is missing, damaged, or not of the Qwen3-VL architecture."""


class DeviceMemoryError(ReconError):
    """The device's memory does not hold what is asked of it, however small the portions."""


class MappingError(ReconError):
    """No camera geometry could be recovered from the evidence."""


class SurfaceError(ReconError):
    """No surface could be made from the depth that is there."""


class OutputError(ReconError):
    """An output can't be written (read-only folder, full disk, unknown format)."""
