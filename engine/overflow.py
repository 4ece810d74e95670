"""Activations that overflow: of weights that are finite they make NaN, and NaN would be drawn from like anything else.

An answer's log-probability is over the whole vocabulary, so it tells of every logit, and is there already.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from engine.errors import CheckpointError, EngineFault
from engine.step import Sample, Span

if TYPE_CHECKING:
    from engine.forward import Model

_TOKENS = 3
_WINDOW = 16


def sound(samples: list[Sample], dtype: torch.dtype) -> list[Sample]:
    """The samples of a pass; raises EngineFault if one of them was chosen among what is no number."""
    for sample in samples:
        if not math.isfinite(sample.logprob):
            raise EngineFault(in_words(dtype))
    return samples


@torch.inference_mode()
def try_out(model: Model) -> None:
    """A few made-up tokens through a model that was just loaded; raises CheckpointError if what it says is no number."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.shape.vocab_size, (_TOKENS,), generator=generator).to(model.device)
    rows = torch.arange(_TOKENS, device=model.device)
    kv = model.new_kv(1, _WINDOW)
    head = model.forward(ids, rows, (Span(0, 0, _TOKENS),), kv, rows)
    if head is not None and not all(map(math.isfinite, head.logprobs.tolist())):
        raise CheckpointError(in_words(kv.dtype))


def in_words(dtype: torch.dtype) -> str:
    """What a person is told of it, with the remedy."""
    if dtype == torch.float32:
        return "the model's numbers overflow even in float32: its weights are damaged; download it again"
    return f"the model's numbers overflow in {str(dtype).removeprefix('torch.')}; start the engine with --dtype float32"
