"""Driving our forward pass without a scheduler: prefill in pieces, greedy decoding, single steps for timing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.gpt_bigcode import GPTBigCode
from engine.ops import Head
from engine.step import Span


def ways(length: int, last: int) -> list[tuple[int, ...]]:
    """Ways to cut a prompt of `length` tokens: not at all, and into odd pieces of which the final one has `last`."""
    pieces, left = [], length - last
    for size in (7, 64, 1, 33):
        if left > size:
            pieces.append(size)
            left -= size
    return [(length,), (*pieces, left, last)]


@torch.inference_mode()
def prefill(model: GPTBigCode, ids: Tensor, pieces: Sequence[int], rows: int, top: int) -> Head:
    """Run a prompt piece by piece in a slot of its own -> what is predicted after its last `rows` tokens."""
    kv = _memory(model, int(ids.numel()))
    start, head = 0, None
    for size in pieces:
        wanted = torch.arange(size - rows, size, device=ids.device) if start + size == ids.numel() else _none(ids)
        head = _forward(model, ids[start : start + size], start, kv, wanted, top)
        start += size
    assert head is not None
    return head


@torch.inference_mode()
def greedy(model: GPTBigCode, prompt: Tensor, count: int) -> Tensor:
    """`count` greedy tokens after a prompt, one step each."""
    kv = _memory(model, int(prompt.numel()) + count)
    position, ids, out = 0, prompt, []
    for _ in range(count):
        last = torch.tensor([ids.numel() - 1], device=prompt.device)
        head = _forward(model, ids, position, kv, last, 0)
        assert head is not None
        position += int(ids.numel())
        ids = head.ids
        out.append(ids)
    return torch.cat(out)


def step(model: GPTBigCode, tokens: int, context: int, window: int) -> Callable[[], Head | None]:
    """One forward pass of `tokens` new tokens after `context` random ones, predicting after the last: for timing.

    Its place is fixed, so that it can be captured in a graph: each call computes and writes the same again.
    """
    kv = model.new_kv(1, window)
    kv.normal_()
    ids = torch.randint(model.shape.vocab_size, (tokens,), device=model.device)
    positions = torch.arange(context, context + tokens, device=model.device)
    spans, last = (Span(0, context, tokens),), torch.tensor([tokens - 1], device=model.device)
    return lambda: model.forward(ids, positions, spans, kv, last)


def _memory(model: GPTBigCode, length: int) -> Tensor:
    """A slot whose unused keys and values are NaN, behind another that must not be read."""
    kv = model.new_kv(2, min(model.shape.n_positions, length + 16))
    return kv.fill_(float("nan"))


def _forward(model: GPTBigCode, ids: Tensor, start: int, kv: Tensor, rows: Tensor, top: int) -> Head | None:
    length = int(ids.numel())
    positions = torch.arange(start, start + length, device=ids.device)
    return model.forward(ids, positions, (Span(1, start, length),), kv, rows, top=top)


def _none(ids: Tensor) -> Tensor:
    return torch.empty(0, dtype=torch.int64, device=ids.device)
