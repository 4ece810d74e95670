"""A model that has lost its way says the same again and again; found as it streams, in constant work per sign."""

from __future__ import annotations

SHORTEST, LONGEST = 4, 40
TIMES = 4


class Repetition:
    """Watches one stream for a piece of 4 to 40 signs, letters among them, that comes four times in a row."""

    def __init__(self) -> None:
        self._text = ""
        self._runs = [0] * (LONGEST + 1)
        """For each period, how many signs in a row are those that stand one period earlier."""

    def feed(self, sign: str) -> int:
        """Take one sign -> the length of the repeated piece, or 0."""
        text, runs = self._text, self._runs
        size = len(text)
        found = 0
        for period in range(SHORTEST, min(LONGEST, size) + 1):
            if text[size - period] == sign:
                runs[period] += 1
                if not found and runs[period] >= (TIMES - 1) * period:
                    found = period
            else:
                runs[period] = 0
        self._text = (text + sign)[-LONGEST:] if size >= 2 * LONGEST else text + sign
        return found if found and any(map(str.isalpha, self._text[-found:])) else 0
