"""The end of a step: final LayerNorm, product with the vocabulary, arg-max under a mask, log-probability.

One launch up to four rows, two above."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from triton_kernels.attend import Workspace
from triton_kernels.configs import GEMV_NORM_WIDTH, SKINNY_NORM_ROWS, SKINNY_ROWS, Target, head_tile, skinny_tile
from triton_kernels.head_kernel import head_few, head_one
from triton_kernels.launch import Argument, Launch, nbytes
from triton_kernels.layer_norm import layer_norm, layer_norm_reference
from triton_kernels.linear import TRITON_DTYPES, unroll
from triton_kernels.operands import DTYPES, NormLike, require
from triton_kernels.quantize import BITS, Weight, dense, parts

_CHUNK = 64  # vocabulary rows of one program at one token: many enough that few programs remain to be merged


class Choice(NamedTuple):
    """What `head` makes of S rows: arg-max ids int64; float32 their log-probabilities, normalisers, logits; all [S]."""

    ids: Tensor
    logprobs: Tensor
    normalisers: Tensor
    peaks: Tensor  # -inf where nothing is allowed
    logits: Tensor | None  # [S, V] float32, if asked for


def head(
    x: Tensor,
    norm: NormLike,
    vocabulary: Weight,
    allow: Tensor | None,
    workspace: Workspace,
    target: Target,
    *,
    dtype: torch.dtype,
    logits: bool = False,
) -> Choice:
    """Arg-max of LayerNorm(x) @ vocabulary.T over the tokens that `allow` permits, the lowest id on a tie.

    x: contiguous float32 [S, d], 1 <= S <= 16 (d <= 8192 for S = 1); vocabulary: [V, d], plain or quantised; dtype: what
    the product computes in; allow: contiguous bool [S, V] with at least one token a row, or None. Log-probabilities and
    normalisers (logsumexp) are over all tokens. A row with a NaN yields an id in range and a NaN log-probability. Uses
    the counters of `workspace`. Raises ValueError where shapes or dtypes do not fit.
    """
    rows, width = x.shape
    size = vocabulary.shape[0]
    require(1 <= rows <= SKINNY_ROWS, f"head: {rows} rows; 1 to {SKINNY_ROWS} are supported")
    require(rows > 1 or width <= GEMV_NORM_WIDTH, f"head: width {width}")
    require(x.dtype == torch.float32 and x.is_contiguous() and dtype in DTYPES, "head: x must be contiguous float32")
    require(vocabulary.shape[1] == width, f"head: width {width}, vocabulary {tuple(vocabulary.shape)}")
    if allow is not None:
        require(allow.shape == (rows, size) and allow.dtype == torch.bool, "head: allow must be bool [S, V]")
        require(allow.is_contiguous(), "head: allow must be contiguous")
    choice = Choice(
        torch.empty(rows, dtype=torch.int64, device=x.device),
        torch.empty(rows, dtype=torch.float32, device=x.device),
        torch.empty(rows, dtype=torch.float32, device=x.device),
        torch.empty(rows, dtype=torch.float32, device=x.device),
        torch.empty(rows, size, dtype=torch.float32, device=x.device) if logits else None,
    )
    fused: NormLike | None = norm
    if rows > SKINNY_NORM_ROWS:
        x, fused = layer_norm(x, norm, dtype), None
    _launch(x, fused, vocabulary, allow, workspace, target, dtype, choice).run()
    return choice


def head_reference(
    x: Tensor, norm: NormLike, vocabulary: Weight, allow: Tensor | None, *, dtype: torch.dtype
) -> Choice:
    """The same in plain torch, for any number of rows and any dtype."""
    logits = F.linear(layer_norm_reference(x, norm, dtype), dense(vocabulary, dtype))
    logits = logits if dtype == torch.float64 else logits.float()
    permitted = logits if allow is None else logits.masked_fill(~allow, float("-inf"))
    ids, peaks = permitted.argmax(dim=-1), permitted.amax(dim=-1)
    normalisers = torch.logsumexp(logits, dim=-1)
    return Choice(ids, logits.gather(1, ids[:, None])[:, 0] - normalisers, normalisers, peaks, logits)


def _launch(
    x: Tensor,
    norm: NormLike | None,
    vocabulary: Weight,
    allow: Tensor | None,
    workspace: Workspace,
    target: Target,
    dtype: torch.dtype,
    choice: Choice,
) -> Launch:
    rows, width = x.shape
    size = vocabulary.shape[0]
    weight, scales, kind = parts(vocabulary)
    itemsize = BITS.get(kind, 8 * weight.element_size()) / 8
    constants: dict[str, object] = {"V": size, "K": width, "FORMAT": kind, "ROUND": TRITON_DTYPES[dtype]}
    arguments: dict[str, Argument] = {}
    function: Any
    if rows == 1:
        tile = head_tile(width, itemsize)
        chunks = max(1, _CHUNK // tile.columns)
        programs = triton.cdiv(size, tile.columns * chunks)
        constants |= {"KP": triton.next_power_of_2(width), "UNROLL": unroll(width, tile.depth), "CHUNKS": chunks}
        function = head_one
    else:
        tile = skinny_tile(target, size, itemsize)
        programs = triton.cdiv(size, tile.columns)
        constants |= {"BM": tile.rows, "NORM": norm is not None}
        arguments = {"M": rows}
        function = head_few
    arguments |= {
        "x": x,
        "norm_weight": None if norm is None else norm.weight,
        "norm_bias": None if norm is None else norm.bias,
        "weight": weight,
        "scales": scales,
        "allow": None if allow is None else allow.view(torch.uint8),
        "logits": choice.logits,
        "partial": workspace.reserve(4 * programs * tile.rows),
        "counters": workspace.counters,
        "ids": choice.ids,
        "logprobs": choice.logprobs,
        "normalisers": choice.normalisers,
        "chosen_logits": choice.peaks,
        "eps": 0.0 if norm is None else norm.eps,
    }
    constants |= {"BN": tile.columns, "BK": tile.depth}
    traffic = nbytes(weight, scales, allow, choice.logits, x)
    return Launch(function, (programs,), arguments, constants, tile.warps, tile.stages, traffic)
