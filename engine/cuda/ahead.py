"""Whether to begin the next pass before anybody has asked for it. Plain Python.

While the host looks at one token the device may as well compute the next: a pass that leaves its successor's place ready is
replayed at once. If the next step is another one, what was begun is dropped; it wrote behind what anybody relies on.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.cuda.buckets import is_plain
from engine.sampling import Sampling
from engine.step import Step


class Ahead:
    """What the step after the last one would be, if every sequence goes on; and how often guessing so was right."""

    def __init__(self) -> None:
        self.begun = self.used = 0
        self._slots: tuple[int, ...] = ()
        self._next: tuple[int, ...] = ()
        self._ids: tuple[int, ...] = ()
        self._sampling: tuple[Sampling | None, ...] = ()

    def continues(self, step: Step) -> bool:
        """Whether `step` is the last one's continuation, token by token."""
        return (
            bool(self._slots)
            and is_plain(step)
            and not step.copies
            and not step.top
            and all(allowed is None for allowed in step.allowed)
            and tuple(span.slot for span in step.spans) == self._slots
            and tuple(span.start for span in step.spans) == self._next
            and step.ids == self._ids
            and step.sampling == self._sampling
        )

    def answered(self, step: Step, ids: Sequence[int]) -> None:
        """A plain step was answered with these tokens."""
        self._slots = tuple(span.slot for span in step.spans)
        self._next = tuple(span.start + 1 for span in step.spans)
        self._ids = tuple(ids)
        self._sampling = step.sampling

    def forget(self) -> None:
        """Nothing continues what comes before this."""
        self._slots = ()

    def worth_it(self, continued: bool, window: int) -> bool:
        """Whether to begin the step after the present one: where that was itself a continuation, and there is room."""
        return continued and all(start + 2 < window for start in self._next)
