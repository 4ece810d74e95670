"""Logits to tokens for the rows that are not greedy. What the parameters mean is in `sampling.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.noise import Stream, gumbel
from engine.sampling import Sampling

_FEW = 1_024  # likeliest tokens


@dataclass(frozen=True, slots=True)
class Draw:
    """One row: how its token is drawn, where the token will stand, and the ids that a penalty applies to."""

    sampling: Sampling
    position: int
    seen: Sequence[int] = ()


def sample(logits: Tensor, draws: Sequence[Draw], allow: Tensor | None) -> Tensor:
    """-> token ids int64 [S]. logits: float32 [S, V], left as they are; allow: bool [S, V] with a token in each row, or None.

    A row's token depends on nothing but the row: not on the others, and on chance through its seed alone.
    """
    scores = filtered(logits, draws, allow)
    drawing = [row for row, draw in enumerate(draws) if draw.sampling.draws]
    if drawing:
        streams = [Stream(d.sampling.seed, d.sampling.candidate, d.position) for d in (draws[row] for row in drawing)]
        # Not every device computes in float64; noise must be the same on all of them.
        device = torch.device("cpu") if logits.device.type == "mps" else logits.device
        noise = gumbel(streams, logits.shape[1], device).float().to(logits.device)
        if len(drawing) == len(draws):
            scores += noise
        else:
            scores[torch.tensor(drawing, device=logits.device)] += noise
    return scores.argmax(dim=-1)


def filtered(logits: Tensor, draws: Sequence[Draw], allow: Tensor | None) -> Tensor:
    """Logits after penalty, mask and temperature, less each row's greatest; -inf where a filter drops the token."""
    scores = logits.clone()
    for row, draw in enumerate(draws):
        if draw.seen:
            ids = torch.tensor(draw.seen, device=logits.device)
            penalty, before = draw.sampling.repetition_penalty, scores[row, ids]
            scores[row, ids] = torch.where(before > 0, before / penalty, before * penalty)
    if allow is not None:
        scores.masked_fill_(~allow, -math.inf)
    scores -= scores.amax(dim=-1, keepdim=True)
    each = [draw.sampling for draw in draws]
    scores /= _column([s.temperature if s.draws else 1.0 for s in each], scores)
    if any(s.min_p > 0 for s in each):
        floor = _column([math.log(s.min_p) if s.min_p > 0 else -math.inf for s in each], scores)
        scores.masked_fill_(scores < floor, -math.inf)
    if any(s.top_k > 0 or s.top_p < 1 for s in each):
        _keep_the_likeliest(scores, each)
    return scores


def _keep_the_likeliest(scores: Tensor, each: Sequence[Sampling]) -> None:
    """Top-k, then top-p over what that leaves; equally likely tokens in the order of their ids."""
    size = scores.shape[1]
    # Sorting a vocabulary costs a CPU more than all the rest; what is kept is nearly always among the first few.
    few = _FEW if scores.device.type == "cpu" and max(s.top_k for s in each) <= _FEW < size else size
    if not _keep_among(scores, each, few):
        _keep_among(scores, each, size)


def _keep_among(scores: Tensor, each: Sequence[Sampling], first: int) -> bool:
    """Filter by the `first` likeliest tokens of each row -> False, and nothing changed, if they do not decide it."""
    size = scores.shape[1]
    ordered, ids = _likeliest(scores, first)
    last = torch.tensor([s.top_k - 1 if 0 < s.top_k < size else -1 for s in each], device=scores.device)
    least = ordered.gather(1, last.clamp(min=0)[:, None]).masked_fill((last < 0)[:, None], -math.inf)
    kept = scores.masked_fill(scores < least, -math.inf)
    if any(s.top_p < 1 for s in each):
        ordered = ordered.masked_fill(ordered < least, -math.inf)
        mass = torch.softmax(kept, dim=-1).gather(1, ids)
        before = mass.cumsum(dim=-1) - mass
        enough = _column([s.top_p if s.top_p < 1 else math.inf for s in each], scores)
        enough.clamp_(min=torch.finfo(enough.dtype).tiny)  # the likeliest token always stays
        dropped = before >= enough
        nucleus = torch.isfinite(enough)
        if first < size:
            # Beyond the first may stand tokens as likely as the last of them: the cut must come before those.
            above = (ordered > ordered[:, -1:]) | (ordered == -math.inf)
            if not ((dropped & above).any(dim=-1, keepdim=True) | ~nucleus).all():
                return False
        inside = torch.full_like(kept, -math.inf).scatter_(1, ids, ordered.masked_fill(dropped, -math.inf))
        kept = torch.where(nucleus, inside, kept)
    scores.copy_(kept)
    return True


def _likeliest(scores: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """-> (scores, ids) of the `first` likeliest tokens, [S, first] each, in order, equals by id."""
    if first == scores.shape[1]:
        ordered, ids = scores.sort(dim=-1, descending=True, stable=True)
        return ordered, ids
    ids = scores.topk(first, dim=-1).indices.sort(dim=-1).values
    ordered, order = scores.gather(1, ids).sort(dim=-1, descending=True, stable=True)
    return ordered, ids.gather(1, order)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]
