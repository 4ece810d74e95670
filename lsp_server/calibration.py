"""From which confidence on completions are worth showing to this user: by how often those like them were accepted. Pure.

Completions are sorted by the mean probability of their tokens into bins. Those of `MOST` per cent and more are always
shown; how often they are accepted is what the others are held against. A bin is silenced when completions in it are
accepted less than a quarter as often. Acceptance is taken to grow with confidence (isotonic regression, by the max-min
formula of Barlow et al. 1972). A bin about which little is known counts as if it were as good as the surest ones, by a few
acceptances that were never seen, so that silence needs evidence. What was seen fades, so that old habits are forgotten
and a bin that is silent for long is tried again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp
from typing import Final

LEAST: Final = 2
"""Per cent below which nothing is shown, whatever is known; what `benchmarks.confidence` found for the starter model."""

LEAST_IN_PROSE: Final = 40
"""The same in comments and texts of several lines, which code models say more about than they know."""

EDGES: Final = (0, 5, 10, 15, 20, 25)
"""Per cent from which each bin reaches to the next."""

MOST: Final = 30
"""Per cent from which on completions are always shown."""

ENOUGH_ACCEPTED: Final = 10
"""Acceptances of sure completions before anything is silenced. An editor that tells of none silences nothing."""

MEMORY: Final = 2_000
"""Completions after which what was seen counts a third (1/e)."""

_WORSE = 0.25
_BELIEVED = 3.0  # acceptances that each bin is believed to have had


@dataclass(slots=True)
class Calibration:
    """What came of completions, by bin; the last bin is that of the sure ones. Numbers fade, so they are no whole ones."""

    offered: list[float] = field(default_factory=lambda: [0.0] * (len(EDGES) + 1))
    accepted: list[float] = field(default_factory=lambda: [0.0] * (len(EDGES) + 1))

    def offer(self, logprob: float) -> None:
        """One was shown that nobody had asked for by hand. `logprob` is the mean over its tokens."""
        fade = 1 - 1 / MEMORY
        self.offered = [count * fade for count in self.offered]
        self.accepted = [count * fade for count in self.accepted]
        self.offered[bin_of(logprob)] += 1

    def accept(self, logprob: float) -> None:
        """One of those was accepted, or a part of it."""
        at = bin_of(logprob)
        self.accepted[at] = min(self.accepted[at] + 1, self.offered[at])

    def least(self) -> int:
        """Per cent from which on completions are shown: from `LEAST` to `MOST`."""
        sure = self.accepted[-1]
        if sure < ENOUGH_ACCEPTED:
            return LEAST
        usual = sure / self.offered[-1]
        fitted = _isotonic(
            [count + _BELIEVED for count in self.accepted[:-1]],
            [count + _BELIEVED / usual for count in self.offered[:-1]],
        )
        silent = sum(rate < _WORSE * usual for rate in fitted)
        return max(LEAST, (*EDGES, MOST)[silent])


def bin_of(logprob: float) -> int:
    """The bin of a mean log-probability."""
    per_cent = 100 * exp(min(logprob, 0.0))
    return sum(per_cent >= edge for edge in (*EDGES[1:], MOST))


def _isotonic(hits: list[float], counts: list[float]) -> list[float]:
    """The rates that never fall and are nearest to what was seen."""
    bins = range(len(hits))

    def rate(first: int, last: int) -> float:
        return sum(hits[first : last + 1]) / sum(counts[first : last + 1])

    return [max(min(rate(a, b) for b in bins[i:]) for a in bins[: i + 1]) for i in bins]
