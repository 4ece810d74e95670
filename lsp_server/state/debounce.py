"""How long an automatic request waits before the model writes: from the author's rhythm and the engine's speed.

Waiting costs the author time; not waiting costs the device a completion that the next key throws away. The delay is the
one that would have cost least over the last keys. Holds no clock: times are passed in, in seconds.
"""

from __future__ import annotations

from collections import deque

MAX_DELAY = 0.25
"""Seconds that an answer is put off at most."""

_STEPS = 11  # candidates between none and MAX_DELAY
_KEYS = 32  # gaps remembered
_ENOUGH = 8  # gaps from which a rhythm can be told
_UNKNOWN_RHYTHM = 0.075
_LONGEST_GAP = 2.0  # more is a pause of any length
_NEWEST = 0.3  # weight of the latest duration in the moving average


class Debounce:
    """The rhythm of one author at one engine."""

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=_KEYS)
        self._last_key: float | None = None
        self._cost: float | None = None
        self._best: float | None = None

    def key(self, now: float, *, typed: bool = True) -> None:
        """The text changed; `typed` where its author writes, which makes it part of the rhythm."""
        if typed and self._last_key is not None and now > self._last_key:
            self._gaps.append(min(now - self._last_key, _LONGEST_GAP))
            self._best = None
        self._last_key = now

    def took(self, seconds: float) -> None:
        """The engine needed so long for a completion, from being asked to what was shown of it."""
        self._cost = seconds if self._cost is None else (1 - _NEWEST) * self._cost + _NEWEST * seconds
        self._best = None

    def delay(self, now: float) -> float:
        """Seconds to wait from `now` on. What has passed since the last key, in the editor for instance, counts."""
        if self._best is None:
            self._best = self._cheapest()
        waited = now - self._last_key if self._last_key is not None else 0.0
        return max(0.0, self._best - max(0.0, waited))

    def _cheapest(self) -> float:
        cost = self._cost if self._cost is not None else MAX_DELAY
        if len(self._gaps) < _ENOUGH:
            return min(cost, _UNKNOWN_RHYTHM)
        candidates = [step * MAX_DELAY / (_STEPS - 1) for step in range(_STEPS)]
        return min(candidates, key=lambda delay: sum(_price(gap, delay, cost) for gap in self._gaps))


def _price(gap: float, delay: float, cost: float) -> float:
    """What a delay costs at one gap between keys: nothing if the next key came first, the completion's cost if it came
    while the model wrote, and else the delay, which the author waited.
    """
    if gap <= delay:
        return 0.0
    return cost if gap < delay + cost else delay
