"""Pieces of other open documents that may help here, by the identifiers that they share. Pure: no I/O and no clock.

Chunks are cut at marks counted from a document's top, so that they stay what they are while somebody types below. What was
chosen for a document stays chosen while its author stays near: the engine keeps keys and values of the head of a prompt, and
a head that changes with every key is computed with every key.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from lsp_server.window import Window

CHUNK = 32
"""Lines of a chunk; two chunks overlap by half."""

BUDGET = 2_000
"""Characters of context in all."""

NEAR = 24
"""Lines within which the author may move before other pieces are chosen."""

_LOOKED_AT = 40  # lines above the cursor, and half of that below, whose identifiers are asked for
_ALIKE = (
    0.6  # share of identifiers with a chosen chunk, or with what the cursor sees, above which a chunk tells nothing new
)
_RECENT = 1.5  # how much more a chunk counts that was edited lately
_MAX_CHARACTERS = 200_000
_MAX_DOCUMENTS = 64
_WORD = re.compile(r"[^\W\d]\w{2,}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some lines of a document and the identifiers in them."""

    path: str
    first: int
    text: str
    words: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Choice:
    line: int
    others: frozenset[str]
    pieces: tuple[tuple[str, str], ...]


class Context:
    """The open documents of one server. Work for a document is done once for each of its versions."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        self._chunks: LRUCache[str, tuple[int, tuple[Chunk, ...]]] = LRUCache(_MAX_DOCUMENTS)
        self._edited: dict[str, int] = {}
        self._chosen: LRUCache[str, _Choice] = LRUCache(_MAX_DOCUMENTS)

    def put(self, document: str, path: str, text: str, version: int, edited_line: int | None = None) -> None:
        """A document as it is now, and where it was edited last."""
        if document not in self._chunks or self._chunks[document][0] != version:
            self._chunks[document] = (version, chunks_of(path, text))
        if edited_line is not None:
            self._edited[document] = edited_line

    def forget(self, document: str) -> None:
        """The document was closed."""
        for store in (self._chunks, self._edited, self._chosen):
            store.pop(document, None)

    def around(self, document: str, window: Window, line: int) -> tuple[tuple[str, str], ...]:
        """Path and text of what may help at a line of a document, the most alike last, next to the document itself.

        The same as before while the author is within `NEAR` lines of where it was chosen and no document came or went.
        """
        others = frozenset(self._chunks) - {document}
        choice = self._chosen.get(document)
        if choice is None or choice.others != others or abs(choice.line - line) > NEAR:
            found = {name: self._chunks[name][1] for name in others}
            pieces = select(found, self._edited, identifiers_near(window), self._budget)
            choice = self._chosen[document] = _Choice(line, others, pieces)
        return choice.pieces


def chunks_of(path: str, text: str) -> tuple[Chunk, ...]:
    """Overlapping runs of lines, cut at fixed marks."""
    lines = text[:_MAX_CHARACTERS].split("\n")
    found = []
    for first in range(0, max(1, len(lines) - CHUNK // 2), CHUNK // 2):
        piece = "\n".join(lines[first : first + CHUNK]).strip("\n")
        words = frozenset(_WORD.findall(piece))
        if words:
            found.append(Chunk(path, first, piece, words))
    return tuple(found)


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
    documents: Mapping[str, Sequence[Chunk]], edited: Mapping[str, int], wanted: Mapping[str, int], budget: int
) -> tuple[tuple[str, str], ...]:
    """The chunks that share the rarest identifiers with `wanted`, within so many characters, the best of them last."""
    everything = [(name, chunk) for name, chunks in sorted(documents.items()) for chunk in chunks]
    rarity = _rarity(chunk.words for _, chunk in everything)
    here = frozenset(wanted)

    def score(name: str, chunk: Chunk) -> float:
        shared = sum(wanted[word] * rarity[word] for word in here & chunk.words)
        recent = name in edited and chunk.first <= edited[name] < chunk.first + CHUNK
        return shared / math.sqrt(len(chunk.words)) * (_RECENT if recent else 1.0)

    ranked = sorted(((score(name, chunk), chunk) for name, chunk in everything), key=lambda pair: -pair[0])
    chosen: list[Chunk] = []
    for value, chunk in ranked:
        if value <= 0 or len(chosen) >= 4:
            break
        if len(chunk.text) > budget or any(_alike(chunk.words, other.words) > _ALIKE for other in chosen):
            continue
        if _alike(chunk.words, here) > _ALIKE:
            continue  # a copy of what the cursor sees would only be copied again
        chosen.append(chunk)
        budget -= len(chunk.text)
    return tuple((chunk.path, chunk.text) for chunk in reversed(chosen))


def _rarity(chunks: Iterable[frozenset[str]]) -> Mapping[str, float]:
    """How much it tells that a chunk has a word: the logarithm of how few have it."""
    counts: Counter[str] = Counter()
    total = 0
    for words in chunks:
        counts.update(words)
        total += 1
    return {word: math.log(1 + (total - count + 0.5) / (count + 0.5)) for word, count in counts.items()}


def _alike(a: frozenset[str], b: frozenset[str]) -> float:
    """Dice's coefficient."""
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 0.0
