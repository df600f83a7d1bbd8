"""How alike photos look, by the keypoints that are in the database: which of many are worth comparing.

Vectors of locally aggregated descriptors (VLAD, Jegou et al. 2010) over words of the capture's own keypoints, square
roots of SIFT (Arandjelovic and Zisserman 2012), every word's part normalised by itself (2013). No vocabulary trained on
other pictures is needed: a capture is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from recon.evidence.features import read_descriptors

_WORDS = 64
_LEARNED_FROM = 300  # keypoints of each photo
_LEARNED_FROM_ALL = 100_000
_DESCRIBED_BY = 3000  # keypoints of each photo
_ROUNDS = 10


def photo_looks(database_path: Path, names: Sequence[str]) -> NDArray[np.float32]:
    """One vector of length 1 per photo, ``[N, D]``; the cosine of two says how alike they look. Zeros where a photo has
    no keypoints. The same database gives the same vectors.
    """
    each = max(1, min(_LEARNED_FROM, _LEARNED_FROM_ALL // max(len(names), 1)))
    words = _words(_root_sift(np.concatenate(list(read_descriptors(database_path, names, each)))))
    described_by = read_descriptors(database_path, names, _DESCRIBED_BY)
    looks = np.stack([_aggregated(_root_sift(descriptors), words) for descriptors in described_by])
    described = np.linalg.norm(looks, axis=1) > 0
    if described.any():
        looks[described] -= looks[described].mean(axis=0)  # what all photos share tells none from the others
    return looks / np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-9)


def _root_sift(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Descriptors [N, 128] as square roots of their shares."""
    shares = descriptors.astype(np.float32)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1.0)
    return np.sqrt(shares)


def _words(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centres [K, 128] of the descriptors [N, 128]; as many as there are where they are few."""
    if len(descriptors) <= _WORDS:
        return descriptors
    centres, _ = kmeans2(descriptors, _WORDS, iter=_ROUNDS, minit="points", missing="warn", seed=0)
    return np.asarray(centres, np.float32)


def _aggregated(descriptors: NDArray[np.float32], words: NDArray[np.float32]) -> NDArray[np.float32]:
    """What remains of descriptors [N, 128] beside their nearest word, summed per word and normalised: [K * 128]."""
    sums = np.zeros_like(words)
    if len(descriptors):
        nearest = (descriptors @ words.T - 0.5 * (words**2).sum(axis=1)).argmax(axis=1)
        np.add.at(sums, nearest, descriptors - words[nearest])
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    flat: NDArray[np.float32] = sums.ravel()
    return flat / max(float(np.linalg.norm(flat)), 1e-9)
