"""LayerNorm of float32 rows: the prologue that the products share, and a launch of its own for many rows."""

from __future__ import annotations

import torch
import triton
from torch import Tensor
from torch.nn import functional as F
from triton import language as tl

from triton_kernels.launch import Launch, kernel, nbytes, turn
from triton_kernels.operands import DTYPES, NormLike, require

MAX_WIDTH = 16384


def layer_norm(x: Tensor, norm: NormLike, dtype: torch.dtype) -> Tensor:
    """LayerNorm(x) in `dtype`. Ba et al. 2016, with the variance in a second pass: no cancellation at large means.

    x: float32 [T, d], rows contiguous, d <= 16384; norm.weight, norm.bias: [d]. Raises ValueError otherwise.
    """
    rows, width = x.shape
    require(x.dtype == torch.float32 and x.is_contiguous(), "layer_norm: x must be contiguous float32")
    require(width <= MAX_WIDTH and dtype in DTYPES, f"layer_norm: width {width} or {dtype} is not supported")
    out = torch.empty(rows, width, dtype=dtype, device=x.device)
    if rows:
        Launch(
            _layer_norm,
            (rows,),
            {"x": x, "weight": norm.weight, "bias": norm.bias, "out": out, "eps": norm.eps},
            {"K": width, "KP": triton.next_power_of_2(width)},
            num_warps=4 if width <= 4096 else 8,
            num_stages=1,
            traffic=nbytes(x, norm.weight, norm.bias, out),
        ).run()
    return out


def layer_norm_reference(x: Tensor, norm: NormLike, dtype: torch.dtype) -> Tensor:
    """The same in plain torch."""
    return F.layer_norm(x, (x.shape[-1],), norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps).to(dtype)


@kernel()
def normalised(
    x: tl.tensor, weight: tl.tensor, bias: tl.tensor, k: tl.tensor, K: tl.constexpr, eps: tl.tensor
) -> tl.tensor:
    """LayerNorm of the one row at `x`, float32, in the layout of `k`."""
    inside = k < K
    row = tl.load(x + k, mask=inside, other=0.0).to(tl.float32)
    gain = tl.load(weight + k, mask=inside, other=0.0, eviction_policy="evict_last").to(tl.float32)
    shift = tl.load(bias + k, mask=inside, other=0.0, eviction_policy="evict_last").to(tl.float32)
    mean = tl.sum(row, 0) / K
    centred = tl.where(inside, row - mean, 0.0)
    return centred * tl.rsqrt(tl.sum(centred * centred, 0) / K + eps) * gain + shift


@kernel()
def _layer_norm(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    K: tl.constexpr,
    KP: tl.constexpr,
    DEPENDENT: tl.constexpr = False,
) -> None:
    turn(DEPENDENT)
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, KP)
    y = normalised(x + row * K, weight, bias, k, K, eps)
    tl.store(out + row * K + k, y.to(out.dtype.element_ty), mask=k < K)
