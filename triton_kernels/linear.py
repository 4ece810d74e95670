"""Dense layers for 1 to 16 tokens, with everything around the product fused into the one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional as F
from triton import language as tl

from triton_kernels.append import append_reference, kv_strides
from triton_kernels.configs import GEMV_NORM_WIDTH, SKINNY_ROWS, Target, gemv_tile, skinny_tile
from triton_kernels.epilogue import NONE, activate_reference, activation_dtype
from triton_kernels.gemv import gemv
from triton_kernels.launch import Launch, nbytes
from triton_kernels.layer_norm import layer_norm_reference
from triton_kernels.operands import DTYPES, LinearLike, NormLike, SpanLike, require
from triton_kernels.quantize import BITS, dense, parts
from triton_kernels.skinny import skinny
from triton_kernels.spans import SpanTable

TRITON_DTYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


def linear(
    x: Tensor,
    layer: LinearLike,
    out: Tensor,
    target: Target,
    *,
    norm: NormLike | None = None,
    activation: str = NONE,
    add: bool = False,
    kv: Tensor | None = None,
    spans: SpanTable | None = None,
) -> Tensor:
    """out = activation(LayerNorm(x) @ weight.T + bias), or out += with `add`; -> `out`.

    x: contiguous [T, in], 1 <= T <= 16, float32 before a `norm` (in <= 8192 at one token), else in the layer's dtype;
    out: contiguous [T, out], float32 with `add`. With `kv` [slots, 2, G, window, D], `out` has only the first columns;
    the other 2 G D are keys and values, written at the rows' slots and positions. int4 weights need in % 128 == 0.
    The recipe: GemLite (A16W8, A16W4), gpt-fast. Raises ValueError where a shape or dtype does not fit.
    """
    rows, inputs = x.shape
    outputs = layer.weight.shape[0]
    dtype = activation_dtype(parts(layer.weight)[0], layer.bias)
    appended = 0 if kv is None else 2 * kv.shape[2] * kv.shape[4]
    require(1 <= rows <= SKINNY_ROWS, f"linear: {rows} tokens; 1 to {SKINNY_ROWS} are supported")
    require(layer.weight.shape[1] == inputs, f"linear: {inputs} inputs for a weight of {tuple(layer.weight.shape)}")
    require(out.shape == (rows, outputs - appended), f"linear: out is {tuple(out.shape)}")
    require(x.is_contiguous() and out.is_contiguous(), "linear: x and out must be contiguous")
    require(dtype in DTYPES and x.dtype == (dtype if norm is None else torch.float32), f"linear: {x.dtype} inputs")
    require(not add or out.dtype == torch.float32, "linear: the residual must be float32")
    require((kv is None) == (spans is None), "linear: kv and spans go together")
    if kv is not None and spans is not None:
        require(spans.rows.shape[1] == rows, f"linear: {rows} rows, {spans.rows.shape[1]} in the span table")
        require(kv.stride(4) == 1 and kv.dtype == dtype, "linear: kv layout or dtype")
    _launch(x, layer, out, target, dtype, norm, activation, add, kv, spans).run()
    return out


def linear_reference(
    x: Tensor,
    layer: LinearLike,
    out: Tensor,
    *,
    norm: NormLike | None = None,
    activation: str = NONE,
    add: bool = False,
    kv: Tensor | None = None,
    spans: Sequence[SpanLike] = (),
) -> Tensor:
    """The same in plain torch, for any number of tokens and any dtype."""
    dtype = layer.bias.dtype
    inner = x.to(dtype) if norm is None else layer_norm_reference(x, norm, dtype)
    y = F.linear(inner, dense(layer.weight, dtype), layer.bias)
    if kv is not None:
        append_reference(y, kv, spans)
        y = y[:, : out.shape[1]]
    y = activate_reference(y, activation)
    return out.add_(y) if add else out.copy_(y)


def _launch(
    x: Tensor,
    layer: LinearLike,
    out: Tensor,
    target: Target,
    dtype: torch.dtype,
    norm: NormLike | None,
    activation: str,
    add: bool,
    kv: Tensor | None,
    spans: SpanTable | None,
) -> Launch:
    rows, inputs = x.shape
    outputs = layer.weight.shape[0]
    weight, scales, kind = parts(layer.weight)
    itemsize = BITS.get(kind, 8 * weight.element_size()) / 8
    arguments: dict[str, Any] = {
        "x": x,
        "norm_weight": None if norm is None else norm.weight,
        "norm_bias": None if norm is None else norm.bias,
        "weight": weight,
        "scales": scales,
        "bias": layer.bias,
        "out": out,
        "kv": kv,
        "table": None if spans is None else spans.rows,
        "eps": 0.0 if norm is None else norm.eps,
        **(dict.fromkeys(_STRIDES, 0) if kv is None else kv_strides(kv)),
    }
    constants: dict[str, object] = {
        "N": outputs,
        "K": inputs,
        "NORM": norm is not None,
        "FORMAT": kind,
        "ROUND": TRITON_DTYPES[dtype],
        "WIDTH": out.shape[1],
        "ACTIVATION": activation,
        "ADD": add,
        "APPEND": kv is not None,
        "G": 1 if kv is None else kv.shape[2],
        "D": 1 if kv is None else kv.shape[4],
    }
    traffic = nbytes(weight, scales, layer.bias, x, out)
    if rows == 1:
        require(norm is None or inputs <= GEMV_NORM_WIDTH, f"linear: {inputs} inputs are too many to normalise")
        tile = gemv_tile(inputs, outputs, itemsize, norm=norm is not None)
        constants |= {"KP": triton.next_power_of_2(inputs), "UNROLL": unroll(inputs, tile.depth)}
        function: Any = gemv
    else:
        tile = skinny_tile(target, outputs, itemsize)
        constants |= {"BM": tile.rows}
        arguments |= {"M": rows}
        function = skinny
    constants |= {"BN": tile.columns, "BK": tile.depth}
    grid = (triton.cdiv(outputs, tile.columns),)
    return Launch(function, grid, arguments, constants, tile.warps, tile.stages, traffic)


_STRIDES = ("stride_slot", "stride_part", "stride_group", "stride_position")


def unroll(inputs: int, depth: int) -> int:
    """Blocks that a one-token product requests together: the largest count up to four that divides all blocks."""
    blocks = triton.cdiv(inputs, depth)
    return max(count for count in range(1, 5) if blocks % count == 0)
