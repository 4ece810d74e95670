"""The six operations that a forward step is made of, and their torch reference.

`gpt_bigcode.py` is written once against `Ops`; which implementation runs is chosen once, at load. Shapes: T new tokens in
the step (of one or several sequences), d = n_embd, H query heads, G key/value heads, D = head_dim, H * D = d.
The residual stream is float32 whatever the weights are; LayerNorm, softmax and logits are float32 too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.step import Span


class Norm(NamedTuple):
    """LayerNorm parameters, each [d]."""

    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A dense layer, torch layout: weight [out, in], bias [out]; the bias' dtype is that of what comes in and goes out.

    `packed.py` has the forms whose weight is stored otherwise; they differ in how they multiply.
    """

    weight: Tensor
    bias: Tensor

    @property
    def memory(self) -> Tensor | None:
        """What the weight is in, if that is known."""
        return self.weight

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, in] -> x @ weight.T + bias [T, out], of the dtype of `x`."""
        return F.linear(x, self.weight, self.bias)

    def gelu(self, x: Tensor, *, exact: bool) -> Tensor:
        """GELU of the product: erf if `exact`, else the tanh form."""
        return F.gelu(self(x), approximate="none" if exact else "tanh")


class Head(NamedTuple):
    """What the head makes of S rows: the arg-max token (lowest id on a tie) and log-probabilities over all tokens."""

    ids: Tensor  # [S] int64
    logprobs: Tensor  # [S] float32, of `ids`, before any mask
    top_ids: Tensor  # [S, top] int64
    top_logprobs: Tensor  # [S, top] float32
    logits: Tensor  # [S, V] float32, before any mask, if asked for; else [S, 0]


class Ops(Protocol):
    """The contract between the model and a device."""

    @property
    def free_rows(self) -> int:
        """New tokens that a pass computes in about the time of one, because reading the weights is what costs."""
        ...

    def embed(self, ids: Tensor, positions: Tensor, wte: Tensor, wpe: Tensor) -> Tensor:
        """-> residual [T, d] float32 = wte[ids] + wpe[positions]."""
        ...

    def ln_qkv_append(self, x: Tensor, norm: Norm, qkv: Linear, kv: Tensor, spans: Sequence[Span]) -> Tensor:
        """LayerNorm and the fused projection; keys and values of the new tokens go into `kv`, queries come back.

        `qkv` rows are [q of all heads | k | v]; `kv` is [slots, 2, G, window, D], written at the spans' positions.
        -> queries [T, d] in the dtype of the weights.
        """
        ...

    def attend(self, q: Tensor, kv: Tensor, spans: Sequence[Span], scale: float) -> Tensor:
        """Causal attention of each span over its slot, positions 0 to its own. -> [T, d] in the dtype of `q`."""
        ...

    def proj_residual(self, x: Tensor, y: Tensor, proj: Linear) -> Tensor:
        """-> x + (y @ weight.T + bias), float32 [T, d]. `x` may be overwritten."""
        ...

    def ln_fc_gelu(self, x: Tensor, norm: Norm, fc: Linear, *, exact: bool) -> Tensor:
        """-> GELU(LayerNorm(x) @ weight.T + bias) [T, n_inner]; erf if `exact`, else the tanh form."""
        ...

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
        """Final LayerNorm, product with the vocabulary [V, d], arg-max over the tokens that `allow` [S, V] permits.

        With `logits`, all of them come back too, before any mask: what sampling needs, and greedy decoding does not.
        """
        ...


class FewRows(Protocol):
    """All layers at once, for the few rows of which decoding is made; see `few_rows.py`."""

    @property
    def longest(self) -> int:
        """Tokens of a span up to which this is the quicker way."""
        ...

    @property
    def free_rows(self) -> int:
        """See `Ops.free_rows`; whatever the weights are stored in."""
        ...

    def blocks(self, x: Tensor, kv: Tensor, spans: Sequence[Span]) -> Tensor:
        """Residual [T, d] float32 of the spans' tokens, and maybe more rows -> theirs after all layers; extends `kv`."""
        ...

    def logits(self, x: Tensor) -> Tensor:
        """Residual [S, d] after all layers -> [S, V] float32."""
        ...

    def greedy(self, ids: Sequence[int], kv: Tensor, spans: Sequence[Span], rows: Sequence[int]) -> Head | None:
        """The whole pass where only the likeliest token of each row is asked for; None if it has too many rows."""
        ...


class TorchOps:
    """The reference, on any torch device. Query heads are rows of the attention product: keys are never expanded."""

    free_rows: int = 1

    def embed(self, ids: Tensor, positions: Tensor, wte: Tensor, wpe: Tensor) -> Tensor:
        """See `Ops.embed`."""
        return wte[ids].float() + wpe[positions].float()

    def ln_qkv_append(self, x: Tensor, norm: Norm, qkv: Linear, kv: Tensor, spans: Sequence[Span]) -> Tensor:
        """See `Ops.ln_qkv_append`."""
        fused = qkv(_layer_norm(x, norm, qkv.bias.dtype))
        d, groups, head_dim = x.shape[1], kv.shape[2], kv.shape[4]
        row = 0
        for span in spans:
            new = fused[row : row + span.length, d:].view(span.length, 2, groups, head_dim)
            kv[span.slot, :, :, span.start : span.start + span.length] = new.permute(1, 2, 0, 3)
            row += span.length
        return fused[:, :d]

    def attend(self, q: Tensor, kv: Tensor, spans: Sequence[Span], scale: float) -> Tensor:
        """See `Ops.attend`."""
        groups, head_dim = kv.shape[2], kv.shape[4]
        heads = q.shape[1] // head_dim // groups
        out = torch.empty_like(q)
        row = 0
        for span in spans:
            end = span.start + span.length
            keys, values = kv[span.slot, 0, :, :end], kv[span.slot, 1, :, :end]
            rows = q[row : row + span.length].view(span.length, groups, heads, head_dim)
            rows = rows.transpose(0, 1).reshape(groups, span.length * heads, head_dim)
            scores = torch.matmul(rows, keys.transpose(1, 2)).float().mul_(scale)
            if span.length > 1:
                later = torch.ones(span.length, end, dtype=torch.bool, device=q.device).triu_(span.start + 1)
                scores.view(groups, span.length, heads, end).masked_fill_(later[None, :, None], float("-inf"))
            mixed = torch.matmul(torch.softmax(scores, dim=-1).to(q.dtype), values)
            mixed = mixed.view(groups, span.length, heads, head_dim).transpose(0, 1)
            out[row : row + span.length] = mixed.reshape(span.length, -1)
            row += span.length
        return out

    def proj_residual(self, x: Tensor, y: Tensor, proj: Linear) -> Tensor:
        """See `Ops.proj_residual`."""
        return x.add_(proj(y))

    def ln_fc_gelu(self, x: Tensor, norm: Norm, fc: Linear, *, exact: bool) -> Tensor:
        """See `Ops.ln_fc_gelu`."""
        return F.gelu(fc(_layer_norm(x, norm, fc.bias.dtype)), approximate="none" if exact else "tanh")

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
            all_logits = F.linear(_layer_norm(x, norm, vocabulary.dtype), vocabulary).float()
        else:
            all_logits = vocabulary(_layer_norm(x, norm, vocabulary.bias.dtype)).float()
        return head_of(all_logits, allow, top, logits=logits)


def head_of(all_logits: Tensor, allow: Tensor | None, top: int, *, logits: bool = False) -> Head:
    """What `Ops.head` makes of logits [S, V], float32."""
    permitted = all_logits if allow is None else all_logits.masked_fill(~allow, float("-inf"))
    ids = permitted.argmax(dim=-1)
    normaliser = torch.logsumexp(all_logits, dim=-1, keepdim=True)
    best = torch.topk(all_logits, top, dim=-1)
    return Head(
        ids=ids,
        logprobs=(all_logits.gather(1, ids[:, None]) - normaliser)[:, 0],
        top_ids=best.indices,
        top_logprobs=best.values - normaliser,
        logits=all_logits if logits else all_logits[:, :0],
    )


def _layer_norm(x: Tensor, norm: Norm, dtype: torch.dtype) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), norm.weight.float(), norm.bias.float(), norm.eps).to(dtype)
