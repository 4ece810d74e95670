"""Weights in eight and four bits, their quantisers, and what they stand for in floating point.

int8: one scale a row, as in LLM.int8 (Dettmers et al. 2022) without outlier columns. int4: symmetric, one scale for each
128 consecutive inputs of a row, as in GPTQ and AWQ checkpoints, without zero points: (q - 8) * scale.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 128
LANES = 8  # nibbles in an int32
BITS = {"int8": 8, "int4": 4}


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
    """Round each group of 128 inputs to 15 levels around zero; raises ValueError unless 128 divides the inputs."""
    rows, columns = weight.shape
    if columns % GROUP:
        raise ValueError(f"int4 weights need a multiple of {GROUP} inputs, not {columns}")
    groups = weight.float().view(rows, columns // GROUP, GROUP)
    scales = groups.abs().amax(dim=2).clamp_min(torch.finfo(torch.float32).tiny) / 7
    nibbles = (groups / scales[:, :, None]).round().clamp(-7, 7).to(torch.int32) + 8
    shifts = torch.arange(0, 4 * LANES, 4, dtype=torch.int32, device=weight.device)
    lanes = nibbles.view(rows, columns // GROUP, LANES, GROUP // LANES) << shifts[:, None]
    return Int4Weight(lanes.sum(dim=2, dtype=torch.int32).view(rows, columns // LANES), scales)


def dense(weight: Weight, dtype: torch.dtype) -> Tensor:
    """`weight` as a plain matrix; a plain matrix is returned as it is."""
    return weight if isinstance(weight, Tensor) else weight.dequantize(dtype)


def parts(weight: Weight) -> tuple[Tensor, Tensor | None, str]:
    """-> (what the kernels stream, its scales, the name of its format)."""
    if isinstance(weight, Tensor):
        return weight, None, "float"
    return weight[0], weight[1], "int8" if isinstance(weight, Int8Weight) else "int4"
