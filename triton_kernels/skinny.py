"""The kernel for 2 to 16 tokens: the tokens are the rows of tl.dot, and every weight is still read once."""

from __future__ import annotations

from triton import language as tl

from triton_kernels.epilogue import finish
from triton_kernels.launch import kernel, turn


@kernel()
def _moments(
    x: tl.tensor,
    m: tl.tensor,
    M: tl.tensor,
    eps: tl.tensor,
    K: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
) -> tl.tensor:
    total = tl.zeros([BM], tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        inside = (m < M)[:, None] & (k < K)[None, :]
        total += tl.sum(tl.load(x + m[:, None] * K + k[None, :], mask=inside, other=0.0).to(tl.float32), 1)
    mean = total / K
    squares = tl.zeros([BM], tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        inside = (m < M)[:, None] & (k < K)[None, :]
        row = tl.load(x + m[:, None] * K + k[None, :], mask=inside, other=0.0).to(tl.float32)
        centred = tl.where(inside, row - mean[:, None], 0.0)
        squares += tl.sum(centred * centred, 1)
    return mean, tl.rsqrt(squares / K + eps)


@kernel()
def _inputs(
    x: tl.tensor,
    norm_weight: tl.tensor,
    norm_bias: tl.tensor,
    m: tl.tensor,
    M: tl.tensor,
    k: tl.tensor,
    mean: tl.tensor,
    rstd: tl.tensor,
    K: tl.constexpr,
    NORM: tl.constexpr,
    EVEN: tl.constexpr,
    ROUND: tl.constexpr,
) -> tl.tensor:
    inside = (m < M)[:, None] if EVEN else (m < M)[:, None] & (k < K)[None, :]
    a = tl.load(x + m[:, None] * K + k[None, :], mask=inside, other=0.0, eviction_policy="evict_last")
    if NORM:
        gain = tl.load(norm_weight + k, mask=k < K, other=0.0).to(tl.float32)
        shift = tl.load(norm_bias + k, mask=k < K, other=0.0).to(tl.float32)
        a = (a.to(tl.float32) - mean[:, None]) * rstd[:, None] * gain[None, :] + shift[None, :]
    return a.to(ROUND)


@kernel()
def tile_times(
    x: tl.tensor,
    norm_weight: tl.tensor,
    norm_bias: tl.tensor,
    weight: tl.tensor,
    scales: tl.tensor,
    m: tl.tensor,
    M: tl.tensor,
    n: tl.tensor,
    N: tl.constexpr,
    eps: tl.tensor,
    K: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    NORM: tl.constexpr,
    FORMAT: tl.constexpr,
    ROUND: tl.constexpr,
) -> tl.tensor:
    """x [M, K] times rows `n` of the matrix, float32 [BM, BN]; formats as in `gemv.rows_times`."""
    EVEN: tl.constexpr = K % BK == 0 and N % BN == 0
    mean = tl.zeros([BM], tl.float32)
    rstd = mean
    if NORM:
        mean, rstd = _moments(x, m, M, eps, K, BM, BK)
    acc = tl.zeros([BM, BN], tl.float32)
    if FORMAT == "int4":
        word = tl.arange(0, 16)
        for g in range(K // 128):
            cells = weight + n[:, None] * (K // 8) + g * 16 + word[None, :]
            packed = tl.load(cells, mask=(n < N)[:, None], other=0, eviction_policy="evict_first")
            scale = tl.load(scales + n * (K // 128) + g, mask=n < N, other=0.0).to(tl.float32)
            part = tl.zeros([BM, BN], tl.float32)
            for lane in tl.static_range(8):
                k = g * 128 + lane * 16 + word
                a = _inputs(x, norm_weight, norm_bias, m, M, k, mean, rstd, K, NORM, True, ROUND)
                w = (((packed >> (4 * lane)) & 0xF) - 8).to(tl.float32).to(ROUND)
                part = tl.dot(a, tl.trans(w), part, input_precision="ieee")
            acc += part * scale[None, :]
    else:
        rows = weight + n.to(tl.int64)[:, None] * K
        for start in range(0, K, BK):
            k = start + tl.arange(0, BK)
            a = _inputs(x, norm_weight, norm_bias, m, M, k, mean, rstd, K, NORM, EVEN, ROUND)
            if EVEN:
                w = tl.load(rows + k[None, :], eviction_policy="evict_first")
            else:
                inside = (n < N)[:, None] & (k < K)[None, :]
                w = tl.load(rows + k[None, :], mask=inside, other=0, eviction_policy="evict_first")
            # Through float32: Triton 3.6's interpreter knows no other way from int8 to bfloat16.
            w = w.to(tl.float32).to(ROUND) if FORMAT == "int8" else w
            acc = tl.dot(a, tl.trans(w), acc, input_precision="ieee")
    return acc


@kernel("M")
def skinny(
    x: tl.tensor,
    norm_weight: tl.tensor,
    norm_bias: tl.tensor,
    weight: tl.tensor,
    scales: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    kv: tl.tensor,
    table: tl.tensor,
    eps: tl.tensor,
    stride_slot: tl.tensor,
    stride_part: tl.tensor,
    stride_group: tl.tensor,
    stride_position: tl.tensor,
    M: tl.tensor,
    N: tl.constexpr,
    K: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    NORM: tl.constexpr,
    FORMAT: tl.constexpr,
    ROUND: tl.constexpr,
    WIDTH: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ADD: tl.constexpr,
    APPEND: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    DEPENDENT: tl.constexpr = False,
) -> None:
    """One program: BN outputs of all tokens."""
    turn(DEPENDENT)
    m = tl.arange(0, BM)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    acc = tile_times(
        x, norm_weight, norm_bias, weight, scales, m, M, n, N, eps, K, BM, BN, BK, NORM, FORMAT, ROUND
    )  # fmt: skip
    finish(
        acc,
        m,
        M,
        n,
        N,
        bias,
        scales,
        out,
        kv,
        table,
        stride_slot,
        stride_part,
        stride_group,
        stride_position,
        WIDTH,
        ACTIVATION,
        ADD,
        APPEND,
        FORMAT == "int8",
        G,
        D,
    )
