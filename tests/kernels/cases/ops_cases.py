"""`TritonOps` in place of `TorchOps`: the same model, the same logits, the same greedy tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.gpt_bigcode import GPTBigCode, Layer, ModelShape, Weights
from engine.ops import Head, Linear, Norm, Ops, TorchOps
from engine.step import Span
from tests.kernels.cases.support import DEVICE, close, guarded
from triton_kernels.ops import TritonOps
from triton_kernels.quantize import Int4Weight, Int8Weight, Weight, quantize_int4, quantize_int8

F32 = torch.float32
WINDOW = 96


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def random_model(ops: Ops, shape: ModelShape, dtype: torch.dtype = F32) -> GPTBigCode:
    """Weights from a fixed seed, scaled so that every token depends on position and on all earlier ones."""
    with torch.device(DEVICE):
        return _random_model(ops, shape, dtype, torch.Generator(DEVICE).manual_seed(1))


def _random_model(ops: Ops, shape: ModelShape, dtype: torch.dtype, draw: torch.Generator) -> GPTBigCode:
    def matrix(rows: int, columns: int, scale: float = 1.5) -> Tensor:
        full: Tensor = torch.randn(rows, columns, generator=draw) * (scale / columns**0.5)
        return full.to(dtype)

    def norm() -> Norm:
        gain = torch.rand(shape.n_embd, generator=draw) + 0.5
        return Norm(gain.to(dtype), torch.randn(shape.n_embd, generator=draw).to(dtype) / 5, shape.norm_eps)

    def linear(outputs: int, inputs: int) -> Linear:
        return Linear(matrix(outputs, inputs), (torch.randn(outputs, generator=draw) / 5).to(dtype))

    d, kv = shape.n_embd, 2 * shape.kv_heads * shape.head_dim
    layers = tuple(
        Layer(norm(), linear(d + kv, d), linear(d, d), norm(), linear(shape.n_inner, d), linear(d, shape.n_inner))
        for _ in range(shape.n_layer)
    )
    wte = matrix(shape.vocab_size, d, 4.0)
    return GPTBigCode(shape, Weights(wte, matrix(shape.n_positions, d, 4.0), layers, norm(), wte), ops)


def shape_of(heads: int, head_dim: int, *, multi_query: bool = True, exact: bool = False) -> ModelShape:
    return ModelShape(
        n_layer=2,
        n_embd=heads * head_dim,
        n_head=heads,
        n_inner=4 * heads * head_dim,
        n_positions=WINDOW,
        vocab_size=101,
        multi_query=multi_query,
        exact_gelu=exact,
        scale_attention=True,
        norm_eps=1e-5,
    )


class Pair:
    """The same model on both implementations, stepped together; every step's answers are compared."""

    def __init__(self, shape: ModelShape) -> None:
        self.models = [random_model(ops, shape) for ops in (TritonOps(Head), TorchOps())]
        self.memories = [model.new_kv(3, WINDOW) for model in self.models]
        self.vocabulary = shape.vocab_size

    def step(self, spans: Sequence[Span], ids: Sequence[int], allow: Tensor | None = None) -> list[int]:
        """-> the greedy token after every row."""
        positions = torch.cat([torch.arange(span.start, span.start + span.length) for span in spans])
        heads = [
            model.forward(
                torch.tensor(ids), positions, spans, memory, torch.arange(len(ids)), allow, top=self.vocabulary
            )
            for model, memory in zip(self.models, self.memories, strict=True)
        ]
        ours, reference = heads
        assert ours is not None
        assert reference is not None
        logprobs = [torch.zeros(len(ids), self.vocabulary).scatter(1, h.top_ids, h.top_logprobs) for h in heads if h]
        torch.testing.assert_close(logprobs[0], logprobs[1], rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.logprobs, reference.logprobs, rtol=0, atol=1e-4)
        assert ours.ids.tolist() == reference.ids.tolist()
        torch.testing.assert_close(*self.memories, rtol=0, atol=1e-4)
        return [int(token) for token in ours.ids]


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(shape_of(3, 8), id="small"),
        pytest.param(shape_of(2, 8, multi_query=False, exact=True), id="multi-head", marks=pytest.mark.slow),
        pytest.param(shape_of(12, 64), id="tiny_starcoder", marks=pytest.mark.slow),
        pytest.param(shape_of(22, 16, exact=True), id="22 heads", marks=pytest.mark.slow),
    ],
)
def test_a_whole_model(shape: ModelShape) -> None:
    pair = Pair(shape)
    prompt = [7 * i % 100 for i in range(40)]
    pair.step([Span(1, 0, 33)], prompt[:33])
    pair.step([Span(1, 33, 7)], prompt[33:])
    token = pair.step([Span(0, 0, 1)], prompt[:1])[0]
    for start in range(1, 4):
        token = pair.step([Span(0, start, 1)], [token])[0]
    ids = pair.step([Span(0, 4, 1), Span(1, 40, 5), Span(2, 0, 2)], [token, 1, 2, 3, 4, 5, 6, 7])
    pair.step([Span(2, 2, 20), Span(0, 5, 1)], [*range(20), ids[0]])
    allow = torch.zeros(2, pair.vocabulary, dtype=torch.bool)
    allow[0, [5, 77]] = allow[1, 100] = True
    assert pair.step([Span(0, 6, 1), Span(1, 45, 1)], [1, 2], allow)[1] == 100


@pytest.mark.parametrize(
    "length", [5, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_a_sequence_in_pieces_equals_it_in_one(length: int) -> None:
    """The same tokens give the same tokens, cached or not."""
    pair = Pair(shape_of(3, 8))
    ids = [13 * i % 100 for i in range(20)]
    whole = pair.step([Span(0, 0, 20)], ids)
    pieces: list[int] = []
    for start in range(0, 20, length):
        piece = ids[start : start + length]
        pieces += pair.step([Span(1, start, len(piece))], piece)
    assert pieces == whole


def test_a_step_that_wants_no_token_answers_none() -> None:
    model = random_model(TritonOps(Head), shape_of(3, 16))
    kv = model.new_kv(1, WINDOW)
    ids, none = torch.tensor([1, 2]), torch.empty(0, dtype=torch.int64)
    assert model.forward(ids, torch.arange(2), [Span(0, 0, 2)], kv, none) is None


def test_no_tokens_and_no_rows() -> None:
    ops, width = TritonOps(Head), 48
    norm, x = Norm(torch.ones(width), torch.zeros(width), 1e-5), torch.empty(0, width)
    kv, ids = torch.zeros(1, 2, 1, 8, 16), torch.empty(0, dtype=torch.int64)
    qkv, same = Linear(torch.zeros(80, width), torch.zeros(80)), Linear(torch.zeros(width, width), torch.zeros(width))
    assert ops.embed(ids, ids, torch.zeros(5, width), torch.zeros(5, width)).shape == (0, width)
    q = ops.ln_qkv_append(x, norm, qkv, kv, [])
    assert q.shape == ops.attend(q, kv, [], 1.0).shape == (0, width)
    assert ops.proj_residual(x, x, same).shape == ops.ln_fc_gelu(x, norm, same, exact=True).shape == (0, width)
    head = ops.head(x, norm, torch.zeros(9, width), None, 2)
    assert [tuple(part.shape) for part in head] == [(0,), (0,), (0, 2), (0, 2), (0, 0)]
    assert [part.dtype for part in head] == [torch.int64, F32, torch.int64, F32, F32]


@pytest.mark.parametrize("rows", [1, 5, 20])
@pytest.mark.parametrize(("top", "logits"), [(0, False), (3, False), (0, True), (2, True)])
def test_head_answers_like_the_reference(rows: int, top: int, logits: bool) -> None:
    x, norm = torch.randn(rows, 64), Norm(torch.rand(64), torch.randn(64), 1e-5)
    vocabulary, allow = torch.randn(150, 64), torch.rand(rows, 150) < 0.2
    allow[:, 3] = True
    with guarded():
        ours = TritonOps(Head).head(x, norm, vocabulary, allow, top, logits=logits)
    reference = TorchOps().head(x, norm, vocabulary, allow, top, logits=logits)
    assert ours.logits.shape == (rows, 150 if logits else 0)
    for ours_part, part in zip(ours, reference, strict=True):
        assert ours_part.dtype == part.dtype
        torch.testing.assert_close(ours_part, part, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 20])
def test_float64_falls_back_to_torch(rows: int) -> None:
    width, spans, double = 48, [Span(0, 2, rows)], torch.float64
    norm = Norm(torch.rand(width).double(), torch.rand(width).double(), 1e-5)
    qkv = Linear(torch.randn(80, width).double(), torch.randn(80).double())
    x, kv, expected_kv = torch.randn(rows, width), *torch.zeros(2, 1, 2, 1, 32, 16, dtype=double)
    ours, reference = TritonOps(Head), TorchOps()
    q = ours.ln_qkv_append(x, norm, qkv, kv, spans)
    expected = reference.ln_qkv_append(x, norm, qkv, expected_kv, spans)
    torch.testing.assert_close(q, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(kv, expected_kv, rtol=0, atol=1e-5)
    ours_mixed, mixed = ours.attend(q, kv, spans, 0.2), reference.attend(q, kv, spans, 0.2)
    torch.testing.assert_close(ours_mixed, mixed, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["int8", "int4"])
@pytest.mark.parametrize("rows", [1, 4, 18])
def test_quantised_layers_equal_their_dequantised_selves(form: str, rows: int) -> None:
    quantise: Callable[[Tensor], Int8Weight | Int4Weight] = quantize_int8 if form == "int8" else quantize_int4
    ops, width, spans = TritonOps(Head), 128, [Span(0, 3, rows)]
    norm = Norm(torch.rand(width), torch.randn(width), 1e-5)
    x, y = torch.randn(rows, width), torch.randn(rows, 256)

    def both(outputs: int, inputs: int) -> list[Any]:
        weight = quantise(torch.randn(outputs, inputs) / 10)
        bias = torch.randn(outputs)
        return [Quantised(weight, bias), Linear(weight.dequantize(F32), bias)]

    memories = torch.zeros(2, 1, 2, 1, 32, 32)
    answers = []
    torch.manual_seed(1)
    layers = zip(both(192, width), both(256, width), both(width, 256), strict=True)
    for (qkv, fc, proj), kv in zip(layers, memories, strict=True):
        answers.append(
            (
                ops.ln_qkv_append(x, norm, qkv, kv, spans),
                ops.ln_fc_gelu(x, norm, fc, exact=False),
                ops.proj_residual(x.clone(), y, proj),
                kv,
            )
        )
    for ours, reference in zip(*answers, strict=True):
        close(ours, reference.double(), F32)


class Quantised:
    """A layer as an engine may hold it: only the attributes matter."""

    def __init__(self, weight: Weight, bias: Tensor) -> None:
        self.weight = weight
        self.bias = bias
