"""Small parts shared by the training tests: the project's tokenizer, image steps, a few rendered rooms."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from recon.questions.dialects import get_dialect
from recon.training.mixture import Mixture
from recon.training.mixture_file import parse_mixture
from recon.training.pool import PooledView, pooled_view
from recon.training.texts import tokenizer_texts
from recon.training.tokenizer import build_tokenizer

NUM_ROOMS = 4


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(tokenizer_texts())


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first rooms of the training split, rendered."""
    folder = tmp_path_factory.mktemp("pool")
    form = get_dialect("recon-1").depth
    assert form is not None
    for index in range(NUM_ROOMS):
        pooled_view(folder, "train", index, form.image)
    return folder


@pytest.fixture(scope="session")
def views(pool: Path) -> list[PooledView]:
    form = get_dialect("recon-1").depth
    assert form is not None
    return [pooled_view(pool, "train", index, form.image) for index in range(NUM_ROOMS)]


@pytest.fixture
def mixture(pool: Path) -> Mixture:
    data = {
        "seed": 3,
        "dialect": "recon-1",
        "weights": "explicit",
        "datasets": {
            "few": {"task": "depth", "rooms": NUM_ROOMS, "pool": str(pool), "questions": 4, "weight": 1.0},
            "many": {"task": "depth", "rooms": NUM_ROOMS, "pool": str(pool), "questions": 6, "weight": 3.0},
        },
    }
    return parse_mixture(data, pool, "mixture.yaml")
