"""The operations of a forward step on a CUDA device: `engine.ops.Ops`, without importing the engine.

One token goes through the GEMV kernels, 2 to 16 through the tl.dot ones, more through cuBLAS with our LayerNorm, append
and attention around it. What the kernels do not support runs in plain torch instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from triton_kernels.append import append
from triton_kernels.attend import MAX_HEAD_DIM, Workspace, attend, attend_reference
from triton_kernels.configs import GEMV_NORM_WIDTH, SKINNY_NORM_ROWS, SKINNY_ROWS, Target
from triton_kernels.draw import Following, draw
from triton_kernels.embed import embed
from triton_kernels.epilogue import ERF, TANH, activate_reference
from triton_kernels.head import Choice, head, head_reference
from triton_kernels.layer_norm import MAX_WIDTH, layer_norm, layer_norm_reference
from triton_kernels.linear import linear
from triton_kernels.operands import DTYPES, LinearLike, NormLike, SpanLike
from triton_kernels.quantize import GROUP, Int4Weight, Int8Weight, Weight, multiply, parts
from triton_kernels.spans import SpanTable

Answer = TypeVar("Answer")
Spans = Sequence[SpanLike] | SpanTable


class TritonOps(Generic[Answer]):
    """Owns scratch memory for one device and one stream; called from one thread. Never reads a result on the host.

    `answer` makes the caller's type of (ids [S] int64, logprobs [S], top_ids [S, top], top_logprobs [S, top], and logits
    [S, V], or [S, 0] where they were not asked for).
    `spans` may be a `SpanTable` wherever a sequence of spans may be: the form for captured graphs.
    """

    free_rows: int = 16
    """What `skinny.py` multiplies with one reading of the weights."""

    def __init__(
        self, answer: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Answer], target: Target | None = None
    ) -> None:
        self._answer = answer
        self._target = target
        self._workspace: Workspace | None = None
        self._last: tuple[tuple[SpanLike, ...], SpanTable] | None = None

    def embed(self, ids: Tensor, positions: Tensor, wte: Tensor, wpe: Tensor) -> Tensor:
        """-> residual [T, d] float32 = wte[ids] + wpe[positions]."""
        return embed(ids, positions, wte, wpe)

    def ln_qkv_append(self, x: Tensor, norm: NormLike, qkv: LinearLike, kv: Tensor, spans: Spans) -> Tensor:
        """-> queries [T, d]; the rows' keys and values go into `kv` [slots, 2, G, window, D] at the spans' positions."""
        width = qkv.weight.shape[0] - 2 * kv.shape[2] * kv.shape[4]
        if x.shape[0] == 0:
            return x.new_empty(0, width, dtype=qkv.bias.dtype)
        table = self._table(spans, x.device)
        if self._small(x, qkv):
            out = torch.empty(x.shape[0], width, dtype=qkv.bias.dtype, device=x.device)
            inner, prologue = self._prologue(x, norm, qkv)
            return linear(inner, qkv, out, self._for(x), norm=prologue, kv=kv, spans=table)
        fused = multiply(_normalise(x, norm, qkv.bias.dtype), qkv.weight, qkv.bias)
        append(fused, kv, table)
        return fused[:, :width]

    def attend(self, q: Tensor, kv: Tensor, spans: Spans, scale: float) -> Tensor:
        """-> causal attention [T, d] of each span over its slot, positions 0 to its own."""
        if q.shape[0] == 0:
            return q.new_empty(q.shape)
        head_dim = kv.shape[4]
        if q.dtype not in DTYPES or head_dim % 8 or head_dim > MAX_HEAD_DIM:
            return attend_reference(q, kv, _host(spans), scale)
        return attend(q, kv, self._table(spans, q.device), scale, self._scratch(q), self._for(q))

    def proj_residual(self, x: Tensor, y: Tensor, proj: LinearLike) -> Tensor:
        """-> x + (y @ weight.T + bias), float32 [T, d], in the memory of `x`."""
        if y.shape[0] and self._small(y, proj):
            return linear(y, proj, x, self._for(x), add=True)
        return x.add_(multiply(y, proj.weight, proj.bias))

    def ln_fc_gelu(self, x: Tensor, norm: NormLike, fc: LinearLike, *, exact: bool) -> Tensor:
        """-> GELU(LayerNorm(x) @ weight.T + bias) [T, n_inner]; erf if `exact`, else the tanh form."""
        activation = ERF if exact else TANH
        if x.shape[0] and self._small(x, fc):
            out = torch.empty(x.shape[0], fc.weight.shape[0], dtype=fc.bias.dtype, device=x.device)
            inner, prologue = self._prologue(x, norm, fc)
            return linear(inner, fc, out, self._for(x), norm=prologue, activation=activation)
        inner = _normalise(x, norm, fc.bias.dtype)
        return activate_reference(multiply(inner, fc.weight, fc.bias), activation)

    def head(
        self,
        x: Tensor,
        norm: NormLike,
        vocabulary: Weight | LinearLike,
        allow: Tensor | None,
        top: int,
        *,
        logits: bool = False,
    ) -> Answer:
        """Final LayerNorm, product with the vocabulary [V, d], arg-max over the tokens that `allow` [S, V] permits.

        With `logits`, all of them come back too, float32 and before any mask.
        """
        rows = x.shape[0]
        choice = self.choose(x, norm, vocabulary, allow, logits=logits or top > 0)
        none = torch.empty(rows, 0, dtype=torch.float32, device=x.device)
        told = none if choice.logits is None or not logits else choice.logits
        if top == 0 or choice.logits is None:
            no_ids = torch.empty(rows, 0, dtype=torch.int64, device=x.device)
            return self._answer(choice.ids, choice.logprobs, no_ids, none, told)
        best = torch.topk(choice.logits, top, dim=-1)
        return self._answer(choice.ids, choice.logprobs, best.indices, best.values - choice.normalisers[:, None], told)

    def choose(
        self, x: Tensor, norm: NormLike, vocabulary: Weight | LinearLike, allow: Tensor | None, *, logits: bool = False
    ) -> Choice:
        """`head` without the caller's type: what `draw` goes on with."""
        if not isinstance(vocabulary, Tensor | Int8Weight | Int4Weight):
            vocabulary = vocabulary.weight  # a layer whose bias is nothing
        dtype = vocabulary.dtype if isinstance(vocabulary, Tensor) else norm.weight.dtype
        rows, width = x.shape
        fits = width <= GEMV_NORM_WIDTH and dtype in DTYPES and _packed(vocabulary)
        if not (0 < rows <= SKINNY_ROWS and fits):
            return head_reference(x, norm, vocabulary, allow, dtype=dtype)
        allow = None if allow is None else allow.contiguous()
        return head(
            x.contiguous(), norm, vocabulary, allow, self._scratch(x), self._for(x), dtype=dtype, logits=logits
        )  # fmt: skip

    def draw(
        self,
        choice: Choice,
        table: Tensor,
        *,
        allow: Tensor | None = None,
        narrowed: bool = True,
        following: Following | None = None,
    ) -> tuple[Tensor, Tensor]:
        """-> ids [R] and log-probabilities [R] of the draws in `table`; see `draw.draw`."""
        scratch = self._scratch(table)
        return draw(choice, table, scratch, allow=allow, narrowed=narrowed, following=following)

    def _small(self, x: Tensor, layer: LinearLike) -> bool:
        return x.shape[0] <= SKINNY_ROWS and layer.bias.dtype in DTYPES and _packed(layer.weight)

    def _prologue(self, x: Tensor, norm: NormLike, layer: LinearLike) -> tuple[Tensor, NormLike | None]:
        """-> (inputs of the product, the norm that it still has to apply)."""
        rows, width = x.shape
        if (rows == 1 and width <= GEMV_NORM_WIDTH) or 1 < rows <= SKINNY_NORM_ROWS:
            return x, norm
        return _normalise(x, norm, layer.bias.dtype), None

    def _for(self, x: Tensor) -> Target:
        if self._target is None:
            self._target = Target.of(x.device)
        return self._target

    def _scratch(self, x: Tensor) -> Workspace:
        if self._workspace is None or self._workspace.counters.device != x.device:
            self._workspace = Workspace.on(x.device)
        return self._workspace

    def _table(self, spans: Spans, device: torch.device) -> SpanTable:
        if isinstance(spans, SpanTable):
            return spans
        key = tuple(spans)
        if self._last is None or self._last[0] != key or self._last[1].buffer.device != device:
            self._last = (key, SpanTable.of(key, device))
        return self._last[1]


def _normalise(x: Tensor, norm: NormLike, dtype: torch.dtype) -> Tensor:
    if dtype in DTYPES and x.shape[1] <= MAX_WIDTH:
        return layer_norm(x, norm, dtype)
    return layer_norm_reference(x, norm, dtype)


def _packed(weight: Weight) -> bool:
    if isinstance(weight, Int4Weight) and weight.shape[1] % GROUP:
        return False
    return parts(weight)[0].is_contiguous()


def _host(spans: Spans) -> Sequence[SpanLike]:
    return spans.on_host() if isinstance(spans, SpanTable) else spans
