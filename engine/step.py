"""What one forward pass is asked and what it answers. The scheduler speaks this; it knows no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Span:
    """`length` consecutive tokens of one sequence, the first at position `start` of KV slot `slot`.

    The rows of a step are its spans' tokens, one span after the other.
    """

    slot: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy the first `length` positions of one KV slot into another, before the pass."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The token chosen after one span, with log-probabilities over the whole vocabulary."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass over `ids`, the tokens of `spans` in order.

    `sampled[i]` says whether span i wants a token after its last row; `allowed[i]` restricts it to some ids.
    """

    spans: tuple[Span, ...]
    ids: tuple[int, ...]
    sampled: tuple[bool, ...]
    allowed: tuple[Sequence[int] | None, ...]
    copies: tuple[Copy, ...] = ()
    top: int = 0


class Runner(Protocol):
    """Whatever runs steps: the device, or a scripted model in tests. Called from one thread only."""

    @property
    def slots(self) -> int:
        """KV slots there are."""
        ...

    @property
    def window(self) -> int:
        """Positions in one slot."""
        ...

    def run(self, step: Step) -> list[Sample]:
        """One sample for each span that wants one, in order."""
        ...
