"""The kernels of `head`: partial arg-max and logsumexp in every program, merged by the last to arrive."""

from __future__ import annotations

from triton import language as tl

from triton_kernels.gemv import rows_times, weights_at
from triton_kernels.launch import kernel, turn
from triton_kernels.layer_norm import normalised
from triton_kernels.skinny import tile_times

_FAR = tl.constexpr(2147483647)


@kernel()
def _observe(
    logits: tl.tensor,
    m: tl.tensor,
    M: tl.tensor,
    n: tl.tensor,
    V: tl.constexpr,
    allow: tl.tensor,
    out: tl.tensor,
    best: tl.tensor,
    choice: tl.tensor,
    peak: tl.tensor,
    total: tl.tensor,
) -> tl.tensor:
    """A tile [BM, BN] of logits into each row's best allowed logit, its id, and the running logsumexp."""
    inside = (m < M)[:, None] & (n < V)[None, :]
    cells = m.to(tl.int64)[:, None] * V + n[None, :]
    if out is not None:
        tl.store(out + cells, logits, mask=inside)
    logits = tl.where(inside, logits, float("-inf"))
    higher = tl.maximum(peak, tl.max(logits, 1))
    base = tl.where(higher == float("-inf"), 0.0, higher)
    total = total * tl.exp(peak - base) + tl.sum(tl.exp(logits - base[:, None]), 1)
    if allow is not None:
        permitted = tl.load(allow + cells, mask=inside, other=0) != 0
        logits = tl.where(permitted, logits, float("-inf"))
    here = tl.max(logits, 1)
    # Ids rise from tile to tile, so only a strictly better logit may replace the choice.
    first = tl.min(tl.where(logits == here[:, None], n[None, :], _FAR), 1)
    better = here > best
    return tl.where(better, here, best), tl.where(better, first, choice), higher, total


@kernel()
def _settle(
    m: tl.tensor,
    M: tl.tensor,
    best: tl.tensor,
    choice: tl.tensor,
    peak: tl.tensor,
    total: tl.tensor,
    partial: tl.tensor,
    counters: tl.tensor,
    ids: tl.tensor,
    logprobs: tl.tensor,
    normalisers: tl.tensor,
    chosen_logits: tl.tensor,
    V: tl.constexpr,
    BM: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Store this program's part; the last one merges all parts, in order, and writes the answers."""
    programs = tl.num_programs(0)
    field = programs * BM
    here = partial + tl.program_id(0) * BM + m
    tl.store(here, best)
    tl.store(here + field, choice.to(tl.float32, bitcast=True))
    tl.store(here + 2 * field, peak)
    tl.store(here + 3 * field, total)
    # Every thread's stores must be done before the one thread that counts says so.
    tl.debug_barrier()
    arrived = tl.atomic_add(counters, 1, sem="acq_rel")
    if arrived < programs - 1:
        return
    tl.store(counters, 0)
    best = tl.full([BM], float("-inf"), tl.float32)
    choice = tl.full([BM], _FAR, tl.int32)
    peak = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    for first in range(0, programs, BLOCK):
        p = first + tl.arange(0, BLOCK)
        cells = partial + p[None, :] * BM + m[:, None]
        inside = (p < programs)[None, :] & (m < M)[:, None]
        bests = tl.load(cells, mask=inside, other=float("-inf"), cache_modifier=".cg")
        choices = tl.load(cells + field, mask=inside, other=0.0, cache_modifier=".cg").to(tl.int32, bitcast=True)
        peaks = tl.load(cells + 2 * field, mask=inside, other=float("-inf"), cache_modifier=".cg")
        totals = tl.load(cells + 3 * field, mask=inside, other=0.0, cache_modifier=".cg")
        higher = tl.maximum(peak, tl.max(peaks, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(peak - base) + tl.sum(totals * tl.exp(peaks - base[:, None]), 1)
        peak = higher
        top = tl.max(bests, 1)
        lowest = tl.min(tl.where(bests == top[:, None], choices, _FAR), 1)
        better = top > best
        best = tl.where(better, top, best)
        choice = tl.where(better, lowest, choice)
    normaliser = peak + tl.log(total)
    # Nothing allowed, or NaN: no logit was better than none.
    chosen = tl.where(choice < V, choice, 0)
    tl.store(ids + m, chosen.to(tl.int64), mask=m < M)
    tl.store(normalisers + m, normaliser, mask=m < M)
    tl.store(logprobs + m, best - normaliser, mask=m < M)
    tl.store(chosen_logits + m, best, mask=m < M)


@kernel()
def head_one(
    x: tl.tensor,
    norm_weight: tl.tensor,
    norm_bias: tl.tensor,
    weight: tl.tensor,
    scales: tl.tensor,
    allow: tl.tensor,
    logits: tl.tensor,
    partial: tl.tensor,
    counters: tl.tensor,
    ids: tl.tensor,
    logprobs: tl.tensor,
    normalisers: tl.tensor,
    chosen_logits: tl.tensor,
    eps: tl.tensor,
    V: tl.constexpr,
    K: tl.constexpr,
    KP: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    CHUNKS: tl.constexpr,
    UNROLL: tl.constexpr,
    FORMAT: tl.constexpr,
    ROUND: tl.constexpr,
    DEPENDENT: tl.constexpr = False,
) -> None:
    """One program: CHUNKS times BN vocabulary rows for the one row of `x`."""
    m = tl.arange(0, 1)
    best = tl.full([1], float("-inf"), tl.float32)
    choice = tl.full([1], _FAR, tl.int32)
    peak = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    n = tl.program_id(0) * CHUNKS * BN + tl.arange(0, BN)
    if FORMAT == "int4":
        turn(DEPENDENT)
        for _ in range(CHUNKS):
            row = rows_times(
                x, norm_weight, norm_bias, weight, scales, n, V, eps, K, BK, True, FORMAT, ROUND, UNROLL, KP, False
            )
            best, choice, peak, total = _observe(row[None, :], m, 1, n, V, allow, logits, best, choice, peak, total)
            n += BN
    else:
        # The next rows are requested before these are reduced, the first before the statistics are known.
        k = tl.arange(0, BK)
        w = weights_at(weight, n, V, k, K)
        turn(DEPENDENT)
        v = normalised(x, norm_weight, norm_bias, k, K, eps).to(ROUND).to(tl.float32)
        for chunk in range(CHUNKS):
            ahead = weights_at(weight, n + BN, tl.where(chunk + 1 < CHUNKS, V, 0), k, K)
            row = tl.sum(w.to(tl.float32) * v[None, :], 1)
            if FORMAT == "int8":
                row = row * tl.load(scales + n, mask=n < V, other=0.0).to(tl.float32)
            best, choice, peak, total = _observe(row[None, :], m, 1, n, V, allow, logits, best, choice, peak, total)
            n += BN
            w = ahead
    _settle(m, 1, best, choice, peak, total, partial, counters, ids, logprobs, normalisers, chosen_logits, V, 1, 256)


@kernel("M")
def head_few(
    x: tl.tensor,
    norm_weight: tl.tensor,
    norm_bias: tl.tensor,
    weight: tl.tensor,
    scales: tl.tensor,
    allow: tl.tensor,
    logits: tl.tensor,
    partial: tl.tensor,
    counters: tl.tensor,
    ids: tl.tensor,
    logprobs: tl.tensor,
    normalisers: tl.tensor,
    chosen_logits: tl.tensor,
    eps: tl.tensor,
    M: tl.tensor,
    V: tl.constexpr,
    K: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    NORM: tl.constexpr,
    FORMAT: tl.constexpr,
    ROUND: tl.constexpr,
    DEPENDENT: tl.constexpr = False,
) -> None:
    """One program: BN vocabulary rows for all rows of `x`."""
    turn(DEPENDENT)
    m = tl.arange(0, BM)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    tile = tile_times(
        x, norm_weight, norm_bias, weight, scales, m, M, n, V, eps, K, BM, BN, BK, NORM, FORMAT, ROUND
    )  # fmt: skip
    if FORMAT == "int8":
        tile = tile * tl.load(scales + n, mask=n < V, other=0.0).to(tl.float32)[None, :]
    best, choice, peak, total = _observe(
        tile,
        m,
        M,
        n,
        V,
        allow,
        logits,
        tl.full([BM], float("-inf"), tl.float32),
        tl.full([BM], _FAR, tl.int32),
        tl.full([BM], float("-inf"), tl.float32),
        tl.zeros([BM], tl.float32),
    )
    _settle(m, M, best, choice, peak, total, partial, counters, ids, logprobs, normalisers, chosen_logits, V, BM, 32)
