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
_MOST_CHARACTERS = 256 * 2**10  # of these
_AT_ONCE = 512 * 2**10  # characters after which no other document is read for one choice: no key is answered meanwhile
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


class Chunks:
    """The chunks of one document at one revision, and which of them have a word."""

    def __init__(self, other: Other) -> None:
        self.revision = other.revision
        self.chunks = chunks_of(other.lines, other.edited or 0)
        self.having: dict[str, list[int]] = {}
        """By word, the chunks by number."""
        for number, chunk in enumerate(self.chunks):
            for word in chunk.words:
                self.having.setdefault(word, []).append(number)
        self._tokens: dict[int, int] = {}

    def tokens(self, other: Other, number: int) -> int:
        """About how many tokens a chunk has; counted once."""
        if (known := self._tokens.get(number)) is None:
            known = self._tokens[number] = tokens_of(text_of(other, self.chunks[number]))
        return known


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
    """What was chosen for each document of one server. A document's chunks are made once for each of its revisions.

    Where the others are many and long, some wait for the next time that something is chosen, those that were edited last not.
    """

    def __init__(self) -> None:
        self._chunks: LRUCache[str, Chunks] = LRUCache(_REMEMBERED)
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
        known = self._chunked(found)
        chosen = select(known, identifiers_near(window), budget)
        choice = self._chosen[document] = _Choice(
            chosen_at=line,
            # Of what was looked at: what was not makes it another choice after the next pause.
            revisions=_revisions(document, [other for other, _ in known]),
            sources=tuple(other.name for other, _ in chosen),
            pieces=tuple((other.path, text_of(other, chunk)) for other, chunk in chosen),
            asked_at=line,
            asked=now,
        )
        return choice

    def _chunked(self, others: Iterable[Other]) -> list[tuple[Other, Chunks]]:
        """The documents with their chunks, as far as they are known or can be read at once."""
        found, left = [], _AT_ONCE
        for other in others:
            known = self._chunks.get(other.name)
            if known is None or known.revision != other.revision:
                if left <= 0:
                    continue
                known = self._chunks[other.name] = Chunks(other)
                left -= _characters(other)
            found.append((other, known))
        return found


def chunks_of(lines: Sequence[str], near: int = 0) -> tuple[Chunk, ...]:
    """Overlapping runs of lines, cut at fixed marks; of a very long document those around the line `near`."""
    half = CHUNK // 2
    words = []
    starts = _halves(lines, near)
    for first in starts:
        text = lines[first : first + half]
        words.append(frozenset(_WORD.findall("".join(text))) if sum(map(len, text)) <= _LONGEST else None)
    found = []
    for number, here in enumerate(words):
        last = number + 1 >= len(words)
        below: frozenset[str] | None = frozenset() if last else words[number + 1]
        if here is None or below is None or (last and number):
            continue  # the last half stands in the chunk before
        if both := here | below:
            found.append(Chunk(starts[number], both))
    return tuple(found)


def _halves(lines: Sequence[str], near: int) -> range:
    """Where the halves of chunks begin that are read: all, or those around the line `near` that are not too much."""
    half = CHUNK // 2
    start = max(0, (near - _MOST_LINES // 2) // half * half)
    starts = range(start, min(len(lines), start + _MOST_LINES), half)
    sizes = [sum(map(len, lines[first : first + half])) for first in starts]
    sizes = [size if size <= _LONGEST else 0 for size in sizes]  # which are not read
    left = _MOST_CHARACTERS - sum(sizes)
    if left >= 0 or not sizes:
        return starts
    low, high = 0, len(sizes)
    middle = min((near - start) // half, high - 1)
    while left < 0:  # the end that is farther off goes first
        at = low if middle - low > high - 1 - middle else high - 1
        left += sizes[at]
        low, high = (low + 1, high) if at == low else (low, high - 1)
    return starts[low:high]


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
    documents: Sequence[tuple[Other, Chunks]], wanted: Mapping[str, int], budget: int
) -> list[tuple[Other, Chunk]]:
    """The chunks that share the rarest identifiers with `wanted`, within so many tokens, the best of them last."""
    total = sum(len(known.chunks) for _, known in documents)
    alike = [[0.0] * len(known.chunks) for _, known in documents]
    for word, weight in wanted.items():
        having = [known.having.get(word, ()) for _, known in documents]
        if count := sum(map(len, having)):
            worth = weight * _rarity(count, total)
            for numbers, scores in zip(having, alike, strict=True):
                for number in numbers:
                    scores[number] += worth
    ranked: list[tuple[float, int, int]] = []
    for at, (other, known) in enumerate(documents):
        for number, score in enumerate(alike[at]):
            if score:
                chunk = known.chunks[number]
                recent = other.edited is not None and chunk.first <= other.edited < chunk.first + CHUNK
                ranked.append((-score / math.sqrt(len(chunk.words)) * (_RECENT if recent else 1.0), at, number))
    here = frozenset(wanted)
    chosen: list[tuple[Other, Chunk]] = []
    for _, at, number in sorted(ranked):
        if len(chosen) >= _PIECES:
            break
        (other, known), chunk = documents[at], documents[at][1].chunks[number]
        tokens = tokens_of(other.path) + known.tokens(other, number)
        if tokens > budget:
            continue
        if any(_alike(chunk.words, words) > _ALIKE for words in (here, *(seen.words for _, seen in chosen))):
            continue  # a copy would only be copied again
        if any(seen is other and abs(piece.first - chunk.first) < CHUNK for seen, piece in chosen):
            continue
        chosen.append((other, chunk))
        budget -= tokens
    return chosen[::-1]


def _rarity(count: int, total: int) -> float:
    """How much it tells that a chunk has a word: the logarithm of how few have it."""
    return math.log(1 + (total - count + 0.5) / (count + 0.5))


def _alike(a: frozenset[str], b: frozenset[str]) -> float:
    """Dice's coefficient."""
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 0.0


def _characters(other: Other) -> int:
    """How much of a document was read for its chunks."""
    half = CHUNK // 2
    return sum(sum(map(len, other.lines[first : first + half])) for first in _halves(other.lines, other.edited or 0))


def _revisions(document: str, others: Iterable[Other]) -> frozenset[tuple[str, int]]:
    return frozenset([(other.name, other.revision) for other in others if other.name != document][:DOCUMENTS])


def _leave_out(choice: _Choice, unwanted: Callable[[str], bool]) -> None:
    kept = [(name, piece) for name, piece in zip(choice.sources, choice.pieces, strict=True) if not unwanted(name)]
    if len(kept) < len(choice.pieces):
        choice.sources = tuple(name for name, _ in kept)
        choice.pieces = tuple(piece for _, piece in kept)
