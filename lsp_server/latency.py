"""How much of the time to the first text is this server's own. Counts of it, never any text.

A request's trip begins when its bytes are read and ends when the first text for it is handed over. What it waits in between,
for the engine and for the author's next key, is not ours. The rest is taken in two ways: by the wall clock, with those waits
taken off, and as processor time of the loop's thread, which a busy machine does not stretch and which has the work of asking
the engine in it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Clock = Callable[[], float]

KEPT = 1_000
"""Trips that are kept, the newest ones."""


@dataclass(frozen=True, slots=True)
class _Moment:
    wall: float
    processor: float


@dataclass(frozen=True, slots=True)
class Share:
    """What of one trip was our own, in seconds."""

    wall: float
    processor: float


class Trip:
    """One request's way through this server."""

    __slots__ = ("_begun", "_handed", "_written", "memory", "waited")

    def __init__(self, begun: _Moment, written: Callable[[], _Moment]) -> None:
        """`written` says when something was last written."""
        self._begun = begun
        self._written = written
        self._handed: _Moment | None = None
        self.waited: float | None = None
        """Seconds that it waited for others until its first text; None while there is no text for it."""
        self.memory = False
        """Whether the text was there already, so that no model was asked."""

    def hand_over(self) -> None:
        """Text for it was written last; the first time counts."""
        if self._handed is None:
            self._handed = self._written()

    def share(self) -> Share | None:
        """Our own part of it, if there was text."""
        if self._handed is None or self.waited is None:
            return None
        begun, handed = self._begun, self._handed
        # The two clocks need not agree on the last microsecond.
        return Share(max(0.0, handed.wall - begun.wall - self.waited), handed.processor - begun.processor)


class Latency:
    """One session's."""

    def __init__(self, wall: Clock = time.perf_counter, processor: Clock = time.thread_time) -> None:
        """`wall` is the clock by which the completer tells how long it waited."""
        self._wall, self._processor = wall, processor
        self._read = self._written = self._now()
        self._under_way: dict[int | str | None, Trip] = {}
        self._shares: dict[bool, deque[Share]] = {memory: deque(maxlen=KEPT) for memory in (False, True)}

    def read(self) -> None:
        """Bytes have come in; what is in them arrived now."""
        self._read = self._now()

    def written(self) -> None:
        """Bytes are about to go out; what is in them is handed over now. An editor that waits for them may have the
        processor, and its own work done, before the call that writes them returns.
        """
        self._written = self._now()

    def begin(self, number: int | str | None) -> Trip:
        """A request is being looked at, by its id."""
        trip = self._under_way[number] = Trip(self._read, lambda: self._written)
        return trip

    def replied(self, number: int | str | None) -> None:
        """The reply to some request is handed over."""
        if (trip := self._under_way.pop(number, None)) is None:
            return
        trip.hand_over()
        if (share := trip.share()) is not None:
            self._shares[trip.memory].append(share)

    def summary(self) -> dict[str, Any]:
        """Medians and 95th percentiles in milliseconds, apart for what the model was asked and what came from memory."""
        return {name: _summary(self._shares[memory]) for name, memory in (("model", False), ("memory", True))}

    def line(self) -> str:
        """The same in words, for the log."""
        asked = self.summary()["model"]
        return (
            f"own share of the time to the first text: {asked['requests']} requests, median {asked['wall']['median']} ms "
            f"by the clock, {asked['processor']['median']} ms of the processor"
        )

    def _now(self) -> _Moment:
        return _Moment(self._wall(), self._processor())


def _summary(shares: Sequence[Share]) -> dict[str, Any]:
    return {
        "requests": len(shares),
        "wall": _percentiles([share.wall for share in shares]),
        "processor": _percentiles([share.processor for share in shares]),
    }


def _percentiles(seconds: list[float]) -> dict[str, float | None]:
    ordered = sorted(seconds)
    return {"median": _at(ordered, 0.5), "p95": _at(ordered, 0.95)}


def _at(ordered: Sequence[float], part: float) -> float | None:
    return round(1_000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))], 3) if ordered else None
