"""The operations of a forward step on a CPU, where what costs is reading weights and, in a small model, every call.

Rows are filled up to `least_rows`: the kernels of `packed.BlockedLinear` read weights faster for four rows than for one,
and from two rows on they give each row the same bits in whatever company.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.ops import Head, Linear, Norm, TorchOps, head_of
from engine.step import Span

_QUERIES = 64
"""Tokens of a span that attend together: what none of them may see is left out of the product."""

_FEW_SPANS = 2
"""Spans up to which keys and values are stored span by span."""


class CpuOps(TorchOps):
    """See `ops.Ops`. Remembers what depends on a pass's spans alone from its first layer to its last; one thread."""

    def __init__(self, least_rows: int = 1) -> None:
        self._least_rows = self.free_rows = least_rows
        self._spans: Sequence[Span] = ()
        self._masks: dict[tuple[int, int], Tensor] = {}
        self._places: tuple[Tensor, Tensor] | None = None

    def embed(self, ids: Tensor, positions: Tensor, wte: Tensor, wpe: Tensor) -> Tensor:
        """See `Ops.embed`; rows past the last token are there to fill up, and mean nothing."""
        x = super().embed(ids, positions, wte, wpe)
        return self._filled(x)

    def ln_qkv_append(self, x: Tensor, norm: Norm, qkv: Linear, kv: Tensor, spans: Sequence[Span]) -> Tensor:
        """See `Ops.ln_qkv_append`."""
        if spans is not self._spans:
            self._plan(spans, kv.device)
        fused = qkv(_layer_norm(x, norm, qkv.bias.dtype))
        d, groups, head_dim = x.shape[1], kv.shape[2], kv.shape[4]
        queries, new = fused.narrow(1, 0, d), fused.narrow(1, d, fused.shape[1] - d)
        if self._places is not None:
            slots, positions = self._places
            kv[slots, :, :, positions] = new[: len(spans)].view(len(spans), 2, groups, head_dim)
            return queries
        row = 0
        for span in spans:
            rows = new.narrow(0, row, span.length).view(span.length, 2, groups, head_dim).permute(1, 2, 0, 3)
            kv.select(0, span.slot).narrow(2, span.start, span.length).copy_(rows)
            row += span.length
        return queries

    def attend(self, q: Tensor, kv: Tensor, spans: Sequence[Span], scale: float) -> Tensor:
        """See `Ops.attend`. The query heads of a token are rows of one product: keys are never expanded."""
        parts, row = [], 0
        for span in spans:
            for first in range(0, span.length, _QUERIES):
                length = min(_QUERIES, span.length - first)
                parts.append(self._attend(q.narrow(0, row + first, length), kv, span.slot, span.start + first, scale))
            row += span.length
        if row < q.shape[0]:
            parts.append(q.new_zeros(q.shape[0] - row, q.shape[1]))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def ln_fc_gelu(self, x: Tensor, norm: Norm, fc: Linear, *, exact: bool) -> Tensor:
        """See `Ops.ln_fc_gelu`."""
        return fc.gelu(_layer_norm(x, norm, fc.bias.dtype), exact=exact)

    def head(
        self,
        x: Tensor,
        norm: Norm,
        vocabulary: Tensor | Linear,
        allow: Tensor | None,
        top: int,
        *,
        logits: bool = False,
    ) -> Head:
        """See `Ops.head`."""
        if isinstance(vocabulary, Tensor):
            vocabulary = Linear(vocabulary, vocabulary.new_zeros(len(vocabulary)))
        all_logits = vocabulary(_layer_norm(self._filled(x), norm, vocabulary.bias.dtype))[: x.shape[0]].float()
        return head_of(all_logits, allow, top, logits=logits)

    def _filled(self, x: Tensor) -> Tensor:
        missing = self._least_rows - x.shape[0]
        return F.pad(x, (0, 0, 0, missing)) if missing > 0 else x

    def _plan(self, spans: Sequence[Span], device: torch.device) -> None:
        self._spans, self._places = spans, None
        self._masks.clear()
        if len(spans) > _FEW_SPANS and all(span.length == 1 for span in spans):
            slots, positions = torch.tensor([(span.slot, span.start) for span in spans], device=device).unbind(1)
            self._places = slots, positions

    def _attend(self, q: Tensor, kv: Tensor, slot: int, start: int, scale: float) -> Tensor:
        """Rows [n, d] at consecutive positions from `start` -> [n, d]."""
        n, groups, head_dim = q.shape[0], kv.shape[2], kv.shape[4]
        keys, values = kv.narrow(0, slot, 1).narrow(3, 0, start + n).unbind(1)
        rows = q.reshape(n, groups, -1, head_dim).transpose(0, 1).reshape(1, groups, -1, head_dim)
        mask = None if n == 1 else self._mask(start, n, rows.shape[2] // n, q.dtype)
        mixed = F.scaled_dot_product_attention(rows, keys, values, attn_mask=mask, scale=scale)
        if n == 1:
            return mixed.reshape(1, -1)
        return mixed.view(groups, n, -1, head_dim).transpose(0, 1).reshape(n, -1)

    def _mask(self, start: int, length: int, heads: int, dtype: torch.dtype) -> Tensor:
        """[1, 1, length * heads, start + length]: 0 where a row may look, -inf where it may not."""
        found = self._masks.get((start, length))
        if found is None:
            own = torch.full((length, length), float("-inf"), dtype=dtype).triu_(1)
            found = F.pad(own, (start, 0)).repeat_interleave(heads, 0)[None, None]
            self._masks[start, length] = found
        return found


def _layer_norm(x: Tensor, norm: Norm, dtype: torch.dtype) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), norm.weight, norm.bias, norm.eps).to(dtype)
