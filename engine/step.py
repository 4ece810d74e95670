"""What one forward pass is asked and what it answers. The scheduler speaks this; it knows no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.sampling import Sampling


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
    """One forward pass over `ids`, the tokens of `spans` in order. All other tuples have one entry for each span.

    sampled: whether the span wants a token after its last row.
    allowed: ids that this token may be; None allows all.
    sampling: how it is drawn; None is the arg-max.
    seen: ids that the repetition penalty of `sampling` applies to; empty where it penalises nothing.
    draws: how many tokens are wanted after the same row, for `sampling.candidate` and those after it.
    guesses: how many of a span's last tokens are guesses; a token is wanted after the row before them and after each.
    top: how many alternatives to report for every token.
    """

    spans: tuple[Span, ...]
    ids: tuple[int, ...]
    sampled: tuple[bool, ...]
    allowed: tuple[Sequence[int] | None, ...]
    sampling: tuple[Sampling | None, ...]
    seen: tuple[Sequence[int], ...]
    draws: tuple[int, ...]
    guesses: tuple[int, ...]
    copies: tuple[Copy, ...] = ()
    top: int = 0

    @classmethod
    def of(
        cls,
        span: Span,
        ids: Sequence[int],
        *,
        sampled: bool = True,
        allowed: Sequence[int] | None = None,
        sampling: Sampling | None = None,
        seen: Sequence[int] = (),
        draws: int = 1,
        guesses: int = 0,
        copies: Sequence[Copy] = (),
        top: int = 0,
    ) -> Step:
        """A pass over one span."""
        return cls(
            (span,), tuple(ids), (sampled,), (allowed,), (sampling,), (tuple(seen),), (draws,), (guesses,), tuple(copies),
            top,
        )  # fmt: skip

    @property
    def samples(self) -> int:
        """How many tokens the pass answers with."""
        each = zip(self.sampled, self.draws, self.guesses, strict=True)
        return sum(draws + guesses for sampled, draws, guesses in each if sampled)


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

    @property
    def free_rows(self) -> int:
        """Tokens that one pass computes in about the time of one: guesses go along in passes that have fewer."""
        ...

    def run(self, step: Step) -> list[Sample]:
        """The samples of each span that wants some, in order. Copies are made first, one after the other.

        Raises DeviceMemoryExhausted, with nothing changed before `start` of any span but the targets of copies.
        """
        ...

    def keep_slots(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """Give back the memory of all KV slots but these, in ascending order, which are numbered anew in this order.

        lengths: how many positions of each have to stay what they are. Takes no memory where the device is the host. If it
        raises, nothing is known of what the slots hold; with fewer `slots` than were to be kept there is no going on.
        """
        ...
