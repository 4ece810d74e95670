"""One short pass over fixed buffers, from token ids to token ids: what is captured, and what stands in for it until then."""

from __future__ import annotations

from typing import Protocol, cast

from torch import Tensor

from engine.cuda.graphs import Outputs
from engine.cuda.places import Place
from engine.gpt_bigcode import GPTBigCode
from engine.ops import Linear, Norm, Ops
from engine.step import Span
from triton_kernels.draw import Following, advance
from triton_kernels.head import Choice


class Choosing(Ops, Protocol):
    """Operations whose head goes on to draw on the device: `triton_kernels.ops.TritonOps`."""

    def choose(
        self, x: Tensor, norm: Norm, vocabulary: Tensor | Linear, allow: Tensor | None, *, logits: bool = False
    ) -> Choice:
        """`Ops.head` as far as the arg-max."""
        ...

    def draw(
        self,
        choice: Choice,
        table: Tensor,
        *,
        allow: Tensor | None = None,
        narrowed: bool = True,
        following: Following | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What `sampler.sample` would draw: ids [R] and log-probabilities [R]."""
        ...


def once(model: GPTBigCode, place: Place, kv: Tensor) -> Outputs:
    """Every row's greedy token, or every draw's, and their log-probabilities. Rows of no span answer nonsense.

    The model's operations must be `Choosing` ones, and its embedding a plain one. Five launches for each layer, and three
    more; four where a filter looks at the logits.
    """
    ops, weights, bucket = cast("Choosing", model.ops), model.weights, place.bucket
    assert isinstance(weights.wte, Tensor)  # noqa: S101  (`choosing.py` looked)
    # Every row is predicted from: choosing some would be a launch, and they cost nothing beside the weights.
    x = ops.embed(place.tokens, place.spans.rows[1], weights.wte, weights.wpe)
    x = model.plain_blocks(x, kv, cast("list[Span]", place.spans))
    choice = ops.choose(x, weights.ln_f, weights.vocabulary, place.allow, logits=bucket.drawn)
    if bucket.drawn:
        return ops.draw(
            choice, place.draws, allow=place.allow, narrowed=bucket.narrowed, following=place.following
        )  # fmt: skip
    if place.following is not None:
        advance(choice.ids, place.following)
    return choice.ids, choice.logprobs
