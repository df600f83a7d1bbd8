"""The memory plan: its counts are those of a real small model, its activations what autograd really keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedTokenizerFast

from recon.training.attention import use_packed_attention
from recon.training.encode import Encoder, collate
from recon.training.init import new_model
from recon.training.memory import Workload, plan_memory, table
from recon.training.mixture import Mixture
from recon.training.shape import SIZES, qwen3_vl_4b
from recon.training.tokenizer import build_image_processor

SMALL = Workload(samples=1, image_tokens=20, questions=2, suffix_tokens=10, answer_tokens=4, text_tokens=6)


def test_counts_are_those_of_a_real_model_and_its_optimiser(tokenizer: PreTrainedTokenizerFast) -> None:
    model = new_model(SIZES["tiny"], tokenizer, seed=0)
    plan = plan_memory(model.config, SMALL, gpus=1, bf16=False, gradient_checkpointing=False)
    optimiser = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    assert plan.parameters == sum(p.numel() * p.element_size() for p in model.parameters())
    assert plan.gradients == plan.parameters
    moments = [t for state in optimiser.state.values() for t in state.values() if t.ndim > 0]
    assert plan.optimiser == sum(t.numel() * t.element_size() for t in moments)
    assert plan.gathered == 0
    assert plan.total == plan.parameters * 4 + plan.activations


def test_activations_are_what_autograd_keeps(tokenizer: PreTrainedTokenizerFast, mixture: Mixture) -> None:
    """The whole forward pass of a real sample, measured, beside the plan's sum over layers."""
    model = new_model(SIZES["tiny"], tokenizer, seed=0)
    encoder = Encoder(tokenizer, build_image_processor(), model.config.image_token_id)
    encoded = encoder.encode(mixture.sample(0))
    batch = collate([encoded], int(tokenizer.pad_token_id))
    image_tokens = int(encoded.grids.prod()) // 4
    lengths = [len(suffix) for suffix in encoded.suffixes]
    workload = Workload(
        samples=1,
        image_tokens=image_tokens,
        questions=len(lengths),
        suffix_tokens=max(lengths),
        answer_tokens=5,
        text_tokens=len(encoded.prefix_ids) - image_tokens,
    )
    plan = plan_memory(model.config, workload, gpus=1, bf16=False, gradient_checkpointing=False)
    use_packed_attention(model)
    storages: dict[int, tuple[int, Tensor]] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    inputs = {name: batch[name] for name in ("input_ids", "position_ids", "packing", "pixel_values", "image_grid_thw")}
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        columns = (batch["labels"] != -100).any(dim=0).nonzero().flatten()
        logits = model(**inputs, use_cache=False, logits_to_keep=columns).logits
        loss = logits.float().log_softmax(dim=-1).mean()
    measured = sum(count for count, _ in storages.values())
    assert loss.requires_grad
    assert plan.activations == pytest.approx(measured, rel=0.15)  # measured: RATIO


def test_gpus_share_all_but_the_activations() -> None:
    config = qwen3_vl_4b()
    one, eight = (plan_memory(config, Workload(), gpus) for gpus in (1, 8))
    assert 4.3e9 < one.num_parameters < 4.6e9  # Qwen3-VL-4B: 4.44 G
    for name in ("parameters", "gradients", "optimiser"):
        assert getattr(eight, name) == -(-getattr(one, name) // 8)
    assert eight.activations == one.activations
    assert eight.gathered > 0
    whole = plan_memory(config, Workload(), 1, gradient_checkpointing=False)
    assert whole.activations > 5 * one.activations
    with pytest.raises(ValueError, match="at least 1"):
        plan_memory(config, Workload(), 0)


def test_lora_trains_rank_times_both_sides_of_each_matrix(tokenizer: PreTrainedTokenizerFast) -> None:
    from recon.training.sft import with_lora

    model = new_model(SIZES["tiny"], tokenizer, seed=0)
    plan = plan_memory(model.config, SMALL, gpus=1, lora_rank=3)
    trained = sum(p.numel() for p in with_lora(model, 3).parameters() if p.requires_grad)
    assert plan.num_trained == trained
    assert plan.optimiser == 8 * trained
    assert plan.parameters == 4 * (plan.num_parameters + trained)


def test_the_table_has_a_line_per_number_of_gpus(tokenizer: PreTrainedTokenizerFast) -> None:
    config = new_model(SIZES["tiny"], tokenizer, seed=0).config
    lines = table([plan_memory(config, SMALL, gpus) for gpus in (1, 4)]).splitlines()
    assert len(lines) == 3
    assert lines[2].split()[0] == "4"
