"""Whether a model's short spans are computed by compiled code: tried on the model itself against torch's own operations.

Where it cannot be had, or does not say what they say, they compute everything: the same tokens, slower.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.errors import CheckpointError
from engine.gpt_bigcode import GPTBigCode
from engine.ops import FewRows
from engine.overflow import in_words
from engine.quantization import Int8Rows
from engine.step import Span

if TYPE_CHECKING:
    from engine.compiled_rows import Compiled

log = logging.getLogger(__name__)

_TOKENS = 3
_WINDOW = 16

_APART = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""What the two may differ by, in parts of the values' spread: what rounding adds up to in a deep model."""


def compiled_for(model: GPTBigCode) -> Compiled | None:
    """The code for a model on a CPU, or None; the log says why. One layer is enough to tell it: all others are like that."""
    try:
        from engine.compiled_rows import Compiled, Unsupported
    except ImportError as error:
        log.warning("llvmlite cannot be imported (%s): decoding is slower", error)
        return None
    try:
        return Compiled(model.shape, model.weights, model.scale)
    except Unsupported as reason:
        log.info("decoding operation by operation: %s", reason)
    except RuntimeError as error:
        log.warning("LLVM does not compile for this processor (%s): decoding is slower", str(error).partition("\n")[0])
    return None


def few_rows(model: GPTBigCode, compiled: Compiled) -> FewRows | None:
    """The quick way through a model on a CPU, or None if it is not right; the log says so."""
    from engine.compiled_rows import CompiledRows

    rows: FewRows = CompiledRows(compiled, model.weights)
    if not agrees(model, rows):
        log.warning("compiled code and torch disagree on this model: decoding is slower")
        return None
    return rows


@torch.inference_mode()
def agrees(model: GPTBigCode, rows: FewRows) -> bool:
    """Whether both say the same of a few made-up tokens: residual, keys and values, logits.

    Raises CheckpointError if what torch's operations say is no number.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.shape.vocab_size, (_TOKENS,), generator=generator)
    spans, found = (Span(0, 0, _TOKENS),), []
    for quick in (False, True):
        kv = model.new_kv(1, _WINDOW)
        x = _embedded(model, ids)
        if quick:
            x = rows.blocks(x, kv, spans)
            logits = rows.logits(x)
        else:
            x = model.plain_blocks(x, kv, spans)
            head = model.ops.head(x[:_TOKENS], model.weights.ln_f, model.weights.vocabulary, None, 0, logits=True)
            logits = head.logits
            if not all(map(math.isfinite, head.logprobs.tolist())):
                raise CheckpointError(in_words(model.dtype))
        found.append((x[:_TOKENS], kv, logits))
    return all(_close(a, b, _APART[model.dtype]) for a, b in zip(*found, strict=True))


def _embedded(model: GPTBigCode, ids: Tensor) -> Tensor:
    wte, positions = model.weights.wte, torch.arange(len(ids))
    if isinstance(wte, Int8Rows):
        ids, wte = positions, wte.rows(ids)
    return model.ops.embed(ids, positions, wte, model.weights.wpe)


def _close(a: Tensor, b: Tensor, apart: float) -> bool:
    a, b = a.float(), b.float()
    return bool((a - b).square().mean().sqrt() <= apart * a.square().mean().sqrt())
