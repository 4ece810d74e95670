"""Which passages of a text stand verbatim in an index.

A gram of the text that was kept of a source leads to a place there; from it the two are compared token by token, both
ways, as far as they agree. Grams tell where to look, tokens decide, so that what is reported is there.

What counts for a completion: a passage may begin in what stands before the cursor, because text that is accepted line by
line is as long as text that is accepted at once. But it must go on in the completion, with a tenth of the length that
is asked for at least: that a document holds a passage already says nothing about what is offered now, and a bracket that
closes it says little.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from lsp_server.attribution.index import Index, Source
from lsp_server.attribution.origin import Origin
from lsp_server.attribution.tokens import SPANS, Hashes, grams, sketch

OWN_PART: Final = 10
"""A passage counts if this part of the length asked for, a tenth, stands in the completion itself."""

MOST_TOKENS: Final = 2_000
"""Of a completion that are looked at."""

MOST_COMPARED: Final = 400
"""Places that are compared for one completion, or less of long ones: 512 tokens that agree count like a place."""

COMPARED_A_TOKEN: Final = 4
"""Such places for each token of a whole text, so that no text takes longer than its length explains."""

MOST_SOURCES: Final = 4
"""Of one completion that are told."""

_SIGNS_A_TOKEN = (8, 64)  # of text before the cursor that are read for each token that may count: at first, and at most
_PIECE = 64  # tokens compared at once
_LIKE_A_PLACE = 512  # tokens, to compare which takes as long as to come to a place

_HASHES = Hashes()


@dataclass(frozen=True, slots=True)
class Text:
    """A text to look for. `own` is the first token of it that is not only context."""

    hashes: list[int]
    own: int = 0


@dataclass(frozen=True, slots=True)
class Passage:
    """Tokens `begin` to `end` of a text stand verbatim in a source, from `position` on."""

    begin: int
    end: int
    source: Source
    line: int

    @property
    def tokens(self) -> int:
        """How long it is."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class _Span:
    """As a passage, before its source was looked up."""

    begin: int
    end: int
    position: int
    number: int


def whole(text: str) -> Text:
    """All of a text."""
    return Text([_HASHES[match[0]] for match in SPANS(text)])


def completion(before: str, text: str, length: int) -> Text:
    """A completion after what stands before the cursor, of which no more counts than a passage of `length` tokens needs."""
    for signs in _SIGNS_A_TOKEN:
        context = before[-signs * length :]
        spans = list(SPANS(context + text))
        if len(context) < len(before) and spans:
            del spans[0]  # which may be the end of a longer one
        own = next((at for at, span in enumerate(spans) if span.end() > len(context)), len(spans))
        if own >= length or len(context) == len(before):
            break
    first = max(0, own - length)
    return Text([_HASHES[span[0]] for span in spans[first : own + MOST_TOKENS]], own - first)


def of_completion(index: Index, before: str, text: str, length: int, but: str = "", known: str = "") -> list[Passage]:
    """Passages of `length` tokens and more that a completion makes or goes on with, the longest first, each source once.

    `but` is the file that is completed: that it stands in itself is no news. Nor are pieces of `known`, the text that is
    to be replaced. Raises IndexRefused if the index is damaged.
    """
    sought = completion(before, text, length)
    least = -(-length // OWN_PART)
    news = _news(sought, known, least)
    spans = [
        span
        for span in _spans(index, sought, length, MOST_COMPARED)
        if news[span.end] - news[max(span.begin, sought.own)] >= least
    ]
    spans.sort(key=lambda span: (span.begin - span.end, span.position))
    here = _real(but) if but and spans else ""
    found: dict[int, Passage] = {}
    for span in spans:
        if len(found) == MOST_SOURCES:
            break
        if span.number not in found and (passage := _passage(index, span, here)) is not None:
            found[span.number] = passage
    return list(found.values())


def origin_of(passage: Passage) -> Origin:
    """A passage as it is told."""
    source = passage.source
    return Origin(source.package, source.path, passage.line, source.licence, passage.tokens)


def lines_of(text: str, tokens: list[int]) -> list[int]:
    """The lines, from 1, that some of a text's tokens stand on."""
    starts = [span.start() for span in SPANS(text)]
    ends = [at for at, sign in enumerate(text) if sign == "\n"]
    return [1 + bisect_left(ends, starts[token]) for token in tokens]


def of_text(
    index: Index, text: str, length: int, stopped: Callable[[int], None] = lambda _token: None
) -> list[Passage]:
    """The passages of a whole text, in its order; of those that lie within another one the longer alone.

    `stopped` hears of the token that nothing was looked for from on, if there was too much to compare.
    """
    sought = whole(text)
    most = max(MOST_COMPARED, COMPARED_A_TOKEN * len(sought.hashes))
    spans = sorted(
        _spans(index, sought, length, most, stopped), key=lambda span: (span.begin, -span.end, span.position)
    )
    found: list[Passage] = []
    end = 0
    for span in spans:
        if span.end > end and (passage := _passage(index, span, "")) is not None:
            end = span.end
            found.append(passage)
    return found


def _spans(
    index: Index, text: Text, length: int, most: int, stopped: Callable[[int], None] = lambda _token: None
) -> Iterator[_Span]:
    """Where at least `length` tokens in a row agree, each place of a source once."""
    size = index.header.gram
    query = memoryview(sketch(text.hashes))
    agreed: dict[int, int] = {}  # by how far source and text are apart: up to where they have been compared
    for at, gram in enumerate(grams(text.hashes, size)):
        for position in index.positions(gram):
            apart = position - at
            if agreed.get(apart, -1) > at:
                continue
            if most <= 0:
                stopped(at)
                return
            number = index.source_at(position)
            first, last = index.span(number)
            end = at + _common(query[at:], index.tokens[position : min(last, position + len(query) - at)])
            left = min(at, position - first)
            begin = at - _common(query[at - left : at][::-1], index.tokens[position - left : position][::-1])
            most -= 1 + (end - begin) // _LIKE_A_PLACE
            agreed[apart] = max(end, at + 1)
            if end - begin >= length:
                yield _Span(begin, end, apart + begin, number)


def _passage(index: Index, span: _Span, but: str) -> Passage | None:
    source = index.source(span.number)
    if but and source.file == but:
        return None
    return Passage(span.begin, span.end, source, index.line(source, span.position))


def _news(text: Text, known: str, length: int) -> list[int]:
    """Of how many tokens before each place it is news that they stand there: not of `length` in a row that are known."""
    size = len(text.hashes)
    if not known:
        return list(range(size + 1))
    seen = set(grams(whole(known).hashes, length))
    new, total = [0], 0
    familiar = 0  # up to where tokens belong to such a row
    here = grams(text.hashes, length)
    for at in range(size):
        if at < len(here) and here[at] in seen:
            familiar = at + length
        total += at >= familiar
        new.append(total)
    return new


def _real(path: str) -> str:
    """A path as an index has it: without symlinks."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return path


def _common(left: memoryview, right: memoryview) -> int:
    """How many bytes two texts have in common from their beginning on."""
    most, at = min(len(left), len(right)), 0
    while at < most and left[at : at + _PIECE] == right[at : at + _PIECE]:
        at += _PIECE
    while at < most and left[at] == right[at]:
        at += 1
    return min(at, most)
