"""Dense layers in the forms that a CPU multiplies fast, through kernels that torch does not document.

Each kernel is tried once against a plain product before anything is stored for it. Where one is missing or wrong, its
layers are stored in a portable form instead: the same numbers, slower, with a warning in the log.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.blocked import blocked
from engine.ops import Linear
from engine.quantization import Int4Groups, Int8Rows, quantize_int4, quantize_int8

log = logging.getLogger(__name__)

_INT8_LANES = 32
"""The int8 kernel reads past the end of rows that are no multiple of its vectors."""

_INT4_BLOCK = 16
"""The int4 kernel's order is made of blocks of so many outputs."""

_INT4_ROWS = 64
"""The largest of these blocks."""

_FEW_ROWS = 8
"""Rows of input up to which the int8 kernel is faster than widening the matrix for the product."""

_WIDENED = 1024
"""Outputs of a matrix that are widened at a time, so that they are multiplied while they are in the cache."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockedLinear(Linear):
    """A floating-point layer in oneDNN's own order; `weight` is opaque, over `blocks` if its memory is ours."""

    blocks: Tensor | None = None

    @property
    def memory(self) -> Tensor | None:
        """See `Linear`."""
        return self.blocks

    def __call__(self, x: Tensor) -> Tensor:
        """See `Linear`."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return y

    def gelu(self, x: Tensor, *, exact: bool) -> Tensor:
        """See `Linear`; in one call."""
        form = "none" if exact else "tanh"
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], form)
        return y


@dataclass(frozen=True, slots=True, eq=False)
class WidenedHalf(Linear):
    """float16 where the processor cannot compute in it: widened to float32 for the product."""

    def __call__(self, x: Tensor) -> Tensor:
        """See `Linear`."""
        full = x.float()
        return _by_parts(x, self.weight, lambda part: F.linear(full, self.weight[part].float())).add_(self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Int8Linear(Linear):
    """`weight` int8 [out, in], `scales` bfloat16 and `sums` int32 [out], see `Int8Rows`.

    `few` is how many rows of x the kernel is used for.
    """

    scales: Tensor
    sums: Tensor
    few: int

    def __call__(self, x: Tensor) -> Tensor:
        """See `Linear`."""
        if x.shape[0] <= self.few:
            return torch._weight_int8pack_mm(x, self.weight, self.scales).add_(self.bias)
        # Whole numbers up to 127 are exact in bfloat16, so the scale is applied to the product, not to the matrix.
        y = x.new_empty(x.shape[0], self.weight.shape[0])
        for start in range(0, y.shape[1], _WIDENED):
            part = slice(start, start + _WIDENED)
            product = F.linear(x, self.weight[part].to(x.dtype))
            torch.addcmul(self.bias[part], product, self.scales[part], out=y[:, part])
        return y


@dataclass(frozen=True, slots=True, eq=False)
class Int4Linear(Linear):
    """`weight` in the kernel's order, outputs filled up to whole blocks; `scales` bfloat16 [in / group, out, 2]."""

    scales: Tensor
    group: int

    def __call__(self, x: Tensor) -> Tensor:
        """See `Linear`."""
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.weight, self.group, self.scales)
        return y[:, : self.bias.shape[0]] + self.bias


@dataclass(frozen=True, slots=True, eq=False)
class WidenedInt4(Linear):
    """`weight` uint8 [out, in / 2], two inputs a byte, the even one low; widened for every product."""

    scales: Tensor
    offsets: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """See `Linear`."""

        def product(part: slice) -> Tensor:
            pairs = self.weight[part]
            values = torch.stack((pairs & 15, pairs >> 4), dim=2).view(pairs.shape[0], -1)
            return F.linear(x, Int4Groups(values, self.scales[part], self.offsets[part]).dense(x.dtype))

        return _by_parts(x, self.weight, product).add_(self.bias)


def _by_parts(x: Tensor, weight: Tensor, product: Callable[[slice], Tensor]) -> Tensor:
    """-> [T, out] of the dtype of `x`, from products with some outputs each."""
    y = x.new_empty(x.shape[0], weight.shape[0])
    for start in range(0, weight.shape[0], _WIDENED):
        part = slice(start, start + _WIDENED)
        y[:, part] = product(part)
    return y


def dense(weight: Tensor, bias: Tensor) -> Linear:
    """A floating-point layer; `weight` [out, in] and `bias` [out] of one dtype."""
    if works(weight.dtype):
        return BlockedLinear(blocked(weight), bias)
    return WidenedHalf(weight, bias) if weight.dtype == torch.float16 else Linear(weight, bias)


def int8(rows: Int8Rows, bias: Tensor) -> Linear:
    """A layer of quantised rows; `bias` [out] bfloat16."""
    packed = rows.values.shape[1] % _INT8_LANES == 0 and works("int8")
    return Int8Linear(rows.values, bias, rows.scales, rows.sums, _FEW_ROWS if packed else 0)


def int4(weight: Tensor, bias: Tensor, group: int) -> Linear:
    """A layer [out, in] in four bits, in groups of `group` inputs; int8 where `group` does not divide the inputs."""
    if weight.shape[1] % group:
        return int8(quantize_int8(weight), bias)
    groups = quantize_int4(weight, group)
    if not works("int4"):
        pairs = groups.values[:, 0::2] | groups.values[:, 1::2] << 4
        return WidenedInt4(pairs, bias, groups.scales, groups.offsets)
    values, scales = blocks_of(groups)
    return Int4Linear(values, bias, scales, group)


def blocks_of(groups: Int4Groups) -> tuple[Tensor, Tensor]:
    """Weight and scales of an `Int4Linear`, outputs filled up to whole blocks."""
    fill = (0, 0, 0, -len(groups.values) % _INT4_BLOCK)
    values, scales, offsets = (F.pad(part, fill) if any(fill) else part for part in groups)
    return _int4_blocks(values), torch.stack((scales, offsets), dim=2).transpose(0, 1).contiguous()


def _int4_blocks(values: Tensor) -> Tensor:
    """uint8 [out, in] -> [out, in / 2] in the kernel's order, written here where that is known: torch takes much longer."""
    if len(values) % _INT4_ROWS or not _int4_order_is_known():
        made: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.int(), 1)
        return made
    return _in_int4_order(values)


def _in_int4_order(values: Tensor) -> Tensor:
    """Blocks of 64 outputs, the first half of them in the low bits, all of an input side by side.

    Four bytes go as one number to where they belong: torch moves bytes as slowly.
    """
    blocks = values.view(-1, 2, _INT4_ROWS // 8, 4, values.shape[1])
    pairs = blocks[:, 0] | blocks[:, 1] << 4
    words = pairs[:, :, 3].int()
    for lower in (2, 1, 0):
        words = words.mul_(256).add_(pairs[:, :, lower])
    ordered = torch.empty(words.shape[0], words.shape[2], words.shape[1], dtype=torch.int32)
    return ordered.copy_(words.transpose(1, 2)).view(torch.uint8).view(len(values), -1)


@functools.cache
def _int4_order_is_known() -> bool:
    """Whether torch's kernel wants what `_in_int4_order` makes."""
    values = torch.randint(16, (2 * _INT4_ROWS, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.int(), 1)
    return torch.equal(whole.flatten(), _in_int4_order(values).flatten())


def vocabulary(table: Tensor | Int8Rows) -> Linear:
    """The product with an embedding [V, d].

    Over the memory of int8 rows; floating-point rows are kept a second time, because the blocked form cannot be looked
    up by row, and reading the rows as they are is slower at every token.
    """
    if isinstance(table, Int8Rows):
        return int8(table, table.scales.new_zeros(len(table.values)))
    return dense(table, table.new_zeros(len(table)))


@functools.cache
def works(kernel: torch.dtype | str) -> bool:
    """Whether a kernel is here and right: that of a floating-point dtype, "int8" or "int4"."""
    try:
        right = _try(kernel)
    except (RuntimeError, AttributeError, TypeError):  # gone, with other parameters, or not for this processor
        right = False
    if not right:
        name = str(kernel).removeprefix("torch.")
        log.warning("this torch has no packed %s product for this processor: a slower one is used", name)
    return right


def _try(kernel: torch.dtype | str) -> bool:
    """Multiply with made-up numbers and compare with float64."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 128, generator=generator) / 12
    x = torch.randn(5, 128, generator=generator)
    if isinstance(kernel, torch.dtype):
        if kernel == torch.float16 and not torch.ops.mkldnn._is_mkldnn_fp16_supported():
            return False
        weight, x = weight.to(kernel), x.to(kernel)
        layer: Linear = BlockedLinear(blocked(weight), x.new_zeros(96))
        exact = weight.double()
    else:
        x = x.bfloat16()
        no_bias = x.new_zeros(96)
        if kernel == "int8":
            rows = quantize_int8(weight)
            layer = Int8Linear(rows.values, no_bias, rows.scales, rows.sums, _FEW_ROWS)
            exact = rows.dense(torch.float64)
        else:
            groups = quantize_int4(weight, 32)
            values, scales = blocks_of(groups)
            layer, exact = Int4Linear(values, no_bias, scales, 32), groups.dense(torch.float64)
    for rows_of_x in (x, x[:1]):
        wanted = rows_of_x.double() @ exact.T
        if not torch.allclose(
            layer(rows_of_x).double(), wanted, rtol=0.0, atol=max(1e-4, 16 * torch.finfo(x.dtype).eps)
        ):
            return False
    return True
