"""How the camera moved, taught beside the answers: of the right tokens, by the right numbers, and gone afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from recon.errors import BadInputError
from recon.questions.dialects import get_dialect
from recon.training.attention import use_packed_attention
from recon.training.dense_pairs import motion_of
from recon.training.encode import Encoder, collate
from recon.training.init import new_model
from recon.training.mixture_file import parse_mixture
from recon.training.motion_lessons import MotionLessons
from recon.training.pool import pooled_pair
from recon.training.samples import pose_sample
from recon.training.sft import train
from recon.training.sft_settings import SftSettings
from recon.training.shape import ModelSize
from recon.training.tokenizer import build_image_processor

_SIZE = ModelSize(
    text_hidden=192, text_heads=6, text_kv_heads=3, text_mlp=64, vision_layers=1, vision_hidden=96, vision_heads=3,
    vision_mlp=96, deepstack=(),
)  # fmt: skip


def _mixture(folder: Path) -> dict[str, Any]:
    return {"datasets": {"moves": {"task": "pose", "rooms": 2, "pool": str(folder), "motion": True}}}


@pytest.fixture(scope="module")
def pairs_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moves")
    form = get_dialect("recon-1").pose
    assert form is not None
    for index in range(2):
        pooled_pair(folder, "train", index, form.image)
    return folder


def test_the_second_images_tokens_are_averaged(tokenizer: PreTrainedTokenizerFast, pairs_pool: Path) -> None:
    model = new_model(_SIZE, tokenizer, seed=0)
    encoder, dialect = Encoder(tokenizer, build_image_processor(), model.config.image_token_id), get_dialect("recon-1")
    form = dialect.pose
    assert form is not None
    pairs = [pooled_pair(pairs_pool, "train", index, form.image) for index in range(2)]
    samples = [pose_sample(pairs[0], dialect), pose_sample(pairs[1], dialect, with_motion=True)]
    batch = collate([encoder.encode(sample) for sample in samples], int(tokenizer.pad_token_id))
    motion = batch.pop("motion")
    assert motion["rows"].tolist() == [1]
    assert motion["targets"][0].tolist() == pytest.approx(motion_of(pairs[1].cam1_from_cam2).tolist())
    ids = batch["input_ids"][1]
    image = (ids == model.config.image_token_id).nonzero().flatten()
    grids = batch["image_grid_thw"][2:]  # of the second row's two images
    count = int(grids[1].prod()) // 4
    assert motion["second"][0].nonzero().flatten().tolist() == image[-count:].tolist()

    lessons = MotionLessons(model)
    with torch.no_grad():
        model.motion_reading.weight.normal_(0.0, 0.1)
    use_packed_attention(model)
    del batch["labels"], batch["datasets"], batch["skipped"]
    seen: dict[str, torch.Tensor] = {}
    handle = model.model.language_model.layers[3].register_forward_pre_hook(
        lambda module, arguments: seen.update(x=arguments[0])
    )
    with torch.no_grad():
        model(**batch, use_cache=False, logits_to_keep=1)
    handle.remove()
    tokens = seen["x"][1, image[-count:]]
    mean = (tokens / tokens.pow(2).mean(dim=1, keepdim=True).sqrt()).mean(dim=0)
    error = (model.motion_reading(mean) - motion["targets"][0]).abs()
    expected = torch.where(error < 0.2, error**2 / 0.4, error - 0.1).sum()
    assert float(lessons.loss(motion).detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    optimiser = torch.optim.Adam(model.motion_reading.parameters(), lr=0.02)
    for _ in range(40):
        optimiser.zero_grad()
        lessons.loss(motion).backward()
        optimiser.step()
    assert float(lessons.loss(motion).detach()) < 0.2 * float(expected.detach())
    lessons.close()
    assert not hasattr(model, "motion_reading")


def test_a_run_with_motion_lessons_continues_to_the_same_loss(
    tokenizer: PreTrainedTokenizerFast, pairs_pool: Path, tmp_path: Path
) -> None:
    mixture = parse_mixture(_mixture(pairs_pool), tmp_path, "m")
    settings = SftSettings(steps=4, batch=2, learning_rate=1e-3, warmup=1, decay=1, log_every=2, save_every=2)
    model = new_model(_SIZE, tokenizer, seed=0)
    log = train(model, tokenizer, build_image_processor(), mixture, tmp_path / "run", settings)
    losses = [entry["loss/motion"] for entry in log]
    assert np.isfinite(losses).all()
    again = new_model(_SIZE, tokenizer, seed=0)
    last = sorted((tmp_path / "run").glob("checkpoint-*"))[-1]
    for path in sorted(last.glob("*"), reverse=True):
        path.unlink()
    last.rmdir()  # as if killed before it
    other = train(again, tokenizer, build_image_processor(), mixture, tmp_path / "run", settings, resume=True)
    assert other[-1]["loss/motion"] == pytest.approx(losses[-1], rel=1e-4)


def test_models_without_matching_are_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    mixture = parse_mixture(_mixture(tmp_path), tmp_path, "m")
    model = new_model(ModelSize(vision_layers=1, deepstack=()), tokenizer, seed=0)
    with pytest.raises(BadInputError, match="motion: true"):
        train(model, tokenizer, build_image_processor(), mixture, tmp_path / "run", SftSettings(steps=1))
    wrong = {"datasets": {"d": {"task": "match", "rooms": 1, "pool": "p", "motion": True}}}
    with pytest.raises(BadInputError, match="motion: it is for pose"):
        parse_mixture(wrong, tmp_path, "m")
