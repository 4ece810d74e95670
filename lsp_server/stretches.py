"""What was joined of a buffer's lines next to a place, kept until an edit touches it.

Most keys change one line and ask for what surrounds it: the rest is what it was for the key before.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stretch:
    """Lines that follow one another, as one text."""

    text: str
    size: int
    """Bytes of the lines, their own ends included."""
    beyond: int | None
    """Bytes of what would have come next and had no room; None where the document ends."""

    def fills(self, room: int) -> bool:
        """Whether this is what so many bytes hold: all of it, and no more."""
        return self.size <= room and (self.beyond is None or self.size + self.beyond > room)


class Stretches:
    """One buffer's: the last one above a line, and the last one below one."""

    def __init__(self) -> None:
        self._above: tuple[int, Stretch] | None = None
        self._below: tuple[int, Stretch] | None = None

    def above(self, line: int) -> Stretch | None:
        """What ends before this line."""
        return self._above[1] if self._above is not None and self._above[0] == line else None

    def below(self, left: int) -> Stretch | None:
        """What begins where so many lines are left to the end of the document."""
        return self._below[1] if self._below is not None and self._below[0] == left else None

    def keep_above(self, line: int, stretch: Stretch) -> None:
        """For the next look at the same place."""
        self._above = (line, stretch)

    def keep_below(self, left: int, stretch: Stretch) -> None:
        """For the next look at the same place."""
        self._below = (left, stretch)

    def touched(self, first: int, left: int) -> None:
        """The lines from `first` on have changed, but for the last `left` ones."""
        if self._above is not None and first < self._above[0]:
            self._above = None
        if self._below is not None and left < self._below[0]:
            self._below = None
