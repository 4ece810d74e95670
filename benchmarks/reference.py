"""The six operations in float64, written from their contract in `engine.ops` and not from their code; and how to judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.ops import Head, Linear, Norm
from engine.step import Span

FACTOR = 2.0
"""The two-times rule: an error against a wider type is at most twice that of the plain torch code in the same type."""

ALLOWANCE = {torch.float32: 1e-6, torch.float16: 2e-4, torch.bfloat16: 1e-3}
"""Added to the rule: relative error of a result that torch happens to get nearly exactly."""

SANE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
"""Relative error that torch's own result may have against float64."""

GAP = 4.0
"""Two tokens are told apart where the reference's logits differ by more than this many times the error (RMS)."""


def relative_error(out: Tensor, expected: Tensor) -> float:
    """||out - expected|| / ||expected|| in float64; 1e30 where anything is not finite."""
    difference = torch.linalg.vector_norm(out.double() - expected.double())
    norm = torch.linalg.vector_norm(expected.double())
    error = float(difference / norm.clamp_min(1e-300))
    return error if error == error and error < 1e30 else 1e30


def two_times(error: float, torch_error: float, dtype: torch.dtype) -> tuple[bool, float]:
    """-> (whether the rule holds, the limit)."""
    limit = FACTOR * torch_error + ALLOWANCE[dtype]
    return error <= limit, limit


def layer_norm(x: Tensor, norm: Norm) -> Tensor:
    """LayerNorm in float64."""
    x = x.double()
    mean = x.mean(dim=-1, keepdim=True)
    variance = (x - mean).square().mean(dim=-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight.double() + norm.bias.double()


def dense(y: Tensor, linear: Linear) -> Tensor:
    """A dense layer in float64."""
    return y.double() @ linear.weight.double().T + linear.bias.double()


def gelu(y: Tensor, *, exact: bool) -> Tensor:
    """GELU in float64."""
    return F.gelu(y.double(), approximate="none" if exact else "tanh")


def attend(q: Tensor, kv: Tensor, spans: Sequence[Span], scale: float) -> Tensor:
    """Causal attention in float64, head by head and row by row of each span; `kv` [slots, 2, G, window, D]."""
    groups, head_dim = kv.shape[2], kv.shape[4]
    heads = q.shape[1] // head_dim
    out, row = [], 0
    for span in spans:
        end = span.start + span.length
        rows = q[row : row + span.length].double().view(span.length, heads, head_dim)
        position = torch.arange(span.start, end, device=q.device)[:, None]
        later = torch.arange(end, device=q.device)[None] > position
        of_heads = []
        for head in range(heads):
            group = head // (heads // groups)
            keys, values = kv[span.slot, 0, group, :end].double(), kv[span.slot, 1, group, :end].double()
            scores = (rows[:, head] @ keys.T * scale).masked_fill(later, float("-inf"))
            of_heads.append(torch.softmax(scores, dim=-1) @ values)
        out.append(torch.stack(of_heads, dim=1).flatten(1))
        row += span.length
    return torch.cat(out)


def logprobs(x: Tensor, norm: Norm, vocabulary: Tensor) -> Tensor:
    """Log-probabilities over all tokens in float64."""
    return torch.log_softmax(layer_norm(x, norm) @ vocabulary.double().T, dim=-1)


class Judged(NamedTuple):
    """Root-mean-square errors of log-probabilities, in nats, over the reference's most likely tokens."""

    ours: float
    theirs: float


def judge_logprobs(ours: Head, theirs: Tensor, expected: Tensor, top: int = 16) -> Judged:
    """Our log-probabilities and theirs [S, V] against the expected ones, at the expected `top` tokens of each row.

    A token that the reference has among its first 16 and we do not have among those returned counts as an error of 1e3.
    """
    ids = torch.topk(expected, min(top, expected.shape[1]), dim=-1).indices
    full = torch.full_like(expected, -1e3).scatter(1, ours.top_ids, ours.top_logprobs.to(expected.dtype))
    wanted = expected.gather(1, ids)

    def rms(found: Tensor) -> float:
        error = float((found.gather(1, ids).to(wanted.dtype) - wanted).square().mean().sqrt())
        return error if error == error else 1e3

    return Judged(rms(full), rms(theirs))


def worst_lead(ids: Tensor, expected: Tensor) -> tuple[float, float]:
    """-> (most nats by which the reference prefers another token [S], share of rows where it prefers ours)."""
    lead = expected.max(dim=-1).values - expected.gather(1, ids[:, None])[:, 0]
    return float(lead.max()), float((lead == 0).float().mean())
