"""Buffer at the cursor to prefix and suffix: coarse and cheap. Tokens are the engine's business.

The cut is at 96-line marks, counted from the top for the prefix and from the end for the suffix, so that it stays where it
is while somebody types, and so that the engine's finer marks (24 and 8, which divide 96) fall on the same lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lsp_server.buffer import Buffer, Position, byte_length
from lsp_server.stretches import Stretch

_HALF_PAIR = re.compile("[\ud800-\udfff]")

MARK = 96
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
    """The text around the cursor, at most `MAX_SIDE` bytes a side. Costs what it takes, whatever the document's length, and
    little more than the cursor's line where the one before was cut at the same line.
    """
    line = buffer.lines[cursor.line]
    head, tail = line[: cursor.column], line[cursor.column :]
    prefix = _above(buffer, cursor.line, MAX_SIDE - byte_length(head)) + _unified(head)
    suffix = _unified(tail) + _below(buffer, cursor.line + 1, MAX_SIDE - byte_length(tail))
    if byte_length(head) > MAX_SIDE:
        prefix = _end_of(prefix)
    if byte_length(tail) > MAX_SIDE:
        suffix = suffix.encode()[:MAX_SIDE].decode("utf-8", "ignore")
    return Window(prefix, suffix)


def _above(buffer: Buffer, end: int, room: int) -> str:
    """The lines before `end`: whole blocks, as many as there is room for."""
    kept = buffer.stretches.above(end)
    if kept is not None and kept.fills(room):
        return kept.text
    lines = buffer.lines
    blocks: list[str] = []
    first, size, beyond = end, 0, None
    while first > 0:
        mark = (first - 1) // MARK * MARK
        block = "".join(lines[mark:first])
        if size + (beyond := byte_length(block)) > room:
            break
        blocks.append(block)
        first, size, beyond = mark, size + beyond, None
    if not blocks and end > 0:
        return _unified("".join(_whole_lines(lines[max(0, end - 2 * MARK) : end][::-1], room)[::-1]))
    kept = Stretch(_unified("".join(blocks[::-1])), size, beyond)
    buffer.stretches.keep_above(end, kept)
    return kept.text


def _below(buffer: Buffer, first: int, room: int) -> str:
    """The lines from `first` on: whole blocks, as many as there is room for."""
    lines = buffer.lines
    left = len(lines) - first
    kept = buffer.stretches.below(left)
    if kept is not None and kept.fills(room):
        return kept.text
    blocks: list[str] = []
    end, size, beyond = first, 0, None
    while end < len(lines):
        mark = len(lines) - (len(lines) - end - 1) // MARK * MARK
        block = "".join(lines[end:mark])
        if size + (beyond := byte_length(block)) > room:
            break
        blocks.append(block)
        end, size, beyond = mark, size + beyond, None
    if not blocks and first < len(lines):
        return _unified("".join(_whole_lines(lines[first : first + 2 * MARK], room)))
    kept = Stretch(_unified("".join(blocks)), size, beyond)
    buffer.stretches.keep_below(left, kept)
    return kept.text


def _end_of(prefix: str) -> str:
    """The last bytes of a prefix that is one giant line: whole blocks are dropped, so that the cut moves rarely."""
    data = prefix.encode()
    drop = -(-(len(data) - MAX_SIDE) // _GIANT_BLOCK) * _GIANT_BLOCK
    return data[drop:].decode("utf-8", "ignore")


def _whole_lines(lines: Sequence[str], room: int) -> list[str]:
    kept = []
    for line in lines:
        room -= byte_length(line)
        if room < 0:
            break
        kept.append(line)
    return kept


def _unified(text: str) -> str:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # JSON can carry half a surrogate pair into a buffer; no wire can carry it on
            return _HALF_PAIR.sub("\ufffd", text)
    return text
