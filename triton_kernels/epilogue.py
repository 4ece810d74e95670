"""What the one-token and the few-token products do with their sums."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from triton import language as tl

from triton_kernels.append import kv_offset
from triton_kernels.launch import kernel

NONE, TANH, ERF = "none", "tanh", "erf"


def activate_reference(y: Tensor, activation: str) -> Tensor:
    """GELU in the form asked for, or nothing (Hendrycks & Gimpel 2016)."""
    if activation == NONE:
        return y
    return F.gelu(y, approximate="none" if activation == ERF else "tanh")


def activation_dtype(weight: Tensor, bias: Tensor) -> torch.dtype:
    """What a layer computes in: its weight's dtype, or its bias's where the weight is quantised."""
    return weight.dtype if weight.dtype.is_floating_point else bias.dtype


@kernel()
def activate(y: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    """GELU of a float32 tile; 0.5 (1 + tanh u) is written as a sigmoid, which neither overflows nor needs a library."""
    if ACTIVATION == "tanh":
        y = y / (1.0 + tl.exp(-1.5957691216057308 * (y + 0.044715 * y * y * y)))
    elif ACTIVATION == "erf":
        y = 0.5 * y * (1.0 + tl.erf(y * 0.7071067811865476))
    return y


@kernel()
def finish(
    acc: tl.tensor,
    m: tl.tensor,
    M: tl.tensor,
    n: tl.tensor,
    N: tl.constexpr,
    bias: tl.tensor,
    scales: tl.tensor,
    out: tl.tensor,
    kv: tl.tensor,
    table: tl.tensor,
    stride_slot: tl.tensor,
    stride_part: tl.tensor,
    stride_group: tl.tensor,
    stride_position: tl.tensor,
    WIDTH: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ADD: tl.constexpr,
    APPEND: tl.constexpr,
    SCALED: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
) -> None:
    """Scale, bias, activation, residual; columns below WIDTH go to `out`, the others are keys and values."""
    inside = n < N
    if SCALED:
        acc = acc * tl.load(scales + n, mask=inside, other=0.0).to(tl.float32)[None, :]
    acc += tl.load(bias + n, mask=inside, other=0.0).to(tl.float32)[None, :]
    acc = activate(acc, ACTIVATION)
    here = out + m[:, None] * WIDTH + n[None, :]
    wanted = (m[:, None] < M) & (n[None, :] < WIDTH)
    if ADD:
        acc += tl.load(here, mask=wanted, other=0.0).to(tl.float32)
    tl.store(here, acc.to(out.dtype.element_ty), mask=wanted)
    if APPEND:
        slot = tl.load(table + m, mask=m < M, other=-1)
        position = tl.load(table + M + m, mask=m < M, other=0)
        where = kv_offset(
            n[None, :] - WIDTH,
            position[:, None],
            slot[:, None],
            stride_slot,
            stride_part,
            stride_group,
            stride_position,
            G,
            D,
        )
        wanted = (slot[:, None] >= 0) & (n[None, :] >= WIDTH) & (n[None, :] < N)
        tl.store(kv + where, acc.to(kv.dtype.element_ty), mask=wanted)
