"""What the cases share: operands, guarded memory, float64 references, and combinations that cover all pairs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
assert INTERPRETED or torch.cuda.is_available(), "run these through test_interpreter.py, or where there is a GPU"
torch.set_default_device(DEVICE)

GUARD = 64
"""Elements before and after every guarded tensor; a multiple of 16 bytes, like what CUDA's allocator returns."""
SENTINEL = 113

TOLERANCE = {torch.float32: 2e-5, torch.float16: 3e-3}
"""Largest error, relative to the largest magnitude that the reference has."""


class Span(NamedTuple):
    slot: int
    start: int
    length: int


class Norm(NamedTuple):
    weight: Tensor
    bias: Tensor
    eps: float

    def double(self) -> Norm:
        return Norm(self.weight.double(), self.bias.double(), self.eps)


class Linear(NamedTuple):
    weight: Any
    bias: Tensor


def random_norm(width: int, dtype: torch.dtype) -> Norm:
    return Norm(torch.rand(width).to(dtype) + 0.5, torch.randn(width).to(dtype), 1e-5)


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype, scale: float = 1.0) -> None:
    """`expected` is in float64; errors may be relative to `scale` where that is larger."""
    assert actual.shape == expected.shape
    assert not actual.isnan().any(), "NaN: memory was read that holds no value, or a row was not written"
    scale = max(scale, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=TOLERANCE[dtype] * scale)


@contextmanager
def guarded() -> Iterator[None]:
    """Every `torch.empty` inside is poisoned and stands between guard rows, which must be untouched at the end."""
    allocate = torch.empty
    blocks: list[tuple[Tensor, Tensor]] = []

    def empty(*shape: Any, dtype: torch.dtype = torch.float32, device: Any = None, **rest: Any) -> Tensor:
        size = torch.Size(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
        poison = float("nan") if dtype.is_floating_point else SENTINEL
        block = torch.full((size.numel() + 2 * GUARD,), poison, dtype=dtype, device=device or DEVICE)
        blocks.append((block, block.clone()))
        return block[GUARD : GUARD + size.numel()].view(size)

    with mock.patch.object(torch, "empty", empty):
        yield
    assert allocate is torch.empty
    for block, before in blocks:
        for part in (slice(None, GUARD), slice(block.numel() - GUARD, None)):
            torch.testing.assert_close(block[part], before[part], rtol=0, atol=0, equal_nan=True)


def filled_kv(spans: Sequence[Span], slots: int, groups: int, window: int, head_dim: int, dtype: torch.dtype) -> Tensor:
    """The middle layer of KV memory that is NaN wherever no span's sequence has been."""
    kv = torch.full((slots, 3, 2, groups, window, head_dim), float("nan"), dtype=dtype)[:, 1]
    for span in spans:
        end = span.start + span.length
        kv[span.slot, :, :, :end] = torch.randn(2, groups, end, head_dim).to(dtype)
    return kv


def pairwise(choices: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Few combinations in which any two values of any two parameters meet; greedy, the same every time."""
    names = list(choices)
    pairs = {
        ((a, i), (b, j))
        for a, b in itertools.combinations(names, 2)
        for i in range(len(choices[a]))
        for j in range(len(choices[b]))
    }
    found = []
    while pairs:
        (a, i), (b, j) = min(pairs)
        row = {a: i, b: j}
        for name in names:
            if name not in row:
                row[name] = max(
                    range(len(choices[name])),
                    key=lambda value, name=name: sum(  # type: ignore[misc]
                        pair in pairs
                        for other in row
                        for pair in (((name, value), (other, row[other])), ((other, row[other]), (name, value)))
                    ),
                )
        pairs -= {((x, row[x]), (y, row[y])) for x, y in itertools.permutations(names, 2)}
        found.append({name: choices[name][row[name]] for name in names})
    return found


def every(choices: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """All combinations."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def named(case: Mapping[str, Any]) -> str:
    """A test id."""
    return " ".join(f"{name}={str(value).removeprefix('torch.')}" for name, value in case.items())
