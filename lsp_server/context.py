"""Pieces of other open documents that may help here, by the identifiers that they share. Pure: no I/O and no clock.

Chunks are cut at marks counted from a document's top, so that they stay what they are while somebody types below. What was
chosen for a document stays chosen while its author types: the engine keeps keys and values of the head of a prompt, and a
head that changes with every key is computed with every key.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from lsp_server.window import Window

CHUNK = 32
"""Lines of a chunk; two chunks overlap by half."""

MOST_TOKENS = 1_536
"""Tokens of context in all, however large the model's window is."""

NEAR = 24
"""Lines within which the author may move before other pieces are chosen."""

PAUSE = 2.0
"""Seconds without a request after which a burst of typing is over."""

DOCUMENTS = 16
"""Other documents that are looked at: those edited or opened last."""

_CHARACTERS_PER_TOKEN = 3  # few, so that the estimate is high: the engine counts, and leaves out what does not fit
_PIECES = 6
_LOOKED_AT = 40  # lines above the cursor, and half of that below, whose identifiers are asked for
_ALIKE = 0.6  # share of identifiers with what is there already, above which a chunk tells nothing new
_RECENT = 1.5  # how much more a chunk counts that was edited lately
_MOST_LINES = 4_096  # of a document, around where it was edited last
_LONGEST = 8_192  # characters of half a chunk; longer lines are no code that somebody reads
_REMEMBERED = 64
_WORD = re.compile(r"[^\W\d]\w{2,}")

Piece = tuple[str, str]
"""Path and text."""


@dataclass(frozen=True, slots=True)
class Other:
    """Another open document. `revision` is another number whenever its text is another; `edited` the line edited last."""

    name: str
    path: str
    lines: Sequence[str]
    revision: int = 0
    edited: int | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some lines of a document and the identifiers in them."""

    first: int
    words: frozenset[str]


@dataclass(slots=True)
class _Choice:
    """What was chosen at a line, from which documents, and where and when it was last asked for."""

    chosen_at: int
    revisions: frozenset[tuple[str, int]]
    sources: tuple[str, ...]
    pieces: tuple[Piece, ...]
    asked_at: int
    asked: float


class Context:
    """What was chosen for each document of one server. A document's chunks are made once for each of its revisions."""

    def __init__(self) -> None:
        self._chunks: LRUCache[str, tuple[int, tuple[Chunk, ...]]] = LRUCache(_REMEMBERED)
        self._chosen: LRUCache[str, _Choice] = LRUCache(_REMEMBERED)

    def around(
        self,
        document: str,
        window: Window,
        line: int,
        now: float,
        budget: int,
        others: Callable[[], Iterable[Other]],
        allowed: Callable[[str], bool] = lambda _name: True,
    ) -> tuple[Piece, ...]:
        """Path and text of what may help at a line of a document, the most alike last, next to the document itself.

        `budget` is in tokens. The very same as before while its author types. After a jump, or a pause, it is chosen anew if
        the author is elsewhere or `others`, the latest first, are not what they were. What is not `allowed` any more is
        left out at once.
        """
        choice = self._chosen.get(document)
        if choice is None:
            choice = self._choose(document, window, line, budget, others(), now)
        elif abs(line - choice.asked_at) > NEAR or now - choice.asked >= PAUSE:
            found = tuple(others())
            if abs(line - choice.chosen_at) > NEAR or choice.revisions != _revisions(document, found):
                choice = self._choose(document, window, line, budget, found, now)
        choice.asked_at, choice.asked = line, now
        if not all(allowed(name) for name in choice.sources):
            _leave_out(choice, lambda name: not allowed(name))
        return choice.pieces

    def forget(self, document: str) -> None:
        """The document was closed."""
        self._chunks.pop(document, None)
        self._chosen.pop(document, None)
        for choice in self._chosen.values():
            _leave_out(choice, lambda name: name == document)

    def _choose(
        self, document: str, window: Window, line: int, budget: int, others: Iterable[Other], now: float
    ) -> _Choice:
        found = [other for other in others if other.name != document][:DOCUMENTS]
        candidates = [(other, chunk) for other in found for chunk in self._chunked(other)]
        chosen = select(candidates, identifiers_near(window), budget)
        choice = self._chosen[document] = _Choice(
            chosen_at=line,
            revisions=_revisions(document, found),
            sources=tuple(other.name for other, _ in chosen),
            pieces=tuple((other.path, text_of(other, chunk)) for other, chunk in chosen),
            asked_at=line,
            asked=now,
        )
        return choice

    def _chunked(self, other: Other) -> tuple[Chunk, ...]:
        known = self._chunks.get(other.name)
        if known is None or known[0] != other.revision:
            known = self._chunks[other.name] = (other.revision, chunks_of(other.lines, other.edited or 0))
        return known[1]


def chunks_of(lines: Sequence[str], near: int = 0) -> tuple[Chunk, ...]:
    """Overlapping runs of lines, cut at fixed marks; of a very long document those around the line `near`."""
    half = CHUNK // 2
    start = max(0, (near - _MOST_LINES // 2) // half * half)
    end = min(len(lines), start + _MOST_LINES)
    words = []
    for first in range(start, end, half):
        text = "".join(lines[first : min(first + half, end)])
        words.append(frozenset(_WORD.findall(text)) if len(text) <= _LONGEST else None)
    found = []
    for number, here in enumerate(words):
        last = number + 1 >= len(words)
        below: frozenset[str] | None = frozenset() if last else words[number + 1]
        if here is None or below is None or (last and number):
            continue  # the last half stands in the chunk before
        if both := here | below:
            found.append(Chunk(start + number * half, both))
    return tuple(found)


def text_of(other: Other, chunk: Chunk) -> str:
    """A chunk's lines, with `\\n` between them."""
    lines = (line.rstrip("\r\n") for line in other.lines[chunk.first : chunk.first + CHUNK])
    return "\n".join(lines).strip("\n")


def tokens_of(text: str) -> int:
    """About how many tokens a text has, rather too many."""
    return 1 + len(text.encode("utf-8", "replace")) // _CHARACTERS_PER_TOKEN


def identifiers_near(window: Window) -> Counter[str]:
    """The identifiers around a cursor; those nearer count more."""
    above = window.prefix.split("\n")[-_LOOKED_AT:]
    below = window.suffix.split("\n")[: _LOOKED_AT // 2]
    found: Counter[str] = Counter()
    for distance, line in [*enumerate(reversed(above)), *enumerate(below, 1)]:
        weight = 4 if distance < 4 else 2 if distance < 16 else 1
        for word in set(_WORD.findall(line)):
            found[word] = max(found[word], weight)
    return found


def select(
    candidates: Sequence[tuple[Other, Chunk]], wanted: Mapping[str, int], budget: int
) -> list[tuple[Other, Chunk]]:
    """The chunks that share the rarest identifiers with `wanted`, within so many tokens, the best of them last."""
    here = frozenset(wanted)
    shared = [here & chunk.words for _, chunk in candidates]
    counts: Counter[str] = Counter()
    for words in shared:
        counts.update(words)
    rarity = {word: _rarity(count, len(candidates)) for word, count in counts.items()}

    def score(number: int) -> float:
        other, chunk = candidates[number]
        recent = other.edited is not None and chunk.first <= other.edited < chunk.first + CHUNK
        alike = sum(wanted[word] * rarity[word] for word in shared[number])
        return alike / math.sqrt(len(chunk.words)) * (_RECENT if recent else 1.0)

    scores = [score(number) for number in range(len(candidates))]
    chosen: list[tuple[Other, Chunk]] = []
    for number in sorted(range(len(candidates)), key=lambda number: -scores[number]):
        if scores[number] <= 0 or len(chosen) >= _PIECES:
            break
        other, chunk = candidates[number]
        seen = [here, *(known.words for _, known in chosen)]
        if any(_alike(chunk.words, words) > _ALIKE for words in seen):
            continue  # a copy would only be copied again
        if any(known is other and abs(piece.first - chunk.first) < CHUNK for known, piece in chosen):
            continue
        tokens = tokens_of(other.path) + tokens_of(text_of(other, chunk))
        if tokens <= budget:
            chosen.append((other, chunk))
            budget -= tokens
    return chosen[::-1]


def _rarity(count: int, total: int) -> float:
    """How much it tells that a chunk has a word: the logarithm of how few have it."""
    return math.log(1 + (total - count + 0.5) / (count + 0.5))


def _alike(a: frozenset[str], b: frozenset[str]) -> float:
    """Dice's coefficient."""
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 0.0


def _revisions(document: str, others: Iterable[Other]) -> frozenset[tuple[str, int]]:
    return frozenset([(other.name, other.revision) for other in others if other.name != document][:DOCUMENTS])


def _leave_out(choice: _Choice, unwanted: Callable[[str], bool]) -> None:
    kept = [(name, piece) for name, piece in zip(choice.sources, choice.pieces, strict=True) if not unwanted(name)]
    if len(kept) < len(choice.pieces):
        choice.sources = tuple(name for name, _ in kept)
        choice.pieces = tuple(piece for _, piece in kept)
