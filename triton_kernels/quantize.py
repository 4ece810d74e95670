"""Weights in eight and four bits, their quantisers, and what they stand for in floating point.

int8: one scale a row, as in LLM.int8 (Dettmers et al. 2022) without outlier columns. int4: symmetric, one scale for each
128 consecutive inputs of a row, as in GPTQ and AWQ checkpoints, without zero points: (q - 8) * scale. Of several scales
that cut a group's largest values off, the one that is nearest to the group in squares is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

GROUP = 128
LANES = 8  # nibbles in an int32
BITS = {"int8": 8, "int4": 4}

_AT_A_TIME = 2**24
"""Weights that are quantised or widened together: 64 MiB in float32."""

_CUT = (0.95, 0.9, 0.85, 0.8, 0.75)
"""Parts of the scale that keeps a group's largest value, which are tried too."""


class Int8Weight(NamedTuple):
    """values int8 [out, in], scales float32 [out]."""

    values: Tensor
    scales: Tensor

    @property
    def shape(self) -> torch.Size:
        """[out, in]."""
        return self.values.shape

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The matrix in `dtype`."""
        return (self.values.float() * self.scales[:, None]).to(dtype)


class Int4Weight(NamedTuple):
    """words int32 [out, in / 8], scales float32 [out, in / 128].

    Sixteen words make a group; nibble j of word r in group g is input 128 g + 16 j + r, so that a thread that holds
    four words reads four consecutive inputs for every nibble.
    """

    words: Tensor
    scales: Tensor

    @property
    def shape(self) -> torch.Size:
        """[out, in]."""
        return torch.Size((self.words.shape[0], self.words.shape[1] * LANES))

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The matrix in `dtype`."""
        rows, columns = self.shape
        shifts = torch.arange(0, 4 * LANES, 4, dtype=torch.int32, device=self.words.device)
        nibbles = (self.words.view(rows, columns // GROUP, 1, GROUP // LANES) >> shifts[:, None]) & 0xF
        values = (nibbles.float() - 8).reshape(rows, columns // GROUP, GROUP) * self.scales[:, :, None]
        return values.view(rows, columns).to(dtype)


Weight = Tensor | Int8Weight | Int4Weight


def quantize_int8(weight: Tensor) -> Int8Weight:
    """Round each row of [out, in] to 255 levels around zero; an all-zero row stays zero."""
    full = weight.float()
    scales = full.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return Int8Weight((full / scales[:, None]).round().clamp(-127, 127).to(torch.int8), scales)


def quantize_int4(weight: Tensor) -> Int4Weight:
    """Round each group of 128 inputs to 16 levels; raises ValueError unless 128 divides the inputs."""
    rows, columns = weight.shape
    if columns % GROUP:
        raise ValueError(f"int4 weights need a multiple of {GROUP} inputs, not {columns}")
    groups = weight.float().view(rows, columns // GROUP, GROUP)
    widest = groups.abs().amax(dim=2).clamp_min(torch.finfo(torch.float32).tiny) / 7
    scales, least = widest, _squares(groups, widest)
    for part in _CUT:
        squares = _squares(groups, widest * part)
        scales = torch.where(squares < least, widest * part, scales)
        least = torch.minimum(squares, least)
    nibbles = _levels(groups, scales).to(torch.int32) + 8
    shifts = torch.arange(0, 4 * LANES, 4, dtype=torch.int32, device=weight.device)
    lanes = nibbles.view(rows, columns // GROUP, LANES, GROUP // LANES) << shifts[:, None]
    return Int4Weight(lanes.sum(dim=2, dtype=torch.int32).view(rows, columns // LANES), scales)


def _levels(groups: Tensor, scales: Tensor) -> Tensor:
    return (groups / scales[:, :, None]).round_().clamp_(-8, 7)


def _squares(groups: Tensor, scales: Tensor) -> Tensor:
    """How far each group's levels are from it."""
    return _levels(groups, scales).mul_(scales[:, :, None]).sub_(groups).square_().sum(dim=2)


def at_a_time(inputs: int) -> int:
    """Rows of so many inputs that are quantised or widened together."""
    return max(1, _AT_A_TIME // inputs)


def multiply(x: Tensor, weight: Weight, bias: Tensor) -> Tensor:
    """x [T, in] -> x @ weight.T + bias [T, out]; a quantised weight is widened some rows at a time."""
    if isinstance(weight, Tensor):
        return F.linear(x, weight, bias)
    out = x.new_empty(x.shape[0], weight.shape[0])
    for at in range(0, weight.shape[0], step := at_a_time(weight.shape[1])):
        part = slice(at, at + step)
        rows = type(weight)(weight[0][part], weight[1][part])
        out[:, part] = F.linear(x, rows.dequantize(x.dtype), bias[part])
    return out


def dense(weight: Weight, dtype: torch.dtype) -> Tensor:
    """`weight` as a plain matrix; a plain matrix is returned as it is."""
    return weight if isinstance(weight, Tensor) else weight.dequantize(dtype)


def parts(weight: Weight) -> tuple[Tensor, Tensor | None, str]:
    """-> (what the kernels stream, its scales, the name of its format)."""
    if isinstance(weight, Tensor):
        return weight, None, "float"
    return weight[0], weight[1], "int8" if isinstance(weight, Int8Weight) else "int4"
