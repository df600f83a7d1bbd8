"""Questions about regions: entries of SpatialRGPT-Bench (Cheng et al., NeurIPS 2024).

The layout is what github.com/AnjieCheng/SpatialRGPT evaluates (``llava/eval/eval_spatial.py``): a JSON list, or JSON
lines, of::

    {"id": "...", "image_info": {"file_path": "a.jpg", "height": 480, "width": 640}, "bbox": [[x1, y1, x2, y2], ...],
     "conversations": [{"from": "human", "value": "Is <mask> above <mask>?"}, {"from": "gpt", "value": "Yes, ..."}],
     "qa_info": {"type": "qualitative", "category": "above_predicate"}}

Boxes are pixels of the photo, clamped to it as the benchmark's own reader does; ``rle`` masks are not used. ``image``
may stand for ``image_info.file_path``. ``intrinsics`` (as in depth files) gives the camera; without it the focal length
is a guess (1.2 times the longer side).
"""

from __future__ import annotations

import itertools
import re
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from recon.cameras.intrinsics import PRIOR_FOCAL_FACTOR, centred_camera
from recon.interop.datasets.lines import BadLineError, camera, name, numbers, photo, required, text
from recon.interop.datasets.reading import Reading, read_items
from recon.interop.datasets.records import ObjectItem, image_size
from recon.types import Camera

_MOST_REGIONS = 64


def read_object_file(path: Path, images: Path | None = None, strict: bool = False) -> Reading[ObjectItem]:
    """The entries of a file.

    Args:
        path: JSON list or lines.
        images: the folder that image names are relative to; None: the file's.
        strict: stop at the first entry that can't be used.

    Raises:
        BadInputError: see :func:`recon.interop.datasets.reading.read_items`.
    """
    return read_items(path, partial(_item, root=images or path.parent), strict)


def _item(entry: dict[str, Any], line: int, root: Path) -> ObjectItem:
    info = entry.get("image_info")
    if isinstance(info, dict) and "image" not in entry:
        entry = {**entry, "image": required(info, "file_path")}
    photo_name, path = photo(entry, "image", root)
    of = _camera(entry, path)
    qa = required(entry, "qa_info")
    if not isinstance(qa, dict):
        raise BadLineError("qa_info is not an object; accepted: type and category")
    kind, category = name(qa, "type"), name(qa, "category")
    if kind not in ("qualitative", "quantitative"):
        raise BadLineError(f"qa_info.type is {kind[:40]!r}; accepted: qualitative, quantitative")
    boxes = _boxes(required(entry, "bbox"), of)
    return ObjectItem(
        name=photo_name,
        image=path,
        camera=of,
        boxes=boxes,
        turns=_turns(required(entry, "conversations"), len(boxes)),
        kind=cast(Literal["qualitative", "quantitative"], kind),
        category=category,
        line=line,
    )


def _camera(entry: dict[str, Any], path: Path) -> Camera:
    if "intrinsics" in entry or "camera" in entry:
        return camera(entry, "", path)
    width, height = image_size(path)
    return centred_camera("PINHOLE", width, height, PRIOR_FOCAL_FACTOR * max(width, height), "prior")


def _boxes(value: Any, of: Camera) -> tuple[tuple[float, float, float, float], ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_REGIONS:
        raise BadLineError(f"bbox is {str(value)[:40]}; accepted: a list of 1 to {_MOST_REGIONS} boxes")
    boxes = []
    for index, box in enumerate(value):
        x1, y1, x2, y2 = numbers(box, f"bbox[{index}]", 4).tolist()
        left, top = max(x1, 0.0), max(y1, 0.0)
        right, bottom = min(x2, float(of.width_px)), min(y2, float(of.height_px))
        if left >= right or top >= bottom:
            raise BadLineError(f"bbox[{index}] {box} is empty or outside a {of.width_px}x{of.height_px} photo")
        boxes.append((left, top, right, bottom))
    return tuple(boxes)


def _turns(value: Any, num_boxes: int) -> tuple[tuple[str, str], ...]:
    """(question, label) of the conversation. ``<image>`` is dropped; the masks of all questions, in order, are the
    boxes, and are written ``Region [k]``."""
    if not isinstance(value, list) or len(value) < 2 or len(value) % 2:
        raise BadLineError("conversations is not a list of questions and answers in turn")
    turns = []
    masks = itertools.count()
    for index in range(0, len(value), 2):
        said = value[index : index + 2]
        if not all(isinstance(part, dict) for part in said) or [part.get("from") for part in said] != ["human", "gpt"]:
            raise BadLineError(f"conversations[{index}] is not a question of human answered by gpt")
        question, answer = (text(part, "value").replace("<image>", "").strip() for part in said)
        question = re.sub("<mask>", lambda _: f"Region [{next(masks)}]", question)
        named = [int(number) for number in re.findall(r"Region \[(\d{1,4})\]", question)]
        if not question or any(number >= num_boxes for number in named):
            raise BadLineError(f"conversations[{index}] names regions {named}; accepted: 0 to {num_boxes - 1}")
        turns.append((question, answer))
    return tuple(turns)
