"""Guesses at what the model says next, verified by the pass that computes them. Plain Python, no device.

A decode step reads all weights for one token and could compute a few more with the same reading. What stands in the prompt
already, or was said before for the same document, often comes again (prompt lookup decoding, Saxena 2023). Such tokens go
along after the last known one, and a token is sampled after each: what the model says is compared with the guess, and the
first that differs ends it (Leviathan et al. 2023, with a guess that is certain). So the tokens are those that there would
be without, greedy or drawn, because the chance in sampling depends on seed and position alone (`noise.py`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engine.generation import Generation

if TYPE_CHECKING:
    from cachetools import LRUCache

_BYTES = 4
"""Of one id, so that an id is found by searching bytes: C speed, and no index to build."""

_MATCHES = (2, 3, 4, 8)
"""How many of the last tokens must have stood elsewhere; the more, the better the guess."""

_REMEMBERED = 512
"""Tokens of an earlier completion that are kept, a few of its prompt's last included."""

_BEFORE = 8


class Lookup:
    """The tokens of one sequence, where the last of them are looked for, and in `earlier` first."""

    def __init__(self, earlier: Sequence[int] = ()) -> None:
        self._ids = bytearray()
        self._earlier = _packed(earlier)

    def know(self, length: int, ids_from: Callable[[int, int], Sequence[int]]) -> None:
        """So many tokens of the sequence are known by now; `ids_from(start, end)` has them."""
        self._ids += _packed(ids_from(len(self._ids) // _BYTES, length))

    def guess(self, most: int) -> list[int]:
        """At most so many tokens that may come next: what followed the longest match, the newest one."""
        best = b""
        for tokens in _MATCHES:
            after = self._after_last(tokens * _BYTES, most * _BYTES)
            if not after:
                break
            best = after
        return array("I", best).tolist()

    def _after_last(self, length: int, most: int) -> bytes:
        """What followed the last `length` bytes elsewhere, at most so many bytes."""
        if most > 0 and length <= len(self._ids):
            last = bytes(self._ids[-length:])
            at = _find_last(self._earlier, last, len(self._earlier) - _BYTES)
            if at >= 0:
                return self._earlier[at + length : at + length + most]
            at = _find_last(self._ids, last, len(self._ids) - _BYTES)
            if at >= 0:  # what follows may end before there is enough: then it is a loop, and begins again
                after = bytes(self._ids[at + length : at + length + most])
                return (after * -(-most // len(after)))[:most]
        return b""


class Guesswork:
    """The guesses for a scheduler's passes. `guessed` and `right` count tokens."""

    def __init__(self, free_rows: int, window: int, documents: int = 256) -> None:
        from cachetools import LRUCache  # measuring `Lookup` alone needs no library

        self.guessed = self.right = 0
        self._free_rows = free_rows
        self._window = window
        self._lookups: dict[int, Lookup] = {}
        self._said: LRUCache[tuple[str, str | None], Sequence[int]] = LRUCache(documents)

    def guess(self, generations: Sequence[Generation], parts: Sequence[int]) -> list[list[int]]:
        """Guesses for each generation after the part of it that the next pass computes: what is free, in equal shares."""
        guesses: list[list[int]] = []
        free = self._free_rows - sum(parts)
        for number, (generation, part) in enumerate(zip(generations, parts, strict=True)):
            start = generation.computed + part
            share = min(free // (len(parts) - number), generation.left - 1, self._window - start)
            wanted = share > 0 and start == generation.length and generation.foreseeable
            guesses.append(self._lookup(generation).guess(share) if wanted else [])
            free -= len(guesses[-1])
        return guesses

    def verified(self, guessed: int, right: int) -> None:
        """So many guesses went along, and so many of them were what the model said."""
        self.guessed += guessed
        self.right += right

    def end(self, generation: Generation) -> None:
        """A generation ended, or was broken off; what it said is remembered for its document."""
        self._lookups.pop(generation.id, None)
        if generation.document is not None and generation.generated:
            said = [*generation.prompt[-_BEFORE:], *generation.generated[: _REMEMBERED - _BEFORE]]
            self._said[generation.client, generation.document] = array("I", said)

    def _lookup(self, generation: Generation) -> Lookup:
        found = self._lookups.get(generation.id)
        if found is None:
            found = Lookup(self._said.get((generation.client, generation.document), ()))
            self._lookups[generation.id] = found
        found.know(generation.length, generation.ids_from)
        return found


def _packed(ids: Sequence[int]) -> bytes:
    return array("I", ids).tobytes()


def _find_last(text: bytes | bytearray, ids: bytes, end: int) -> int:
    """Where the last occurrence that lies before `end` begins, on an id's boundary; -1 for nowhere."""
    at = text.rfind(ids, 0, max(0, end))
    while at % _BYTES and at > 0:
        at = text.rfind(ids, 0, at + len(ids) - 1)
    return at if at % _BYTES == 0 else -1
