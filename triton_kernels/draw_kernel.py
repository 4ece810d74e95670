"""The kernels of `draw`: what a row may still become, the draw itself, and the step from one token to the next."""

from __future__ import annotations

from triton import language as tl

from triton_kernels.launch import kernel, turn

ROW, SEED_LOW, SEED_HIGH, CANDIDATE, POSITION, TEMPERATURE, FLOOR, TOP_K, TOP_P, PENALTY = (
    tl.constexpr(field) for field in range(10)
)
"""Fields of a draw, in the order of `DrawTable`."""

_FAR = tl.constexpr(2147483647)
_INFINITE = tl.constexpr(0x7F800000)


@kernel()
def _penalised(
    logits: tl.tensor,
    allow: tl.tensor,
    seen: tl.tensor,
    row: tl.tensor,
    draw: tl.tensor,
    penalty: tl.tensor,
    n: tl.tensor,
    V: tl.constexpr,
) -> tl.tensor:
    """Logits of tokens `n` after penalty and mask; -inf outside."""
    inside = n < V
    z = tl.load(logits + row.to(tl.int64) * V + n, mask=inside, other=float("-inf"))
    if seen is not None:
        marked = tl.load(seen + draw.to(tl.int64) * V + n, mask=inside, other=0) != 0
        z = tl.where(marked, tl.where(z > 0, tl.div_rn(z, penalty), z * penalty), z)
    if allow is not None:
        permitted = tl.load(allow + row.to(tl.int64) * V + n, mask=inside, other=0) != 0
        z = tl.where(permitted, z, float("-inf"))
    return z


@kernel()
def narrow_kernel(
    logits: tl.tensor,
    allow: tl.tensor,
    seen: tl.tensor,
    table: tl.tensor,
    keys: tl.tensor,
    limits: tl.tensor,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr = False,
) -> None:
    """One program: the peak of one draw, the least score that top-k and top-p leave, and the last id that has it.

    A score is at most 0; the bits of its negative, as an integer, rise as it falls, so bit by bit they are bisected.
    """
    turn(DEPENDENT)
    draw = tl.program_id(0)
    draws = tl.num_programs(0)
    row = tl.load(table + ROW * draws + draw)
    heat = tl.load(table + TEMPERATURE * draws + draw).to(tl.float32, bitcast=True)
    heat = tl.where(heat > 0, heat, 1.0)
    floor = tl.load(table + FLOOR * draws + draw).to(tl.float32, bitcast=True)
    top_k = tl.load(table + TOP_K * draws + draw)
    top_p = tl.load(table + TOP_P * draws + draw).to(tl.float32, bitcast=True)
    penalty = tl.load(table + PENALTY * draws + draw).to(tl.float32, bitcast=True)
    own = keys + draw.to(tl.int64) * V
    highest = tl.full([BLOCK], float("-inf"), tl.float32)
    for first in range(0, V, BLOCK):
        n = first + tl.arange(0, BLOCK)
        highest = tl.maximum(highest, _penalised(logits, allow, seen, row, draw, penalty, n, V))
    peak = tl.max(highest, 0)
    for first in range(0, V, BLOCK):
        n = first + tl.arange(0, BLOCK)
        z = _penalised(logits, allow, seen, row, draw, penalty, n, V)
        score = tl.div_rn(z - peak, heat)
        key = (0.0 - score).to(tl.int32, bitcast=True)
        tl.store(own + n, tl.where((z == float("-inf")) | (score < floor), _FAR, key), mask=n < V)
    # What one thread stored another may load.
    tl.debug_barrier()
    last_key = _FAR
    if (top_k > 0) & (top_k < V):
        last_key = 0
        for bit in range(31):
            higher = last_key | (1 << (30 - bit))
            below = tl.zeros([BLOCK], tl.int32)
            for first in range(0, V, BLOCK):
                n = first + tl.arange(0, BLOCK)
                below += (tl.load(own + n, mask=n < V, other=_FAR) < higher).to(tl.int32)
            last_key = tl.where(tl.sum(below, 0) < top_k, higher, last_key)
    last_id = _FAR
    if top_p < 1:
        total = tl.zeros([BLOCK], tl.float32)
        for first in range(0, V, BLOCK):
            n = first + tl.arange(0, BLOCK)
            key = tl.load(own + n, mask=n < V, other=_FAR)
            mass = tl.exp(0.0 - key.to(tl.float32, bitcast=True))
            total += tl.where((key < _INFINITE) & (key <= last_key), mass, 0.0)
        wanted = tl.maximum(top_p, 1e-37) * tl.sum(total, 0)
        kept = last_key
        last_key = 0
        before = 0.0
        for bit in range(31):
            higher = last_key | (1 << (30 - bit))
            total = tl.zeros([BLOCK], tl.float32)
            for first in range(0, V, BLOCK):
                n = first + tl.arange(0, BLOCK)
                key = tl.load(own + n, mask=n < V, other=_FAR)
                mass = tl.exp(0.0 - key.to(tl.float32, bitcast=True))
                total += tl.where((key < _INFINITE) & (key <= kept) & (key < higher), mass, 0.0)
            below = tl.sum(total, 0)
            before = tl.where(below < wanted, below, before)
            last_key = tl.where(below < wanted, higher, last_key)
        last_key = tl.minimum(last_key, kept)
        if last_key < _INFINITE:
            one = tl.exp(0.0 - last_key.to(tl.float32, bitcast=True))
            # Of equally likely tokens those with the lower ids.
            several = tl.maximum(tl.ceil((wanted - before) / one), 1.0).to(tl.int32)
            passed = 0
            last_id = 0
            for first in range(0, V, BLOCK):
                n = first + tl.arange(0, BLOCK)
                tied = (tl.load(own + n, mask=n < V, other=_FAR) == last_key).to(tl.int32)
                rank = passed + tl.cumsum(tied, 0)
                last_id = tl.maximum(last_id, tl.max(tl.where((tied == 1) & (rank <= several), n, 0), 0))
                passed += tl.sum(tied, 0)
    tl.store(limits + draw, peak)
    least = tl.where(last_key < _INFINITE, 0.0 - last_key.to(tl.float32, bitcast=True), float("-inf"))
    tl.store(limits + draws + draw, least)
    tl.store(limits + 2 * draws + draw, last_id.to(tl.float32, bitcast=True))


@kernel()
def draw_kernel(
    logits: tl.tensor,
    normalisers: tl.tensor,
    peaks: tl.tensor,
    limits: tl.tensor,
    allow: tl.tensor,
    seen: tl.tensor,
    table: tl.tensor,
    partial: tl.tensor,
    counters: tl.tensor,
    ids: tl.tensor,
    logprobs: tl.tensor,
    tokens: tl.tensor,
    spans: tl.tensor,
    rows: tl.tensor,
    stops: tl.tensor,
    STOPS: tl.constexpr,
    REACH: tl.constexpr,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr = False,
) -> None:
    """One program: the best of BLOCK tokens of one draw, noise included; the last one to arrive has the token.

    The noise of token n at position p is word n % 4 of Philox block (n // 4, p, candidate, 0) under the seed.
    """
    turn(DEPENDENT)
    part = tl.program_id(0)
    draw = tl.program_id(1)
    draws = tl.num_programs(1)
    row = tl.load(table + ROW * draws + draw)
    heat = tl.load(table + TEMPERATURE * draws + draw).to(tl.float32, bitcast=True)
    floor = tl.load(table + FLOOR * draws + draw).to(tl.float32, bitcast=True)
    penalty = tl.load(table + PENALTY * draws + draw).to(tl.float32, bitcast=True)
    block = part * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
    n = block[:, None] * 4 + tl.arange(0, 4)[None, :]
    z = _penalised(logits, allow, seen, row, draw, penalty, n, V)
    peak = tl.load(peaks + row) if limits is None else tl.load(limits + draw)
    score = tl.div_rn(z - peak, tl.where(heat > 0, heat, 1.0))
    kept = (z > float("-inf")) & (score >= floor)
    if limits is not None:
        least = tl.load(limits + draws + draw)
        last = tl.load(limits + 2 * draws + draw).to(tl.int32, bitcast=True)
        kept = kept & ((score > least) | ((score == least) & (n <= last)))
    if heat > 0:
        low = tl.load(table + SEED_LOW * draws + draw).to(tl.uint32, bitcast=True).to(tl.uint64)
        high = tl.load(table + SEED_HIGH * draws + draw).to(tl.uint32, bitcast=True).to(tl.uint64)
        position = tl.load(table + POSITION * draws + draw) + tl.zeros_like(block)
        candidate = tl.load(table + CANDIDATE * draws + draw) + tl.zeros_like(block)
        a, b, c, d = tl.philox((high << 32) | low, block, position, candidate, tl.zeros_like(block))
        words = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [BLOCK // 4, 4])
        # float64, as on the host: in float32 a word near 2^32 would be 1, and its noise infinite.
        uniform = (words.to(tl.float64) + 0.5) * 2.3283064365386963e-10
        score += (0.0 - tl.log(0.0 - tl.log(uniform))).to(tl.float32)
    score = tl.where(kept, score, float("-inf"))
    best = tl.max(tl.max(score, 1), 0)
    choice = tl.min(tl.min(tl.where(score == best, n, _FAR), 1), 0)
    parts = tl.num_programs(0)
    here = partial + 2 * (draw * parts + part)
    tl.store(here, best)
    tl.store(here + 1, choice.to(tl.float32, bitcast=True))
    tl.debug_barrier()
    arrived = tl.atomic_add(counters + draw, 1, sem="acq_rel")
    if arrived < parts - 1:
        return
    tl.store(counters + draw, 0)
    p = tl.arange(0, PARTS)
    theirs = partial + 2 * (draw * parts + p)
    bests = tl.load(theirs, mask=p < parts, other=float("-inf"), cache_modifier=".cg")
    choices = tl.load(theirs + 1, mask=p < parts, other=0.0, cache_modifier=".cg").to(tl.int32, bitcast=True)
    choice = tl.min(tl.where((bests == tl.max(bests, 0)) & (p < parts), choices, _FAR), 0)
    # Nothing allowed, or NaN.
    token = tl.where(choice < V, choice, 0)
    tl.store(ids + draw, token.to(tl.int64))
    tl.store(logprobs + draw, tl.load(logits + row.to(tl.int64) * V + token) - tl.load(normalisers + row))
    if tokens is not None:
        r = draw + tl.arange(0, 1)
        _advance(token + tl.zeros_like(r), r, draws, tokens, spans, rows, table, seen, stops, STOPS, REACH, V, 1)


@kernel()
def _advance(
    token: tl.tensor,
    r: tl.tensor,
    R: tl.tensor,
    tokens: tl.tensor,
    spans: tl.tensor,
    rows: tl.tensor,
    table: tl.tensor,
    seen: tl.tensor,
    stops: tl.tensor,
    STOPS: tl.constexpr,
    REACH: tl.constexpr,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Rows `r` go on with `token`, or end: then their span has no length and their row no slot."""
    live = r < R
    start = tl.load(spans + R + r, mask=live, other=0)
    live = live & (tl.load(spans + 2 * R + r, mask=live, other=0) > 0)
    ends = start + 2 > REACH
    if stops is not None:
        s = tl.arange(0, STOPS)
        ends = ends | (tl.max((token[:, None] == tl.load(stops + s)[None, :]).to(tl.int32), 1) == 1)
    tl.store(tokens + r, token.to(tokens.dtype.element_ty), mask=live)
    tl.store(spans + R + r, start + 1, mask=live)
    tl.store(rows + R + r, start + 1, mask=live)
    tl.store(spans + 2 * R + r, tl.zeros_like(r), mask=live & ends)
    tl.store(rows + r, tl.zeros_like(r) - 1, mask=live & ends)
    if table is not None:
        position = table + POSITION * R + r
        tl.store(position, tl.load(position, mask=live, other=0) + 1, mask=live)
    if seen is not None:
        tl.store(seen + r.to(tl.int64) * V + token, tl.full([BLOCK], 1, tl.uint8), mask=live)


@kernel()
def advance_kernel(
    ids: tl.tensor,
    tokens: tl.tensor,
    spans: tl.tensor,
    rows: tl.tensor,
    stops: tl.tensor,
    R: tl.constexpr,
    STOPS: tl.constexpr,
    REACH: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr = False,
) -> None:
    """The step from greedy tokens to the next, for all rows."""
    turn(DEPENDENT)
    r = tl.arange(0, BLOCK)
    token = tl.load(ids + r, mask=r < R, other=0).to(tl.int32)
    _advance(token, r, R, tokens, spans, rows, None, None, stops, STOPS, REACH, 1, BLOCK)
