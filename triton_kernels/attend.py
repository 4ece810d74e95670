"""Causal attention of new tokens over their contiguous KV slot, for one or several spans in one launch.

The query heads that share a key head, times the tokens of a span, are the rows of tl.dot, so multi-query attention reads
keys and values once for all heads. Few rows over long keys are split along the keys, as in flash-decoding (Dao et al.
2023); the last program to arrive merges the parts, so a captured graph needs no second launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import triton
from torch import Tensor

from triton_kernels.attend_kernel import attend_kernel
from triton_kernels.configs import Target, attend_tile, splits
from triton_kernels.launch import Launch
from triton_kernels.operands import DTYPES, SpanLike, require
from triton_kernels.spans import SpanTable

MAX_HEAD_DIM = 256
COUNTERS = 65536
_LOG2_E = 1.4426950408889634


@dataclass(slots=True)
class Workspace:
    """Scratch memory of the split launches on one device, for one stream. `counters` are zero between launches."""

    counters: Tensor
    partial: Tensor
    outgrown: list[Tensor] = field(default_factory=list)

    @classmethod
    def on(cls, device: torch.device) -> Workspace:
        """A new one; `partial` grows with what is asked for."""
        return cls(
            torch.zeros(COUNTERS, dtype=torch.int32, device=device),
            torch.empty(0, dtype=torch.float32, device=device),
        )

    def reserve(self, floats: int) -> Tensor:
        """`partial`, at least this large; its contents are arbitrary.

        What was outgrown stays: captured graphs go on using it. It doubles, so all of it is less than what is in use.
        """
        if self.partial.numel() < floats:
            self.outgrown.append(self.partial)
            size = max(floats, 2 * self.partial.numel())
            self.partial = torch.empty(size, dtype=torch.float32, device=self.partial.device)
        return self.partial


def attend(
    q: Tensor,
    kv: Tensor,
    spans: SpanTable,
    scale: float,
    workspace: Workspace,
    target: Target,
    parts: int | None = None,
) -> Tensor:
    """`attend_apart` over the keys and values of kv [slots, 2, G, window, D]."""
    return attend_apart(q, kv[:, 0], kv[:, 1], spans, scale, workspace, target, parts)


def attend_apart(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    spans: SpanTable,
    scale: float,
    workspace: Workspace,
    target: Target,
    parts: int | None = None,
) -> Tensor:
    """-> softmax(scale * q k^T, causal) v [T, heads * D] in the dtype of `q`; rows of no span are left unwritten.

    q: [T, heads * D], columns contiguous; keys, values: [slots, G, window, D] of the same dtype and with the same strides,
    D contiguous, already holding those of the new tokens; D a multiple of 8 up to 256, heads a multiple of G. Positions
    after a row's own are never read into its result, whatever they hold. `parts` overrides the number of splits. Not
    reentrant: one stream per workspace. Raises ValueError where shapes or dtypes do not fit.
    """
    rows, width = q.shape
    groups, head_dim = keys.shape[1], keys.shape[3]
    require(
        q.dtype == keys.dtype == values.dtype,
        f"attend: {q.dtype} queries over {keys.dtype} keys, {values.dtype} values",
    )
    require(q.dtype in DTYPES, f"attend: {q.dtype}")
    require(
        keys.shape == values.shape and keys.stride() == values.stride(),
        "attend: keys and values must be laid out alike",
    )
    require(head_dim % 8 == 0 and head_dim <= MAX_HEAD_DIM, f"attend: head_dim {head_dim}")
    require(width % (head_dim * groups) == 0, f"attend: {width} columns, {groups} groups of head_dim {head_dim}")
    require(q.stride(1) == 1 and keys.stride(3) == 1, "attend: columns must be contiguous")
    require(spans.rows.shape[1] == rows, f"attend: {rows} rows, {spans.rows.shape[1]} in the span table")
    out = torch.empty(rows, width, dtype=q.dtype, device=q.device)
    if rows == 0 or spans.longest == 0:
        return out
    heads = width // head_dim // groups
    tile = attend_tile(target, spans.longest * heads, head_dim, q.element_size())
    tiles = triton.cdiv(spans.longest * heads, tile.rows)
    programs = tiles * spans.spans.shape[1] * groups
    if parts is None:
        parts = splits(target, programs, triton.cdiv(spans.reach, tile.columns))
    require(parts == 1 or programs <= COUNTERS, f"attend: {programs} tiles cannot be split")
    padded = triton.next_power_of_2(max(head_dim, 16))
    Launch(
        attend_kernel,
        (tiles, parts, spans.spans.shape[1] * groups),
        {
            "q": q,
            "all_keys": keys,
            "all_values": values,
            "out": out,
            "spans": spans.spans,
            "partial": workspace.reserve(programs * parts * tile.rows * (padded + 2)) if parts > 1 else None,
            "counters": workspace.counters if parts > 1 else None,
            "scale": scale * _LOG2_E,
            "stride_slot": keys.stride(0),
            "stride_group": keys.stride(1),
            "stride_position": keys.stride(2),
        },
        {
            "STRIDE_Q": q.stride(0),
            "HEADS": heads,
            "G": groups,
            "D": head_dim,
            "DP": padded,
            "BM": tile.rows,
            "BN": tile.columns,
            "SPLIT": parts > 1,
        },
        tile.warps,
        tile.stages,
        traffic=2 * rows * width * q.element_size()
        + 2 * spans.spans.shape[1] * groups * spans.reach * head_dim * keys.element_size(),
    ).run()
    return out


def attend_reference(q: Tensor, kv: Tensor, spans: Sequence[SpanLike], scale: float) -> Tensor:
    """The same in plain torch: query heads are rows of the product, keys are never expanded."""
    groups, head_dim = kv.shape[2], kv.shape[4]
    heads = q.shape[1] // head_dim // groups
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    first = 0
    for span in spans:
        end = span.start + span.length
        keys, values = kv[span.slot, 0, :, :end], kv[span.slot, 1, :, :end]
        rows = q[first : first + span.length].reshape(span.length, groups, heads, head_dim)
        rows = rows.transpose(0, 1).reshape(groups, span.length * heads, head_dim)
        scores = torch.matmul(rows, keys.transpose(1, 2))
        scores = (scores if scores.dtype == torch.float64 else scores.float()) * scale
        later = torch.ones(span.length, end, dtype=torch.bool, device=q.device).triu_(span.start + 1)
        scores.view(groups, span.length, heads, end).masked_fill_(later[None, :, None], float("-inf"))
        mixed = torch.matmul(torch.softmax(scores, dim=-1).to(q.dtype), values)
        mixed = mixed.view(groups, span.length, heads, head_dim).transpose(0, 1)
        out[first : first + span.length] = mixed.reshape(span.length, -1)
        first += span.length
    return out
