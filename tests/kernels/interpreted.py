"""Kernels against float64, run by test_kernels.py in a process of its own with Triton's interpreter.

Tolerances are the worst case measured over these cases, times about three. bfloat16 is left out: the interpreter's
product in it is wrong.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from vlm3_kernels.lm_head import kernel as head_kernel
from vlm3_kernels.lm_head import reference as head_reference
from vlm3_kernels.prefix_attention import kernel, reference
from vlm3_kernels.prefix_attention.spans import Keys, Spans

TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3}  # measured worst: 6.9e-7, 3.0e-4


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN, so that whatever a kernel leaves out shows."""
    empty, empty_like = torch.empty, torch.empty_like

    def fill(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor.fill_(-(2**31) + 1)

    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: fill(empty(*args, **kwargs)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: fill(empty_like(*args, **kwargs)))


def attention_case(
    lengths: list[int], seen: list[int], num_prefix: int, group: int, dtype: torch.dtype
) -> tuple[torch.Tensor, Keys, Spans]:
    """Random tensors; slab places that no query sees are NaN, rows are in descending order with one row unused."""
    generator = torch.Generator().manual_seed(sum(lengths) + num_prefix * 7 + group)
    num_kv, dim = 2, 32
    ends = [a + b for a, b in zip(lengths, seen, strict=True)]
    slab = (len(lengths) + 1, num_kv, max(ends) + 3, dim)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    rows = list(range(len(lengths), 0, -1))
    own_key, own_value = random(*slab), random(*slab)
    own_key[0], own_value[0] = torch.nan, torch.nan
    for row, end in zip(rows, ends, strict=True):
        own_key[row, :, end:], own_value[row, :, end:] = torch.nan, torch.nan
    query = random(sum(lengths), num_kv * group, dim)
    prefix = random(num_kv, num_prefix, dim), random(num_kv, num_prefix, dim)
    return query, Keys(*prefix, own_key, own_value), Spans.pack(rows, lengths, seen)


def exact_attention(query: torch.Tensor, keys: Keys, spans: Spans) -> torch.Tensor:
    """The twin in float64, with zeros where the slab holds NaN."""
    wide = Keys(*(torch.nan_to_num(t).double() for t in keys))
    return reference.prefix_attention(query.double(), wide, spans, 0.2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("group", [1, 4, 8])
@pytest.mark.parametrize(
    ("lengths", "seen", "num_prefix"),
    [
        ([1, 1, 1], [0, 4, 70], 65),  # decoding
        ([3, 1, 8], [2, 0, 63], 131),  # verifying drafts
        ([1], [0], 0),  # no prefix at all
        ([63, 1, 20], [0, 0, 5], 77),  # prefill, one of them continued from an earlier chunk
        ([131], [0], 1),
    ],
)
def test_prefix_attention(lengths: list[int], seen: list[int], num_prefix: int, group: int, dtype: torch.dtype) -> None:
    query, keys, spans = attention_case(lengths, seen, num_prefix, group, dtype)
    out = kernel.prefix_attention(query, keys, spans, 0.2)
    exact = exact_attention(query, keys, spans)
    torch.testing.assert_close(out.double(), exact, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize(("tokens", "vocab", "hidden"), [(1, 300, 64), (131, 2049, 33), (63, 2, 16)])
def test_lm_head(tokens: int, vocab: int, hidden: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, hidden, generator=generator)
    w = torch.randn(vocab, hidden, generator=generator)
    got = head_kernel.lm_head(x, w)
    exact = head_reference.lm_head(x.double(), w.double())
    assert torch.equal(got.token, exact.token)
    for name in ("logit", "log_sum_exp", "margin"):
        value, expected = getattr(got, name).double(), getattr(exact, name)
        torch.testing.assert_close(value, expected, atol=2.5e-5, rtol=0.0)  # measured worst 8.3e-6


def test_lm_head_takes_the_first_of_equal_logits() -> None:
    weight = torch.zeros(5000, 16)
    weight[[4999, 130, 2100]] = 1.0
    got = head_kernel.lm_head(torch.ones(2, 16), weight)
    assert got.token.tolist() == [130, 130]
    assert got.margin.tolist() == [0.0, 0.0]


def test_nothing_asked_gives_nothing() -> None:
    query, keys, _ = attention_case([1], [0], 5, 4, torch.float32)
    nothing = Spans.pack([], [], [])
    assert kernel.prefix_attention(query[:0], keys, nothing, 0.2).shape == (0, 8, 32)
    assert reference.prefix_attention(query[:0], keys, nothing, 0.2).shape == (0, 8, 32)
    hidden, weight = torch.zeros(0, 16), torch.zeros(512, 16)
    for choose in (head_kernel.lm_head, head_reference.lm_head):
        assert [len(column) for column in choose(hidden, weight)] == [0, 0, 0, 0]


def test_reference_equals_plain_attention() -> None:
    """The twin itself, against softmax written out per token."""
    query, keys, spans = attention_case([3, 1, 8], [2, 0, 5], 10, 4, torch.float32)
    out = exact_attention(query, keys, spans)
    query, prefix_key, prefix_value, own_key, own_value = (torch.nan_to_num(t).double() for t in (query, *keys))
    token = 0
    for row, length, seen in zip(spans.row.tolist(), [3, 1, 8], [2, 0, 5], strict=True):
        for i, head in itertools.product(range(length), range(8)):
            end = seen + i + 1
            keys = torch.cat([prefix_key[head // 4], own_key[row, head // 4, :end]])
            values = torch.cat([prefix_value[head // 4], own_value[row, head // 4, :end]])
            expected = (0.2 * query[token + i, head] @ keys.T).softmax(0) @ values
            torch.testing.assert_close(out[token + i, head], expected)
        token += length


def test_the_engine_with_kernels_equals_generate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's way through the engine (kernels, split chunks, scattered stores, rows left in place), interpreted."""
    import numpy as np

    from recon.engine import attention, keyvalues
    from recon.engine.engine import Engine, EngineOptions
    from recon.questions.dialects import get_dialect
    from tests.engine.conftest import make_checkpoint, questions_about
    from tests.engine.oracle import generate, random_image

    monkeypatch.undo()  # Hugging Face's own code may rely on fresh memory
    checkpoint = make_checkpoint()
    rng = np.random.default_rng(0)
    images = [random_image(rng, 64, 64)]
    questions = questions_about(images, rng, 3, get_dialect("recon-1"))
    questions += questions_about(images, rng, 2, get_dialect("vlm3-paper"))
    expected = [generate(checkpoint, images, question, 6) for question in questions]
    monkeypatch.setattr(attention.dispatch, "prefix_attention", kernel.prefix_attention)
    monkeypatch.setattr(attention, "write", keyvalues.write_scattered)
    monkeypatch.setattr("vlm3_kernels.lm_head.dispatch.lm_head", head_kernel.lm_head)
    engine = Engine(checkpoint, EngineOptions(max_new_tokens=6, chunk_tokens=16))
    engine.decoder._in_place = engine.decoder._prefiller._split = True
    assert [answer.token_ids for answer in engine.ask(images, questions)] == expected
