"""Weights in eight and four bits: how they are rounded, and what they stand for.

int8: symmetric, one scale a row (LLM.int8, Dettmers et al. 2022, without outlier columns). int4: one scale and one
offset for each group of consecutive inputs of a row, as in GPTQ and AWQ checkpoints. Scales and offsets are bfloat16,
and values are rounded against the rounded scale: what is stored is exactly what is multiplied with.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

GROUPS = (32, 64, 128)
"""Inputs that may share an int4 scale, the most exact first: 5, 4.5 and 4.25 bits a weight."""

_TINY = torch.finfo(torch.bfloat16).tiny


class Int8Rows(NamedTuple):
    """values int8 [out, in], scales bfloat16 [out]: weight = value * scale of the row."""

    values: Tensor
    scales: Tensor

    def rows(self, ids: Tensor) -> Tensor:
        """The rows that `ids` [T] name, float32 [T, in]."""
        return self.values[ids].float() * self.scales[ids, None].float()

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The matrix in `dtype`."""
        return (self.values.float() * self.scales[:, None].float()).to(dtype)


class Int4Groups(NamedTuple):
    """values uint8 [out, in] from 0 to 15, scales and offsets bfloat16 [out, in / group].

    weight = (value - 8) * scale + offset of the group.
    """

    values: Tensor
    scales: Tensor
    offsets: Tensor

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The matrix in `dtype`."""
        rows, groups = self.scales.shape
        grouped = self.values.view(rows, groups, -1).float() - 8
        full = grouped * self.scales[:, :, None].float() + self.offsets[:, :, None].float()
        return full.view(rows, -1).to(dtype)


def quantize_int8(weight: Tensor) -> Int8Rows:
    """Round each row of [out, in] to 255 levels around zero; an all-zero row stays zero."""
    full = weight.float()
    scales = (full.abs().amax(dim=1) / 127).clamp_min(_TINY).bfloat16()
    values = (full / scales.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    return Int8Rows(values, scales)


def quantize_int4(weight: Tensor, group: int) -> Int4Groups:
    """Round each group of inputs of [out, in] to 16 levels from its least to its greatest; `group` divides `in`."""
    rows, columns = weight.shape
    if columns % group:
        raise ValueError(f"int4 in groups of {group} needs a multiple of {group} inputs, not {columns}")
    grouped = weight.float().view(rows, columns // group, group)
    low, high = grouped.amin(dim=2), grouped.amax(dim=2)
    scales = ((high - low) / 15).clamp_min(_TINY).bfloat16()
    offsets = (low + 8 * scales.float()).bfloat16()
    levels = (grouped - offsets.float()[:, :, None]).div_(scales.float()[:, :, None])
    values = levels.round_().add_(8).clamp_(0, 15).to(torch.uint8)
    return Int4Groups(values.view(rows, columns), scales, offsets)
