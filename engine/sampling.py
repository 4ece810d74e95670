"""How the next token is drawn: the parameters of one request, in plain data. No torch; `sampler.py` is the other half."""

from __future__ import annotations

from dataclasses import dataclass

GREEDY_BELOW = 1e-5
"""Temperatures under this are greedy: dividing by them would only overflow."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Applied in this order: repetition penalty, allow-mask, temperature, min-p, top-k, top-p; then one draw.

    temperature: the logits are divided by it; 0 is the arg-max (of the penalised logits).
    top_p: the smallest set of most likely tokens whose mass reaches it is kept; 1 keeps all.
    top_k: so many most likely tokens are kept, ties with the last one too; 0 keeps all.
    min_p: tokens less likely than this fraction of the likeliest are dropped.
    repetition_penalty: logits of tokens in the prompt or the text so far are divided by it if positive, multiplied if
    negative (Keskar et al. 2019); 1 changes nothing.
    seed: 64 bits, unsigned. With `candidate` and the position of the new token it is all that the noise depends on.
    candidate: which of the request's `n` completions this is.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    candidate: int = 0

    @property
    def draws(self) -> bool:
        """Whether chance plays a part: candidates of a request that does not draw are all alike."""
        return self.temperature >= GREEDY_BELOW

    @property
    def penalises(self) -> bool:
        """Whether the tokens so far must be known."""
        return self.repetition_penalty != 1.0
