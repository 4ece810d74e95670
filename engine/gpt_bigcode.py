"""GPTBigCode (Ben Allal et al. 2023, Li et al. 2023): a GPT-2 decoder with multi-query attention, written against `ops`.

The forward pass does not know which device it is on, which slots are whose, or what a token means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import torch
from torch import Tensor

from engine.device import zeroed
from engine.forward import Model, Pass
from engine.ops import FewRows, Head, Linear, Norm, Ops, head_of
from engine.quantization import Int8Rows
from engine.step import Span


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of one checkpoint, as validated by `checkpoint.py`."""

    n_layer: int
    n_embd: int
    n_head: int
    n_inner: int
    n_positions: int
    vocab_size: int
    multi_query: bool
    exact_gelu: bool
    scale_attention: bool
    norm_eps: float

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        """Heads that keys and values have: 1 for multi-query, all for multi-head attention."""
        return 1 if self.multi_query else self.n_head

    @property
    def parameters(self) -> int:
        """Weights in the model, the tied vocabulary counted once."""
        d, kv = self.n_embd, 2 * self.kv_heads * self.head_dim
        layer = 4 * d + (d + 1) * (d + kv) + (d + 1) * d + (d + 1) * self.n_inner + (self.n_inner + 1) * d
        return (self.vocab_size + self.n_positions) * d + self.n_layer * layer + 2 * d

    def kv_bytes(self, window: int, dtype: torch.dtype) -> int:
        """Bytes of one KV slot of `window` positions."""
        return self.n_layer * 2 * self.kv_heads * window * self.head_dim * dtype.itemsize


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one block."""

    ln_1: Norm
    qkv: Linear
    attn_proj: Linear
    ln_2: Norm
    fc: Linear
    mlp_proj: Linear


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights, on one device."""

    wte: Tensor | Int8Rows  # [V, d]
    wpe: Tensor  # [n_positions, d]
    layers: tuple[Layer, ...]
    ln_f: Norm
    vocabulary: Tensor | Linear  # [V, d]; over the memory of `wte` when the head is tied

    def memories(self) -> list[Tensor]:
        """What the layers' matrices are in."""
        linears = (one for layer in self.layers for one in (layer.qkv, layer.attn_proj, layer.fc, layer.mlp_proj))
        return [memory for one in linears if (memory := one.memory) is not None]


class GPTBigCode(Model):
    """One model on one device.

    `few_rows`, where there is one, computes short spans and the head; which a span counts as depends on its length alone, so
    that company changes nothing.
    """

    shape: ModelShape
    ops: Ops

    def __init__(self, shape: ModelShape, weights: Weights, ops: Ops) -> None:
        self.shape = shape
        self.weights = weights
        self.ops = ops
        self.few_rows: FewRows | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.wpe.device

    @property
    def dtype(self) -> torch.dtype:
        """What activations, keys and values are stored in."""
        return self.weights.wpe.dtype

    @property
    def scale(self) -> float:
        """What attention scores are multiplied by."""
        return self.shape.head_dim**-0.5 if self.shape.scale_attention else 1.0

    def new_kv(self, slots: int, window: int) -> Tensor:
        """See `forward.Model.new_kv`."""
        s = self.shape
        return zeroed((slots, s.n_layer, 2, s.kv_heads, window, s.head_dim), self.dtype, self.device)

    def _run(self, work: Pass) -> Head | None:
        ids, positions, spans, kv, rows, allow, top, logits = work
        ops, weights = self.ops, self.weights
        if allow is None and top == 0 and not logits and (head := self._greedy(ids, spans, kv, rows)) is not None:
            return head
        wte = weights.wte
        if not isinstance(wte, Tensor):  # the rows of this step, widened, are then the table
            ids, wte = torch.arange(len(ids), device=ids.device), wte.rows(ids)
        x = self._blocks(ops.embed(ids, positions, wte, weights.wpe), kv, spans)
        if rows.numel() == 0:
            return None
        if self.few_rows is not None:
            return head_of(self.few_rows.logits(x[rows]), allow, top, logits=logits)
        return ops.head(x[rows], weights.ln_f, weights.vocabulary, allow, top, logits=logits)

    def _greedy(self, ids: Tensor, spans: Sequence[Span], kv: Tensor, rows: Tensor) -> Head | None:
        """All of a pass in one call, where there is such a call and the pass is for it."""
        few_rows = self.few_rows
        if few_rows is None or rows.numel() == 0 or any(span.length > few_rows.longest for span in spans):
            return None
        return few_rows.greedy(ids.tolist(), kv, spans, rows.tolist())

    def _blocks(self, x: Tensor, kv: Tensor, spans: Sequence[Span]) -> Tensor:
        """All layers over the residual [T, d], short spans apart from long ones."""
        few_rows = self.few_rows
        if few_rows is None:
            return self.plain_blocks(x, kv, spans)
        short = [span.length <= few_rows.longest for span in spans]
        if all(short):
            return few_rows.blocks(x, kv, spans)
        if not any(short):
            return self.plain_blocks(x, kv, spans)
        apart = torch.tensor([few for few, span in zip(short, spans, strict=True) for _ in range(span.length)])
        x, out = x[: len(apart)], torch.empty(len(apart), x.shape[1])
        out[apart] = few_rows.blocks(x[apart], kv, list(compress(spans, short)))
        out[~apart] = self.plain_blocks(x[~apart], kv, list(compress(spans, (not few for few in short))))
        return out

    def plain_blocks(self, x: Tensor, kv: Tensor, spans: Sequence[Span]) -> Tensor:
        """All layers over the residual [T, d], operation by operation; `x` may be overwritten."""
        ops = self.ops
        for number, layer in enumerate(self.weights.layers):
            memory = kv[:, number]
            q = ops.ln_qkv_append(x, layer.ln_1, layer.qkv, memory, spans)
            y = ops.attend(q, memory, spans, self.scale)
            x = ops.proj_residual(x, y, layer.attn_proj)
            x = ops.proj_residual(
                x, ops.ln_fc_gelu(x, layer.ln_2, layer.fc, exact=self.shape.exact_gelu), layer.mlp_proj
            )
        return x
