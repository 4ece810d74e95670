"""The ways in which the same hole is laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.fim import MAX_SUFFIX, Budget, Layout

PREFIX = 256
"""Most tokens of prefix, whatever the suffix has: what differs between two ways is what they are named for."""

RESERVE = 48
LAYOUTS = (Layout.ANCHORED, Layout.SPM, Layout.PSM)


@dataclass(frozen=True, slots=True)
class Way:
    """A layout with a suffix budget; `heal` is whether the last pre-token is held back and regrown."""

    layout: Layout
    suffix: int
    heal: bool = True

    @property
    def name(self) -> str:
        """As it stands in recordings."""
        return f"{self.layout} {self.suffix}{'' if self.heal else ' unhealed'}"

    @property
    def budget(self) -> Budget:
        """Room for the whole prefix beside the suffix and the control tokens."""
        return Budget(window=PREFIX + self.suffix + RESERVE + 3, reserve=RESERVE, suffix=self.suffix)


UNHEALED = [Way(layout, 256, heal=False) for layout in LAYOUTS]
"""What healing is held against, in each layout."""


def healed_ways(suffixes: Sequence[int], layouts: Sequence[Layout] = LAYOUTS) -> list[Way]:
    """Every layout with every budget, the widest suffix first."""
    return [Way(layout, suffix) for suffix in sorted(suffixes, reverse=True) for layout in layouts]


def window_for(ways: Sequence[Way]) -> int:
    """Positions that hold the longest of their prompts and its completion."""
    return max(way.budget.window for way in ways) + RESERVE


DEFAULT = Way(Layout.ANCHORED, MAX_SUFFIX)
REACHES = (DEFAULT, Way(Layout.ANCHORED, 256), Way(Layout.ANCHORED, 128))
"""Ways whose keys cost no more than is promised, by `benchmarks.keystrokes`: wider suffixes make a walk too dear, `spm`
computes a window at every line walked, and `psm` the suffix at every word.
"""
