"""Buffer at the cursor to prefix and suffix: coarse and cheap. Tokens are the engine's business.

The cut is at 64-line marks, counted from the top for the prefix and from the end for the suffix, so that it stays where it
is while somebody types, and so that the engine's finer marks (which divide 64) fall on the same lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lsp_server.buffer import Buffer, Position

_HALF_PAIR = re.compile("[\ud800-\udfff]")

MARK = 64
"""Lines between two marks."""

MAX_SIDE = 64 * 2**10
"""Bytes of prefix, and of suffix, at most."""

_GIANT_BLOCK = 2**14


@dataclass(frozen=True, slots=True)
class Window:
    """What surrounds the cursor, with `\\n` line ends whatever the document has."""

    prefix: str
    suffix: str

    @property
    def line_before(self) -> str:
        """The cursor's line up to the cursor."""
        return self.prefix[self.prefix.rfind("\n") + 1 :]

    @property
    def rest_of_line(self) -> str:
        """The cursor's line from the cursor on."""
        return self.suffix.partition("\n")[0]


def window_at(buffer: Buffer, cursor: Position) -> Window:
    """The text around the cursor, at most `MAX_SIDE` bytes a side. Costs what it takes, whatever the document's length."""
    lines = buffer.lines
    line = lines[cursor.line]
    head, tail = line[: cursor.column], line[cursor.column :]

    first, room = cursor.line, MAX_SIDE - _bytes(head)
    above: list[str] = []
    while first > 0:
        mark = (first - 1) // MARK * MARK
        block = "".join(lines[mark:first])
        room -= _bytes(block)
        if room < 0:
            break
        above.append(block)
        first = mark
    if not above and first > 0:
        above = _whole_lines(lines[max(0, first - 2 * MARK) : first][::-1], MAX_SIDE - _bytes(head))
    prefix = "".join(above[::-1]) + head

    end, room = cursor.line + 1, MAX_SIDE - _bytes(tail)
    below: list[str] = []
    while end < len(lines):
        mark = len(lines) - (len(lines) - end - 1) // MARK * MARK
        block = "".join(lines[end:mark])
        room -= _bytes(block)
        if room < 0:
            break
        below.append(block)
        end = mark
    if not below and end < len(lines):
        below = _whole_lines(lines[end : end + 2 * MARK], MAX_SIDE - _bytes(tail))
    suffix = tail + "".join(below)
    prefix, suffix = _unified(prefix), _unified(suffix)
    if _bytes(head) > MAX_SIDE:
        prefix = _end_of(prefix)
    if _bytes(tail) > MAX_SIDE:
        suffix = suffix.encode()[:MAX_SIDE].decode("utf-8", "ignore")
    return Window(prefix, suffix)


def _end_of(prefix: str) -> str:
    """The last bytes of a prefix that is one giant line: whole blocks are dropped, so that the cut moves rarely."""
    data = prefix.encode()
    drop = -(-(len(data) - MAX_SIDE) // _GIANT_BLOCK) * _GIANT_BLOCK
    return data[drop:].decode("utf-8", "ignore")


def _whole_lines(lines: Sequence[str], room: int) -> list[str]:
    kept = []
    for line in lines:
        room -= _bytes(line)
        if room < 0:
            break
        kept.append(line)
    return kept


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _unified(text: str) -> str:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # JSON can carry half a surrogate pair into a buffer; no wire can carry it on
            return _HALF_PAIR.sub("\ufffd", text)
    return text
