"""The kernel of `attend`: an unmasked loop over keys that every row sees, a masked one over the rest."""

from __future__ import annotations

from triton import language as tl

from triton_kernels.launch import kernel, turn


@kernel()
def _block(
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    stride_position: tl.tensor,
    first: tl.tensor,
    end: tl.tensor,
    last: tl.tensor,
    best: tl.tensor,
    total: tl.tensor,
    acc: tl.tensor,
    scale: tl.tensor,
    D: tl.constexpr,
    DP: tl.constexpr,
    BN: tl.constexpr,
    MASKED: tl.constexpr,
) -> tl.tensor:
    """Keys [first, first + BN) into the running maximum, sum and mix; row r sees keys up to last[r]."""
    n = first + tl.arange(0, BN)
    d = tl.arange(0, DP)
    cells = n[:, None] * stride_position + d[None, :]
    if MASKED:
        inside = (n < end)[:, None] & (d < D)[None, :]
        k = tl.load(keys + cells, mask=inside, other=0.0, eviction_policy="evict_last")
        v = tl.load(values + cells, mask=inside, other=0.0, eviction_policy="evict_last")
    elif D == DP:
        k = tl.load(keys + cells, eviction_policy="evict_last")
        v = tl.load(values + cells, eviction_policy="evict_last")
    else:
        k = tl.load(keys + cells, mask=(d < D)[None, :], other=0.0, eviction_policy="evict_last")
        v = tl.load(values + cells, mask=(d < D)[None, :], other=0.0, eviction_policy="evict_last")
    scores = tl.dot(queries, tl.trans(k), input_precision="ieee") * scale
    if MASKED:
        scores = tl.where((n < end)[None, :] & (n[None, :] <= last[:, None]), scores, float("-inf"))
    higher = tl.maximum(best, tl.max(scores, 1))
    base = tl.where(higher == float("-inf"), 0.0, higher) if MASKED else higher
    weights = tl.exp2(scores - base[:, None])
    decay = tl.exp2(best - base)
    total = total * decay + tl.sum(weights, 1)
    acc = tl.dot(weights.to(v.dtype), v, acc * decay[:, None], input_precision="ieee")
    return higher, total, acc


@kernel()
def _merge(
    partial: tl.tensor,
    sums: tl.tensor,
    tile: tl.tensor,
    parts: tl.tensor,
    active: tl.tensor,
    BM: tl.constexpr,
    DP: tl.constexpr,
) -> tl.tensor:
    """Mix and sum over the `active` first parts of `tile`. `.cg`: other processors wrote them, L1 may be stale."""
    m = tl.arange(0, BM)
    d = tl.arange(0, DP)
    best = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, DP], tl.float32)
    for part in range(active):
        row = (tile * parts + part).to(tl.int64) * BM + m
        other = tl.load(sums + 2 * row, cache_modifier=".cg")
        weight = tl.load(sums + 2 * row + 1, cache_modifier=".cg")
        mixed = tl.load(partial + row[:, None] * DP + d[None, :], cache_modifier=".cg")
        higher = tl.maximum(best, other)
        base = tl.where(higher == float("-inf"), 0.0, higher)
        old = tl.exp2(best - base)
        new = tl.exp2(other - base)
        total = total * old + weight * new
        acc = acc * old[:, None] + mixed * new[:, None]
        best = higher
    return total, acc


@kernel()
def attend_kernel(
    q: tl.tensor,
    all_keys: tl.tensor,
    all_values: tl.tensor,
    out: tl.tensor,
    spans: tl.tensor,
    partial: tl.tensor,
    counters: tl.tensor,
    scale: tl.tensor,
    stride_slot: tl.tensor,
    stride_group: tl.tensor,
    stride_position: tl.tensor,
    STRIDE_Q: tl.constexpr,
    HEADS: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    SPLIT: tl.constexpr,
    DEPENDENT: tl.constexpr = False,
) -> None:
    """One program: BM rows (token * HEADS + head) of one span and group over one part of the keys."""
    turn(DEPENDENT)
    span = tl.program_id(2) // G
    group = tl.program_id(2) % G
    count = tl.num_programs(2) // G
    slot = tl.load(spans + span).to(tl.int64)
    start = tl.load(spans + count + span)
    length = tl.load(spans + 2 * count + span)
    first = tl.load(spans + 3 * count + span)
    row = tl.program_id(0) * BM
    if row >= length * HEADS:
        return
    end = start + tl.minimum((row + BM - 1) // HEADS, length - 1) + 1
    common = start + row // HEADS + 1
    begin = 0
    stop = end
    active = 1
    if SPLIT:
        blocks = tl.cdiv(end, BN)
        each = tl.maximum(tl.cdiv(blocks, tl.num_programs(1)), 2)
        active = tl.cdiv(blocks, each)
        begin = tl.program_id(1) * each * BN
        stop = tl.minimum(begin + each * BN, end)
        if begin >= end:
            return
    m = row + tl.arange(0, BM)
    d = tl.arange(0, DP)
    token = m // HEADS
    inside = (token < length)[:, None] & (d < D)[None, :]
    column = (group * HEADS + m % HEADS)[:, None] * D + d[None, :]
    queries = tl.load(q + (first + token).to(tl.int64)[:, None] * STRIDE_Q + column, mask=inside, other=0.0)
    own = slot * stride_slot + group.to(tl.int64) * stride_group
    keys = all_keys + own
    values = all_values + own
    best = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, DP], tl.float32)
    last = start + token
    plain = begin + tl.maximum(tl.minimum(stop, common) - begin, 0) // BN * BN
    for n in range(begin, plain, BN):
        best, total, acc = _block(
            queries, keys, values, stride_position, n, stop, last, best, total, acc, scale, D, DP, BN, False
        )  # fmt: skip
    for n in range(plain, stop, BN):
        best, total, acc = _block(
            queries, keys, values, stride_position, n, stop, last, best, total, acc, scale, D, DP, BN, True
        )  # fmt: skip
    if SPLIT:
        tiles = tl.num_programs(0) * tl.num_programs(2)
        tile = tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)
        parts = tl.num_programs(1)
        sums = partial + (tiles * parts).to(tl.int64) * BM * DP
        here = (tile * parts + tl.program_id(1)).to(tl.int64) * BM + tl.arange(0, BM)
        tl.store(partial + here[:, None] * DP + d[None, :], acc)
        tl.store(sums + 2 * here, best)
        tl.store(sums + 2 * here + 1, total)
        # Every thread's stores must be done before the one thread that counts says so.
        tl.debug_barrier()
        arrived = tl.atomic_add(counters + tile, 1, sem="acq_rel")
        if arrived < active - 1:
            return
        tl.store(counters + tile, 0)
        total, acc = _merge(partial, sums, tile, parts, active, BM, DP)
    mixed = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(
        out + (first + token).to(tl.int64)[:, None] * (HEADS * G * D) + column,
        mixed.to(out.dtype.element_ty),
        mask=inside,
    )
