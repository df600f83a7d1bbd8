"""Image prefixes and their keys and values: a tree keyed by content, with bounded memory.

A prefix is a chain of segments: chat head and image 1, separator and image 2, the text that all questions share. A
segment's key holds its token ids, its image's content hash and its parent's key, never token ids alone (all images of
a size have the same ids). So a pair starts from its first photo's segment, and what is evicted is rebuilt as it was.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from recon.engine.checkpoint import Checkpoint
from recon.engine.forward import TextRunner
from recon.engine.keyvalues import KeyValues
from recon.types import ImageArray

SegmentKey = tuple[Any, ...]


@dataclass(frozen=True)
class Segment:
    """Token ids, then the tokens of an image if there is one."""

    ids: tuple[int, ...]
    image: ImageArray | None = None
    image_hash: str = ""


@dataclass(frozen=True)
class Prefix:
    """What questions continue: keys and values of all tokens, and the first free position (on all axes)."""

    key_values: KeyValues
    next_position: int


@dataclass(frozen=True)
class ImageFeatures:
    """The vision tower's output: ``embeddings`` [n, H], ``deepstack`` each [n, H], ``grid`` [3] in patches."""

    embeddings: torch.Tensor
    deepstack: tuple[torch.Tensor, ...]
    grid: torch.Tensor

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.embeddings, *self.deepstack))


@dataclass
class _Node:
    key_values: KeyValues
    next_position: int

    @property
    def num_bytes(self) -> int:
        return self.key_values.num_bytes


@dataclass
class PrefixStats:
    """Counts since the cache was made."""

    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    num_images_encoded: int = 0
    num_evicted: int = 0


@dataclass
class PrefixCache:
    """Computes prefixes and keeps segments and image features, least recently used first out, up to ``max_bytes``.

    The prefix in use is never evicted, so memory is at most ``max_bytes`` plus two copies of one prefix.
    """

    checkpoint: Checkpoint
    runner: TextRunner
    max_bytes: int
    stats: PrefixStats = field(default_factory=PrefixStats)

    def __post_init__(self) -> None:
        self._kept: OrderedDict[SegmentKey, _Node | ImageFeatures] = OrderedDict()
        self._joined: tuple[SegmentKey, Prefix] | None = None

    @property
    def num_bytes(self) -> int:
        return sum(entry.num_bytes for entry in self._kept.values())

    def clear(self) -> None:
        """Forgets everything."""
        self._kept.clear()
        self._joined = None

    def get(self, segments: Sequence[Segment]) -> Prefix:
        """The prefix of a chain of segments, computed as far as it is not kept."""
        key: SegmentKey = ()
        keys: list[SegmentKey] = []
        nodes: list[_Node] = []
        for segment in segments:
            key = (key, segment.ids, segment.image_hash)
            keys.append(key)
            node = self._kept.get(key)
            if node is None:
                node = self._compute(segment, nodes)
                self._kept[key] = node
                self.stats.num_computed_tokens += node.key_values.num_tokens
            else:
                self.stats.num_cached_tokens += node.key_values.num_tokens  # type: ignore[union-attr]
            assert isinstance(node, _Node)
            nodes.append(node)
        for used in reversed(keys):  # ancestors end up newest: a tree loses its leaves first
            self._kept.move_to_end(used)
        self._evict(protected=set(keys))
        if self._joined is None or self._joined[0] != key:
            self._joined = None
            joined = KeyValues.concatenate([node.key_values for node in nodes])
            self._joined = (key, Prefix(joined, nodes[-1].next_position))
        return self._joined[1]

    def _evict(self, protected: set[SegmentKey]) -> None:
        excess = self.num_bytes - self.max_bytes
        for key in list(self._kept):
            if excess <= 0:
                return
            if key not in protected:
                excess -= self._kept.pop(key).num_bytes
                self.stats.num_evicted += 1

    def _compute(self, segment: Segment, past: list[_Node]) -> _Node:
        device = self.runner.device
        begin = past[-1].next_position if past else 0
        ids = torch.tensor(segment.ids, dtype=torch.long, device=device)
        hidden = self.runner.embed(ids)
        positions = (begin + torch.arange(len(ids), device=device)).expand(3, -1)
        next_position = begin + len(ids)
        image_mask: torch.Tensor | None = None
        deepstack: tuple[torch.Tensor, ...] = ()
        if segment.image is not None:
            features = self._features(segment)
            hidden = torch.cat([hidden, features.embeddings.to(hidden.dtype)])
            merge = self.checkpoint.model.config.vision_config.spatial_merge_size
            image_positions = self.checkpoint.model.model.get_vision_position_ids(
                next_position, features.grid, 1, merge, device=device
            )
            positions = torch.cat([positions, image_positions], dim=1)
            next_position += int(features.grid[1:].max()) // merge
            image_mask = torch.arange(len(hidden), device=device) >= len(ids)
            deepstack = features.deepstack
        earlier = KeyValues.concatenate([node.key_values for node in past]) if past else self.runner.empty_keys()
        return _Node(self.runner.run_segment(hidden, positions, earlier, image_mask, deepstack), next_position)

    def _features(self, segment: Segment) -> ImageFeatures:
        key: SegmentKey = ("image", segment.image_hash)
        kept = self._kept.get(key)
        if isinstance(kept, ImageFeatures):
            self._kept.move_to_end(key)
            return kept
        assert segment.image is not None
        pixel_values, grid = preprocess(self.checkpoint, segment.image)
        output = self.checkpoint.model.model.get_image_features(
            pixel_values.to(self.runner.device), grid[None].to(self.runner.device), return_dict=True
        )
        features = ImageFeatures(output.pooler_output[0], tuple(level[0] for level in output.deepstack_features), grid)
        self._kept[key] = features
        self.stats.num_images_encoded += 1
        return features


def preprocess(checkpoint: Checkpoint, image: ImageArray) -> tuple[torch.Tensor, torch.Tensor]:
    """The checkpoint's own image processor: patches [n, C * T * P * P] and grid [3] (resizes to multiples of 32)."""
    batch = checkpoint.image_processor(images=[Image.fromarray(image)], return_tensors="pt")
    return batch["pixel_values"], batch["image_grid_thw"][0]


def content_hash(image: ImageArray) -> str:
    """Hex SHA-256 of an image's shape and pixels."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
