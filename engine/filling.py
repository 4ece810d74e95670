"""Layers that are given their rows as they come from a file, while these are in the processor's cache.

So a weight is read once and written once, and what it is quantised from is never whole in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from engine import packed, pages
from engine.blocked import Blocked, Order, order_of
from engine.ops import Linear
from engine.packed import BlockedLinear, Int4Linear, Int8Linear
from engine.quantization import Int8Rows, quantize_int4, quantize_int8_into

_INT4_ROWS = 64
"""The int4 kernel's largest block: pieces of so many rows stand one after another as they do in the whole."""

_ELEMENTS = 2**19
"""What is quantised at a time."""


class Filling(Protocol):
    """A layer to be."""

    @property
    def rows(self) -> int:
        """A multiple of which `put` is given, but for the last rows."""
        ...

    def put(self, first: int, rows: Tensor) -> None:
        """Rows [n, in] of a floating-point weight, from output `first` on. They are not kept."""
        ...

    def layer(self, bias: Tensor) -> Linear:
        """The layer, when all rows are there; `bias` [out] of the activations' dtype."""
        ...


class FilledBlocks:
    """A `BlockedLinear` to be."""

    def __init__(self, order: Order) -> None:
        self._blocks = Blocked(order)
        self.rows = order.lanes

    def put(self, first: int, rows: Tensor) -> None:
        """See `Filling`."""
        self._blocks.put(first, rows)

    def layer(self, bias: Tensor) -> Linear:
        """See `Filling`."""
        return BlockedLinear(self._blocks.weight(), bias, self._blocks.memory)


class FilledInt8:
    """Rows of int8: a layer or a table to be."""

    rows = 1

    def __init__(self, outputs: int, inputs: int) -> None:
        self._made = Int8Rows(
            _room((outputs, inputs), torch.int8), _room((outputs,), torch.bfloat16), _room((outputs,), torch.int32)
        )
        self._scratch = torch.empty(min(outputs, _at_a_time(inputs)), inputs)

    def put(self, first: int, rows: Tensor) -> None:
        """See `Filling`."""
        pages.take(self._made.values[first : first + len(rows)])
        for at in _in_cache(rows):
            into = Int8Rows(*(part[first + at.start : first + at.stop] for part in self._made))
            quantize_int8_into(into, rows[at], self._scratch[: at.stop - at.start])

    def table(self) -> Int8Rows:
        """The rows, when all are there."""
        return self._made

    def layer(self, bias: Tensor) -> Linear:
        """See `Filling`."""
        return packed.int8(self.table(), bias)


class FilledInt4:
    """An `Int4Linear` to be, of the size of `like`."""

    rows = _INT4_ROWS

    def __init__(self, like: Int4Linear) -> None:
        self._group = like.group
        self._weight, self._scales = (_room(tuple(part.shape), part.dtype) for part in (like.weight, like.scales))
        self._scratch = torch.empty(_at_a_time(2 * like.weight.shape[1], _INT4_ROWS), 2 * like.weight.shape[1])

    def put(self, first: int, rows: Tensor) -> None:
        """See `Filling`."""
        pages.take(self._weight[first : first + len(rows)])
        for at in _in_cache(rows, _INT4_ROWS):
            groups = quantize_int4(rows[at], self._group, self._scratch[: at.stop - at.start])
            weight, scales = packed.blocks_of(groups)
            to = slice(first + at.start, first + at.start + len(weight))
            self._weight[to], self._scales[:, to] = weight, scales

    def layer(self, bias: Tensor) -> Linear:
        """See `Filling`."""
        return Int4Linear(self._weight, bias, self._scales, self._group)


def another(first: Linear, plain: Tensor) -> Callable[[], Filling] | None:
    """What makes layers of the size and form of `first` as their rows come; it was made of `plain` [out, in].

    None where such a layer is made of its whole weight.
    """
    outputs, inputs = plain.shape
    if isinstance(first, BlockedLinear):
        order = order_of(first.weight, plain.to(first.bias.dtype))
        return None if order is None else lambda: FilledBlocks(order)
    if isinstance(first, Int8Linear):
        return lambda: FilledInt8(outputs, inputs)
    return (lambda: FilledInt4(first)) if isinstance(first, Int4Linear) else None


def _in_cache(rows: Tensor, multiple: int = 1) -> list[slice]:
    """Of rows [n, in], as many at a time as the processor's cache has room for, with all that quantising makes of them."""
    count = _at_a_time(rows.shape[1], multiple)
    return [slice(at, min(len(rows), at + count)) for at in range(0, len(rows), count)]


def _at_a_time(inputs: int, multiple: int = 1) -> int:
    """Rows of so many inputs."""
    return max(1, _ELEMENTS // (inputs * multiple)) * multiple


def _room(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory that is taken as it is filled."""
    return pages.room(math.prod(shape) * dtype.itemsize).view(dtype).view(shape)
