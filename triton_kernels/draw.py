"""Sampling on the device: temperature, min-p, top-k, top-p and one draw by Gumbel noise, and the step to the next token.

The parameters mean what the engine's sampler says, and the noise is the same function of (seed, candidate, position,
token): Philox4x32-10, then -log(-log u) in float64. So a seed says the same wherever its logits do.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from triton_kernels.attend import COUNTERS, Workspace
from triton_kernels.draw_kernel import advance_kernel, draw_kernel, narrow_kernel
from triton_kernels.head import Choice
from triton_kernels.launch import Launch, nbytes
from triton_kernels.operands import require
from triton_kernels.spans import SpanTable

DRAW_FIELDS = 10
_BLOCK, _NARROW_BLOCK = 1024, 2048
_MAX_PARTS = 256


class HostDraw(NamedTuple):
    """How one token is drawn from row `row` of the logits. A temperature of 0 adds no noise; `position` is the new token's.

    The rest is as in the engine's `Sampling`.
    """

    row: int
    position: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    penalty: float = 1.0
    seed: int = 0
    candidate: int = 0

    @property
    def narrows(self) -> bool:
        """Whether it takes more than one look at the logits."""
        return self.top_k > 0 or self.top_p < 1 or self.penalty != 1

    def packed(self) -> tuple[int, ...]:
        """Its fields as 32-bit integers, in the kernels' order."""
        floor = math.log(self.min_p) if self.min_p > 0 else -math.inf
        return (
            self.row,
            _signed(self.seed),
            _signed(self.seed >> 32),
            self.candidate,
            self.position,
            _bits(self.temperature),
            _bits(floor),
            min(max(self.top_k, 0), 2**31 - 1),
            _bits(self.top_p),
            _bits(self.penalty),
        )


@dataclass(frozen=True, slots=True)
class Following:
    """What `draw` and `advance` leave ready for the next step, all on the device, one row for each span of one token.

    tokens: integers [R], the ids that the next step embeds; spans: their places, moved on by one; `stops`: int32 ids that
    end a row, or None. A row that ended, or whose next token would stand beyond the table's `reach`, has no slot any more:
    replays leave it alone.
    """

    tokens: Tensor
    spans: SpanTable
    stops: Tensor | None


def draw_table(draws: Sequence[HostDraw], *, pinned: bool = False) -> Tensor:
    """-> int32 [10, R] on the host, what `draw` takes once it is on the device."""
    table = torch.empty(DRAW_FIELDS, len(draws), dtype=torch.int32, device="cpu", pin_memory=pinned)
    table.copy_(torch.tensor([each.packed() for each in draws], dtype=torch.int32, device="cpu").T)
    return table


def draw(
    choice: Choice,
    table: Tensor,
    workspace: Workspace,
    *,
    allow: Tensor | None = None,
    seen: Tensor | None = None,
    narrowed: bool = True,
    following: Following | None = None,
) -> tuple[Tensor, Tensor]:
    """-> ids int64 [R] and their log-probabilities float32 [R], over all tokens and before any penalty or mask.

    choice: of `head`, with logits [S, V], under the same `allow`; table: int32 [10, R] of `draw_table`; allow: contiguous
    bool [S, V] or None; seen: contiguous bool [R, V], the tokens that a penalty applies to, or None; narrowed: False
    promises that no draw `narrows`, which saves a launch; following: with it every draw r is of row r, and goes on.
    Raises ValueError where shapes do not fit.
    """
    logits = choice.logits
    if logits is None:
        raise ValueError("draw: the head was not asked for logits")
    (rows, size), draws = logits.shape, table.shape[1]
    require(table.dtype == torch.int32 and table.shape[0] == DRAW_FIELDS and table.is_contiguous(), "draw: table")
    require(0 < draws <= COUNTERS, f"draw: {draws} draws")
    require(allow is None or (allow.shape == (rows, size) and allow.is_contiguous()), "draw: allow must be bool [S, V]")
    require(seen is None or (seen.shape == (draws, size) and seen.is_contiguous()), "draw: seen must be bool [R, V]")
    require(seen is None or narrowed, "draw: a penalty moves the peak; narrowed must be true")
    parts = triton.cdiv(size, _BLOCK)
    require(parts <= _MAX_PARTS, f"draw: {size} tokens; {_MAX_PARTS * _BLOCK} are supported")
    masks = {
        "allow": None if allow is None else allow.view(torch.uint8),
        "seen": None if seen is None else seen.view(torch.uint8),
    }
    limits = None
    if narrowed:
        limits = torch.empty(3, draws, dtype=torch.float32, device=logits.device)
        keys = torch.empty(draws, size, dtype=torch.int32, device=logits.device)
        Launch(
            narrow_kernel,
            (draws,),
            {"logits": logits, **masks, "table": table, "keys": keys, "limits": limits},
            {"V": size, "BLOCK": _NARROW_BLOCK},
            num_warps=8,
            num_stages=1,
            traffic=nbytes(logits, allow, seen, keys),
        ).run()
    ids = torch.empty(draws, dtype=torch.int64, device=logits.device)
    logprobs = torch.empty(draws, dtype=torch.float32, device=logits.device)
    if following is not None:
        _check(following, draws)
    stops = None if following is None else following.stops
    Launch(
        draw_kernel,
        (parts, draws),
        {
            "logits": logits,
            "normalisers": choice.normalisers,
            "peaks": choice.peaks,
            "limits": limits,
            **masks,
            "table": table,
            "partial": workspace.reserve(2 * parts * draws),
            "counters": workspace.counters,
            "ids": ids,
            "logprobs": logprobs,
            "tokens": None if following is None else following.tokens,
            "spans": None if following is None else following.spans.spans,
            "rows": None if following is None else following.spans.rows,
            "stops": stops,
        },
        {
            "STOPS": 1 if stops is None else stops.shape[0],
            "REACH": 0 if following is None else following.spans.reach,
            "V": size,
            "BLOCK": _BLOCK,
            "PARTS": triton.next_power_of_2(parts),
        },
        num_warps=4,
        num_stages=1,
        traffic=nbytes(logits, allow, seen),
    ).run()
    return ids, logprobs


def advance(ids: Tensor, following: Following) -> None:
    """The step from greedy `ids` int64 [R] to the next token of every row; see `Following`."""
    rows = ids.shape[0]
    _check(following, rows)
    stops = following.stops
    Launch(
        advance_kernel,
        (1,),
        {
            "ids": ids,
            "tokens": following.tokens,
            "spans": following.spans.spans,
            "rows": following.spans.rows,
            "stops": stops,
        },
        {
            "R": rows,
            "STOPS": 1 if stops is None else stops.shape[0],
            "REACH": following.spans.reach,
            "BLOCK": triton.next_power_of_2(rows),
        },
        num_warps=1,
        num_stages=1,
        traffic=nbytes(ids, following.tokens, following.spans.buffer),
    ).run()


def _check(following: Following, rows: int) -> None:
    table = following.spans
    require(
        following.tokens.shape == (rows,) and table.spans.shape[1] == table.rows.shape[1] == rows,
        f"{rows} tokens do not go on in {table.spans.shape[1]} spans of {table.rows.shape[1]} rows",
    )
    stops = following.stops
    require(
        stops is None or triton.next_power_of_2(stops.shape[0]) == stops.shape[0], "stops: repeat one, for a power of 2"
    )


def _bits(value: float) -> int:
    return int(struct.unpack("<i", struct.pack("<f", value))[0])


def _signed(word: int) -> int:
    word &= 0xFFFFFFFF
    return word - 2**32 if word >= 2**31 else word
