"""Keys and values of new tokens into their KV slots."""

from __future__ import annotations

from collections.abc import Sequence

import triton
from torch import Tensor
from triton import language as tl

from triton_kernels.launch import Launch, kernel, turn
from triton_kernels.operands import SpanLike, require
from triton_kernels.spans import SpanTable

BLOCK = 256


def append(fused: Tensor, kv: Tensor, spans: SpanTable) -> None:
    """Write the last 2 * G * D columns of `fused`, [keys of all groups | values], at the rows' slots and positions.

    fused: [T, d + 2 G D], columns contiguous; kv: [slots, 2, G, window, D] of the same dtype, D contiguous.
    Positions are within the window (not checked: they are on the device).
    """
    rows, wide = fused.shape
    groups, head_dim = kv.shape[2], kv.shape[4]
    width = 2 * groups * head_dim
    require(fused.stride(1) == 1 and kv.stride(4) == 1 and fused.dtype == kv.dtype, "append: layout or dtype")
    require(spans.rows.shape[1] == rows, f"append: {rows} rows, {spans.rows.shape[1]} in the span table")
    if rows:
        Launch(
            _append,
            (rows, triton.cdiv(width, BLOCK)),
            {"fused": fused, "kv": kv, "table": spans.rows, **kv_strides(kv)},
            {"STRIDE": fused.stride(0), "FIRST": wide - width, "WIDTH": width, "G": groups, "D": head_dim,
             "BLOCK": BLOCK},
            num_warps=1,
            num_stages=1,
            traffic=2 * rows * width * kv.element_size(),
        ).run()  # fmt: skip


def append_reference(fused: Tensor, kv: Tensor, spans: Sequence[SpanLike]) -> None:
    """The same in plain torch."""
    groups, head_dim = kv.shape[2], kv.shape[4]
    width = 2 * groups * head_dim
    row = 0
    for span in spans:
        new = fused[row : row + span.length, -width:].reshape(span.length, 2, groups, head_dim)
        kv[span.slot, :, :, span.start : span.start + span.length] = new.permute(1, 2, 0, 3)
        row += span.length


def kv_strides(kv: Tensor) -> dict[str, int]:
    """The strides of [slots, 2, G, window, D] that kernels take."""
    return {
        "stride_slot": kv.stride(0),
        "stride_part": kv.stride(1),
        "stride_group": kv.stride(2),
        "stride_position": kv.stride(3),
    }


@kernel()
def kv_offset(
    column: tl.tensor,
    position: tl.tensor,
    slot: tl.tensor,
    stride_slot: tl.tensor,
    stride_part: tl.tensor,
    stride_group: tl.tensor,
    stride_position: tl.tensor,
    G: tl.constexpr,
    D: tl.constexpr,
) -> tl.tensor:
    """Where column `column` of [keys | values] lives; 64 bits, for slots lie far apart."""
    part = column // (G * D)
    group = (column // D) % G
    return (
        slot.to(tl.int64) * stride_slot
        + part.to(tl.int64) * stride_part
        + group.to(tl.int64) * stride_group
        + position.to(tl.int64) * stride_position
        + column % D
    )


@kernel()
def _append(
    fused: tl.tensor,
    kv: tl.tensor,
    table: tl.tensor,
    stride_slot: tl.tensor,
    stride_part: tl.tensor,
    stride_group: tl.tensor,
    stride_position: tl.tensor,
    STRIDE: tl.constexpr,
    FIRST: tl.constexpr,
    WIDTH: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr = False,
) -> None:
    turn(DEPENDENT)
    row = tl.program_id(0)
    slot = tl.load(table + row)
    if slot < 0:
        return
    position = tl.load(table + tl.num_programs(0) + row)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    new = tl.load(fused + row.to(tl.int64) * STRIDE + FIRST + column, mask=inside)
    where = kv_offset(column, position, slot, stride_slot, stride_part, stride_group, stride_position, G, D)
    tl.store(kv + where, new, mask=inside)
