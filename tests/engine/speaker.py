"""A checkpoint whose answers have fixed text: ``8.25 meters away from the camera`` with digits that depend on what is
asked. Its head makes every token name the ones that may follow; attention over the question and the image decides
between the digits."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import torch
from torch import nn

from recon.engine.checkpoint import Checkpoint
from recon.questions.profile import default_profile
from tests.engine.conftest import make_checkpoint

DIALECT = "vlm3-paper"
FIRST_DIGITS, LAST_DIGITS, TENTHS = "789", "456", "0123"
REST = " meters away from"


def make_speaker(seed: int = 4) -> Checkpoint:
    """Random weights whose influence on the residual stream is small, and a head of its own."""
    checkpoint = make_checkpoint(DIALECT, seed=3)
    tokenizer, model = checkpoint.tokenizer, checkpoint.model

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    start = ids(str(tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False,
                                                  add_generation_prompt=True)))[-1]  # fmt: skip
    rest = ids(REST)
    chain = [[start], *([ids(d)[0] for d in digits] for digits in (FIRST_DIGITS, ".", TENTHS, LAST_DIGITS))]
    chain += [[token] for token in (*rest, tokenizer.eos_token_id)]
    flat = [token for step in chain for token in step]
    assert len(flat) == len(set(flat)), "a token stands for one place in the answer"
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight *= 0.05
            layer.mlp.down_proj.weight *= 0.01
        embedding = model.model.language_model.embed_tokens.weight
        unit = torch.linalg.qr(embedding[flat].T).Q.T  # these tokens are orthogonal, so the chain can't be misread
        embedding[flat] = unit * embedding.norm(dim=1).mean()
        head = torch.zeros_like(embedding)
        for before, after in pairwise(chain):
            for token in after:
                head[token] += nn.functional.normalize(embedding[before], dim=1).sum(dim=0) * 6
                if len(after) > 1:  # what decides between digits has nothing to do with the token before them
                    taste = torch.randn(embedding.shape[1])
                    head[token] += 0.4 * (taste - (unit @ taste) @ unit)
        model.lm_head = nn.Linear(embedding.shape[1], embedding.shape[0], bias=False)
        model.lm_head.weight.copy_(head)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return dataclasses.replace(
        checkpoint, end_token_ids=(tokenizer.eos_token_id,), profile=default_profile(DIALECT, "speaker")
    )
