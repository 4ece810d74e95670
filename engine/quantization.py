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
    """values int8 [out, in], scales bfloat16 [out]: weight = value * scale of the row.

    sums int32 [out], of each row's values: what a kernel with unsigned activations has to take off.
    """

    values: Tensor
    scales: Tensor
    sums: Tensor

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
    rows = len(weight)
    into = Int8Rows(
        torch.empty(weight.shape, dtype=torch.int8),
        torch.empty(rows, dtype=torch.bfloat16),
        torch.empty(rows, dtype=torch.int32),
    )
    quantize_int8_into(into, weight, torch.empty(weight.shape))
    return into


def quantize_int8_into(into: Int8Rows, weight: Tensor, scratch: Tensor) -> None:
    """The same, to memory that is there: `into` of the shape of `weight` [out, in], `scratch` float32 of that shape."""
    full = scratch.copy_(weight)
    largest = torch.maximum(full.amax(dim=1), full.amin(dim=1).neg_())
    into.scales.copy_((largest / 127).clamp_min_(_TINY))
    # A scale is rounded by less than 1 / 254 of itself, so that no value is beyond 127.
    full.div_(into.scales.float()[:, None]).round_()
    into.values.copy_(full)
    into.sums.copy_(full.sum(dim=1))  # exact: whole numbers below 2^24


def quantize_int4(weight: Tensor, group: int, scratch: Tensor | None = None) -> Int4Groups:
    """Round each group of inputs of [out, in] to 16 levels from its least to its greatest; `group` divides `in`.

    `scratch`: memory for it, float32 of the shape of `weight`; to take new memory each time costs more than to compute.
    """
    rows, columns = weight.shape
    if columns % group:
        raise ValueError(f"int4 in groups of {group} needs a multiple of {group} inputs, not {columns}")
    full = torch.empty(weight.shape) if scratch is None else scratch
    grouped = full.copy_(weight).view(rows, columns // group, group)
    low, high = grouped.amin(dim=2), grouped.amax(dim=2)
    scales = ((high - low) / 15).clamp_min_(_TINY).bfloat16()
    offsets = (low + 8 * scales.float()).bfloat16()
    grouped.sub_(offsets.float()[:, :, None]).div_(scales.float()[:, :, None]).round_().add_(8).clamp_(0, 15)
    values = full.to(torch.int8).view(torch.uint8)  # to bytes without a sign torch is slow
    return Int4Groups(values, scales, offsets)
