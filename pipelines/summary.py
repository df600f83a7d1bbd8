"""What a run did, for people (the console) and for programs (``summary.json``)."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.hardware import hardware
from pipelines.licences import Licence
from pipelines.records import encode
from pipelines.stages import StageReport
from pipelines.workspace import write_text
from recon import __version__
from recon.mapping.georeference import georeference_json
from recon.types import Camera, Capture, MetricScale, Scene

LIBRARIES = ("numpy", "torch", "transformers", "pycolmap", "open3d", "opencv-python-headless", "pillow")


@dataclass
class Summary:
    """Filled as the run goes on; written at its end, also when it fails.

    ``checkpoints`` are those that were asked; ``vertices`` and ``faces`` are the mesh's (points of a cloud count as
    vertices); ``report`` is the report's file.
    """

    source: str
    output: str
    settings: dict[str, Any]
    status: str = "running"
    reason: str = ""
    started: float = field(default_factory=time.time)
    stages: list[StageReport] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    checkpoints: tuple[Licence, ...] = ()
    capture: Capture | None = None
    cameras: Mapping[str, Camera] = field(default_factory=dict)
    scene: Scene | None = None
    vertices: int = 0
    faces: int = 0
    report: str = ""

    @property
    def num_photos(self) -> int:
        """All photos that were given, the unusable ones too."""
        return len(self.capture.views) + len(self.capture.rejected) if self.capture else 0

    @property
    def num_registered(self) -> int:
        return len(self.scene.views) if self.scene else 0

    def photos(self) -> list[dict[str, Any]]:
        """Every photo: registered or not and why not, its focal length and where that comes from, notes."""
        if self.capture is None:
            return []
        registered = {view.name: view for view in self.scene.views} if self.scene else {}
        reasons = {r.name: r.reason for r in self.scene.unregistered} if self.scene else {}
        rows: list[dict[str, Any]] = []
        for view in self.capture.views:
            row: dict[str, Any] = {"name": view.name, "registered": view.name in registered}
            if view.name in registered:
                posed = registered[view.name]
                row |= {"points": len(posed.point_ids), "focal_px": round(posed.camera.focal_px, 2)}
            else:
                row["reason"] = reasons.get(view.name, self.reason or "the run ended before the map was made")
                if view.name in self.cameras:
                    row["focal_px"] = round(self.cameras[view.name].focal_px, 2)
            if view.name in self.cameras:
                row["first_focal_from"] = self.cameras[view.name].focal_source
            rows.append(row | ({"notes": list(view.notes)} if view.notes else {}))
        rows += [{"name": r.name, "registered": False, "reason": r.reason} for r in self.capture.rejected]
        return rows

    def as_json(self) -> dict[str, Any]:
        """The content of ``summary.json``; numbers that are not known are null."""
        return {
            "format": 1,
            "status": self.status,
            **({"reason": self.reason} if self.reason else {}),
            "source": self.source,
            "output": self.output,
            **({"report": self.report} if self.report else {}),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started)),
            "seconds": round(sum(stage.seconds for stage in self.stages), 3),
            "notices": self.notices,
            "photos_given": self.num_photos,
            "photos_registered": self.num_registered,
            "points": len(self.scene.points_world) if self.scene else 0,
            "scale": scale_json(self.scene.scale if self.scene else None),
            "georeference": georeference_json(self.scene) if self.scene else None,
            "mesh": {"vertices": self.vertices, "faces": self.faces},
            "stages": [stage_json(stage) for stage in self.stages],
            "photos": self.photos(),
            "checkpoints": [dataclasses.asdict(checkpoint) for checkpoint in self.checkpoints],
            "settings": self.settings,
            "versions": versions(),
            "hardware": hardware(),
        }

    def write(self, path: Path) -> None:
        """Write ``summary.json`` whole or not at all."""
        write_text(path, json.dumps(known_numbers(self.as_json()), indent=1, ensure_ascii=False) + "\n")

    def text(self) -> str:
        """The summary on the console."""
        lines = [f"photos   {self.num_registered} of {self.num_photos} registered"]
        left_out = [row for row in self.photos() if not row["registered"]]
        lines += [f"         {row['name']}: {row['reason']}" for row in left_out[:10]]
        lines += [f"         ... and {len(left_out) - 10} more in summary.json"] if len(left_out) > 10 else []
        if self.scene is not None:
            lines.append(f"points   {len(self.scene.points_world)}")
            lines.append(f"scale    {scale_text(self.scene.scale)}")
            lines += [f"         {note}" for note in self.scene.scale.notes if self.scene.scale.is_known]
        if self.vertices:
            size = f"{self.vertices} vertices, {self.faces} faces" if self.faces else f"{self.vertices} points"
            lines.append(f"output   {self.output}: {size}")
        if self.report:
            lines.append(f"report   {self.report}")
        lines.append("time     " + "   ".join(_stage_text(stage) for stage in self.stages if stage.status != "skipped"))
        return "\n".join(lines)


def scale_text(scale: MetricScale) -> str:
    """One line: where the metres come from and how sure they are."""
    if not scale.is_known:
        return "; ".join(scale.notes).removeprefix("scale: ") or "unknown"
    low, high = scale.low / scale.metres_per_unit - 1, scale.high / scale.metres_per_unit - 1
    return f"metric, 95 % interval {100 * low:+.1f} % to {100 * high:+.1f} %, from {', '.join(scale.used)}"


def scale_json(scale: MetricScale | None) -> dict[str, Any]:
    if scale is None:
        return {"known": False}
    return {"known": scale.is_known, **encode(scale, [])}


def stage_json(stage: StageReport) -> dict[str, Any]:
    row: dict[str, Any] = {"name": stage.name, "status": stage.status, "seconds": round(stage.seconds, 3)}
    if stage.reason:
        row["reason"] = stage.reason
    if stage.counts:
        row["counts"] = stage.counts
    if stage.rejected:
        row["rejected"] = [{"name": r.name, "reason": r.reason} for r in stage.rejected]
    return row


def versions() -> dict[str, str]:
    """Versions of everything that may change a result."""
    found = {"vlm3-recon": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def known_numbers(value: Any) -> Any:
    """JSON data with NaN and infinities (which JSON does not know) as null."""
    if isinstance(value, dict):
        return {key: known_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [known_numbers(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _stage_text(stage: StageReport) -> str:
    took = f"{stage.seconds:.1f} s" if stage.status in ("done", "resumed") else stage.status
    return f"{stage.name} {took}"
