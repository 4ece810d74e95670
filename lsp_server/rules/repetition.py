"""A model that has lost its way says the same again and again; found as it streams, in constant work per sign and line."""

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


class Lines:
    """Watches the lines of one stream for one that comes twice in a row, and for the same lines three times in a row.

    A line that comes three times with others between is none: blocks end in the same braces, `break;` and `return err`.
    """

    def __init__(self) -> None:
        self._said: list[str] = []
        self._previous = ""
        self._seen: dict[str, list[tuple[int, int]]] = {}
        """Of each line the last two times: its number, and where it began."""

    def ended(self, line: str, whole: str, start: int) -> int | None:
        """Take a line that has text and began at `start` -> where the stream should have ended; None if it may go on.

        `whole` is the line with what stood left of the cursor.
        """
        before, self._previous = self._previous, whole
        if whole == before and len(line.strip()) > SHORTEST - 1:
            return start - 1
        number, seen = len(self._said), self._seen.setdefault(line, [])
        self._said.append(line)
        if len(seen) == 2:
            (first, _), (second, again) = seen
            if self._said[first:second] == self._said[second:number]:
                return again - 1
            del seen[0]
        seen.append((number, start))
        return None
