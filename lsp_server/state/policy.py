"""What of the life of a request can be set. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

from lsp_server.reasons import Reason


@dataclass(frozen=True, slots=True)
class Policy:
    """How requests are served."""

    debounce: bool = True
    speculate: bool = True
    """Whether the engine works ahead in the background."""
    prime: bool = True
    """Whether the engine can be asked for a prompt's keys and values alone."""
    min_confidence: int = 0
    """Least mean probability of the tokens of what an automatic request shows, in per cent."""
    min_in_prose: int = 0
    """The same in comments and in texts of several lines, if it is more."""

    def doubt(self, logprob: float | None, *, prose: bool) -> tuple[Reason, str] | None:
        """Why a mean log-probability is too low for an automatic request, and by how much in words; None if it is not."""
        per_cent = 100.0 if logprob is None else 100 * exp(logprob)
        if per_cent < self.min_confidence:
            reason, least = Reason.LOW_CONFIDENCE, self.min_confidence
        elif prose and per_cent < self.min_in_prose:
            reason, least = Reason.PROSE, self.min_in_prose
        else:
            return None
        return reason, f"mean probability of its tokens {per_cent:.1f} %, shown from {least} %"


PLAIN = Policy(debounce=False, speculate=False)
"""For one request on its own."""
