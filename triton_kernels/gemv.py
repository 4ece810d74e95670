"""The kernel for one token: every weight is read once, in 16-byte pieces, by threads along the inputs."""

from __future__ import annotations

from triton import language as tl

from triton_kernels.epilogue import finish
from triton_kernels.launch import kernel, turn
from triton_kernels.layer_norm import normalised


@kernel()
def weights_at(weight: tl.tensor, n: tl.tensor, N: tl.tensor, k: tl.tensor, K: tl.constexpr) -> tl.tensor:
    """The tile of rows `n` and columns `k`, read once and not kept in the caches."""
    inside = (n < N)[:, None] & (k < K)[None, :]
    cells = weight + n.to(tl.int64)[:, None] * K + k[None, :]
    return tl.load(cells, mask=inside, other=0, eviction_policy="evict_first")


@kernel()
def rows_times(
    x: tl.tensor,
    norm_weight: tl.tensor,
    norm_bias: tl.tensor,
    weight: tl.tensor,
    scales: tl.tensor,
    n: tl.tensor,
    N: tl.constexpr,
    eps: tl.tensor,
    K: tl.constexpr,
    BK: tl.constexpr,
    NORM: tl.constexpr,
    FORMAT: tl.constexpr,
    ROUND: tl.constexpr,
    UNROLL: tl.constexpr,
    KP: tl.constexpr,
    DEPENDENT: tl.constexpr,
) -> tl.tensor:
    """Rows `n` of the matrix times x, float32 [BN]; `weight` is [N, K] (float, int8) or words [N, K / 8] (int4).

    With NORM, BK covers K: the weights are then requested before the statistics are known, and hide their latency.
    """
    if FORMAT == "int4":
        turn(DEPENDENT)
        return _rows_times_int4(x, norm_weight, norm_bias, weight, scales, n, N, eps, K, BK, NORM, ROUND, KP)
    if NORM:
        k = tl.arange(0, BK)
        w = weights_at(weight, n, N, k, K)
        turn(DEPENDENT)
        v = normalised(x, norm_weight, norm_bias, k, K, eps).to(ROUND).to(tl.float32)
        return tl.sum(w.to(tl.float32) * v[None, :], 1)
    first = tl.arange(0, BK)
    w = weights_at(weight, n, N, first, K)  # on its way while the kernel before ends
    turn(DEPENDENT)
    v = tl.load(x + first, mask=first < K, other=0.0, eviction_policy="evict_last")
    acc = w.to(tl.float32) * v.to(tl.float32)[None, :]
    for outer in range(BK, K, BK * UNROLL):
        for inner in tl.static_range(UNROLL):
            k = outer + inner * BK + tl.arange(0, BK)
            w = weights_at(weight, n, N, k, K)
            v = tl.load(x + k, mask=k < K, other=0.0, eviction_policy="evict_last")
            acc += w.to(tl.float32) * v.to(tl.float32)[None, :]
    return tl.sum(acc, 1)


@kernel()
def _rows_times_int4(
    x: tl.tensor,
    norm_weight: tl.tensor,
    norm_bias: tl.tensor,
    weight: tl.tensor,
    scales: tl.tensor,
    n: tl.tensor,
    N: tl.constexpr,
    eps: tl.tensor,
    K: tl.constexpr,
    BK: tl.constexpr,
    NORM: tl.constexpr,
    ROUND: tl.constexpr,
    KP: tl.constexpr,
) -> tl.tensor:
    BG: tl.constexpr = BK // 128
    mean = 0.0
    rstd = 1.0
    if NORM:
        whole = tl.arange(0, KP)
        row = tl.load(x + whole, mask=whole < K, other=0.0).to(tl.float32)
        mean = tl.sum(row, 0) / K
        centred = tl.where(whole < K, row - mean, 0.0)
        rstd = tl.rsqrt(tl.sum(centred * centred, 0) / K + eps)
    acc = tl.zeros([n.shape[0]], tl.float32)
    word = tl.arange(0, 16)
    for first in range(0, K // 128, BG):
        g = first + tl.arange(0, BG)
        inside = (n < N)[:, None] & (g < K // 128)[None, :]
        cells = n[:, None, None] * (K // 8) + g[None, :, None] * 16 + word[None, None, :]
        packed = tl.load(weight + cells, mask=inside[:, :, None], other=0, eviction_policy="evict_first")
        scale = tl.load(scales + n[:, None] * (K // 128) + g[None, :], mask=inside, other=0.0).to(tl.float32)
        sums = tl.zeros([n.shape[0], BG, 16], tl.float32)
        total = tl.zeros([BG, 16], tl.float32)
        for lane in tl.static_range(8):
            k = g[:, None] * 128 + lane * 16 + word[None, :]
            v = tl.load(x + k, mask=k < K, other=0.0, eviction_policy="evict_last").to(tl.float32)
            if NORM:
                gain = tl.load(norm_weight + k, mask=k < K, other=0.0, eviction_policy="evict_last").to(tl.float32)
                shift = tl.load(norm_bias + k, mask=k < K, other=0.0, eviction_policy="evict_last").to(tl.float32)
                v = ((v - mean) * rstd * gain + shift).to(ROUND).to(tl.float32)
            sums += ((packed >> (4 * lane)) & 0xF).to(tl.float32) * v[None, :, :]
            total += v
        acc += tl.sum(tl.sum(sums - 8.0 * total[None, :, :], 2) * scale, 1)
    return acc


@kernel()
def gemv(
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
    N: tl.constexpr,
    K: tl.constexpr,
    KP: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    UNROLL: tl.constexpr,
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
    """One program: BN outputs of the one token."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    acc = rows_times(
        x, norm_weight, norm_bias, weight, scales, n, N, eps, K, BK, NORM, FORMAT, ROUND, UNROLL, KP, DEPENDENT
    )
    finish(
        acc[None, :],
        tl.arange(0, 1),
        1,
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
