"""The checkpoint that ships: small, safe to load, ordinary for Hugging Face, and better than any constant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

import recon
from benchmarks.eval_embedded import RECORDED, Options, main
from recon.cameras.pixels import containing_pixels
from recon.engine.checkpoint import load_checkpoint
from recon.engine.engine import Engine, EngineOptions
from recon.evaluation.depth import best_constants, score_depth
from recon.questions import depth
from recon.questions.dialects import get_dialect
from recon.questions.profile import load_profile
from recon.synth.dataset import split_seed
from recon.training.pool import render_pooled_view
from recon.types import Task
from tests.training.test_tokenizer import COORDINATES

FOLDER = Path(recon.__file__).parent / "assets" / "embedded"
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
FIGURES, ALL_FIGURES = RESULTS / "embedded_depth.json", RESULTS / "eval_embedded.json"
MAX_BYTES = 16_200_000
MAX_FILE_BYTES = 16_000_000
NUM_ROOMS, NUM_QUESTIONS = 100, 16
NUM_PAIRS = 24


def test_the_folder_is_small_and_holds_no_pickle() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    assert max(path.stat().st_size for path in files) < MAX_FILE_BYTES
    assert {path.suffix for path in files} <= {".json", ".jinja", ".safetensors", ".md"}


def test_hugging_face_loads_it_as_it_is() -> None:
    model, report = Qwen3VLForConditionalGeneration.from_pretrained(
        FOLDER, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert all(torch.isfinite(weight).all() for weight in model.state_dict().values())
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert all(len(ids) == 1 for ids in tokenizer(COORDINATES, add_special_tokens=False)["input_ids"])
    assert tokenizer.convert_tokens_to_ids("<|image_pad|>") == model.config.image_token_id


def test_it_says_what_it_is_good_for() -> None:
    profile = load_profile(FOLDER / "vlm3_profile.json")
    assert profile.dialect == "recon-1"
    assert not profile.trusted_on_photos
    assert "procedural" in profile.trained_on
    assert set(profile.tasks) == {"depth", "match", "pose", "object"}
    # coarse: maps don't ask it for what would do them no good
    assert profile.too_coarse("match")
    assert not profile.too_coarse("depth")


@pytest.mark.slow
def test_depth_of_unseen_rooms_is_better_than_the_best_constants() -> None:
    checkpoint = load_checkpoint("embedded", device="cpu", dtype="float32")
    engine, dialect = Engine(checkpoint, EngineOptions()), get_dialect(checkpoint.profile.dialect)
    predicted, truth = [], []
    for index in range(NUM_ROOMS):
        view = render_pooled_view(split_seed("validation", index), checkpoint.profile.depth.image)
        camera = view.image.camera
        pixels = np.random.default_rng(index).random((NUM_QUESTIONS, 2)) * [camera.width_px, camera.height_px]
        columns, rows = containing_pixels(pixels, camera.width_px, camera.height_px).T
        truth += view.depth_m[rows, columns].tolist()
        answers = engine.ask([view.image], depth.ask(dialect, view.image, pixels))
        predicted += [answer.value[0] if answer.value else np.nan for answer in answers]
    scores = score_depth(predicted, truth)
    # the constants of the recorded figures, tuned on training rooms as the checkpoint is; better too than a constant
    # that knows these very points
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    constant_delta1 = score_depth(np.full(len(truth), figures["constant_for_delta1"]["metres"]), truth).delta1
    constant_abs_rel = score_depth(np.full(len(truth), figures["constant_for_abs_rel"]["metres"]), truth).abs_rel
    hindsight = best_constants(truth)
    assert scores.delta1 > score_depth(np.full(len(truth), hindsight.for_delta1_m), truth).delta1
    assert scores.abs_rel < score_depth(np.full(len(truth), hindsight.for_abs_rel_m), truth).abs_rel
    # half of the lead on 200 test rooms must show on these
    measured = checkpoint.profile.measured
    lead_delta1 = measured["test_depth_delta1"] - measured["test_depth_delta1_of_best_constant"]
    lead_abs_rel = measured["test_depth_abs_rel_of_best_constant"] - measured["test_depth_abs_rel"]
    assert lead_delta1 > 0
    assert lead_abs_rel > 0
    assert scores.parse_rate == 1.0
    assert scores.delta1 > constant_delta1 + lead_delta1 / 2
    assert scores.abs_rel < constant_abs_rel - lead_abs_rel / 2


@pytest.mark.slow
def test_matches_and_motions_of_unseen_rooms_are_better_than_the_best_constants(tmp_path: Path) -> None:
    """Half of the lead on 200 test rooms must show on a few validation rooms."""
    figures = json.loads(ALL_FIGURES.read_text(encoding="utf-8"))["tasks"]
    wanted: tuple[tuple[Task, str, str], ...] = (
        ("match", "epe_median", "for_median"),
        ("pose", "median_direction_deg", "for_auc_30"),
    )
    for task, name, best_for in wanted:
        options = Options(tasks=(task,), split="validation", scenes=NUM_PAIRS, questions=12, keep=tmp_path)
        report = main(options)["tasks"][task]
        recorded = figures[task]
        lead = recorded["best_constants_in_hindsight"][best_for][name] - recorded["figures"][name]
        assert lead > 0
        assert report["figures"][name] < report["best_constants_in_hindsight"][best_for][name] - lead / 2


def test_the_recorded_figures_belong_to_the_checkpoint_that_ships() -> None:
    recorded = json.loads(ALL_FIGURES.read_text(encoding="utf-8"))
    assert recorded["split"] == "test"
    assert recorded["scenes"] >= 200
    profile = load_profile(FOLDER / "vlm3_profile.json")
    assert set(recorded["tasks"]) == set(profile.tasks) == {"depth", "match", "pose", "object"}
    for task, names in RECORDED.items():
        for ours, theirs in names.items():
            kept = recorded["tasks"][task]["figures"][ours]
            assert profile.measured[f"test_{task}_{theirs}"] == pytest.approx(kept, abs=1e-3)


def test_the_recorded_figures_belong_to_test_rooms() -> None:
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    assert figures["split"] == "test"
    assert figures["rooms"] >= 200
    measured = load_profile(FOLDER / "vlm3_profile.json").measured
    assert measured["test_depth_delta1"] == pytest.approx(figures["model"]["delta1"], abs=1e-3)
    assert figures["model"]["delta1"] > figures["constant_for_delta1"]["delta1"]
    assert figures["model"]["abs_rel"] < figures["constant_for_abs_rel"]["abs_rel"]
