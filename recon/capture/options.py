"""Options of the import step."""

from __future__ import annotations

from dataclasses import dataclass

from recon.errors import BadInputError


@dataclass(frozen=True)
class CaptureOptions:
    """How photos and videos become views.

    Attributes:
        min_side_px: photos with a shorter side are rejected.
        max_megapixels: photos with more pixels are rejected before they are decoded (decompression bombs).
        use_exif: read focal length and GPS from EXIF (the orientation is always applied).
        video_max_frames: at most so many frames are taken from a video.
        video_min_spacing_s: frames of a video are at least about so far apart in time.
        video_max_side_px: frames of a video with a longer side are reduced to it.
    """

    min_side_px: int = 32
    max_megapixels: float = 150.0
    use_exif: bool = True
    video_max_frames: int = 100
    video_min_spacing_s: float = 0.25
    video_max_side_px: int = 1920

    def __post_init__(self) -> None:
        for name in ("min_side_px", "max_megapixels", "video_max_frames", "video_max_side_px"):
            if not getattr(self, name) > 0:
                raise BadInputError(f"{name} must be positive, found {getattr(self, name)}")
        if not self.video_min_spacing_s >= 0:
            raise BadInputError(f"video_min_spacing_s must be 0 or more seconds, found {self.video_min_spacing_s}")
