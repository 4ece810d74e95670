"""The text of an open document, as the editor has it: lines, versions, positions in utf-8, 16 and 32.

A line ends at `\\n`, `\\r\\n` or `\\r` and at nothing else (LSP 3.18, "Text Documents"): form feeds and
U+2028 are characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lsp_server.stretches import Stretches

Encoding = Literal["utf-8", "utf-16", "utf-32"]

_HALF_PAIRS = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a buffer: line from 0, column in code points from 0."""

    line: int
    column: int


def split_lines(text: str) -> list[str]:
    """Lines with their ends; the last one has none, and is empty if the text ends with a line end."""
    lines = _LINE.findall(text)
    if not lines or lines[-1][-1] in "\r\n":
        lines.append("")
    return lines


class Buffer:
    """One document. Look-ups cost a line. Edits cost the lines that they touch, and where they add or remove lines a copy of
    the pointers to those below."""

    def __init__(self, text: str, *, language: str = "", version: int = 0, encoding: Encoding = "utf-16") -> None:
        self.language = language
        self.version = version
        self._encoding = encoding
        self._lines = split_lines(_paired(text))
        self.size = sum(map(byte_length, self._lines))
        """Bytes of UTF-8, line ends included."""
        self.stretches = Stretches()
        """What was joined of the lines, where no edit has touched it since."""

    @property
    def text(self) -> str:
        """Everything."""
        return "".join(self._lines)

    @property
    def lines(self) -> Sequence[str]:
        """The lines, with their ends; never empty."""
        return self._lines

    @property
    def end_of_line(self) -> str:
        """What ends the document's first line: what new lines should end with too."""
        first = self._lines[0]
        return first[len(first.rstrip("\r\n")) :] or "\n"

    def position(self, line: int, character: int) -> Position:
        """A client's position in code points, clamped to the text; never inside a line end or a surrogate pair."""
        if line < 0:
            return Position(0, 0)
        if line >= len(self._lines):
            return Position(len(self._lines) - 1, len(self._content(len(self._lines) - 1)))
        content = self._content(line)
        return Position(line, column_of(content, character, self._encoding))

    def character(self, position: Position) -> int:
        """The client's units for a column of ours."""
        return units_of(self._content(position.line)[: position.column], self._encoding)

    def before(self, position: Position) -> str:
        """The line up to the cursor."""
        return self._lines[position.line][: position.column]

    def after(self, position: Position) -> str:
        """The rest of the line, without its end."""
        return self._content(position.line)[position.column :]

    def replace(self, start: Position, end: Position, text: str) -> None:
        """Replace a range (given in either order) by `text`."""
        start, end = min(start, end), max(start, end)
        first, last = start.line, end.line
        joined = self._lines[first][: start.column] + text + self._lines[last][end.column :]
        # A "\r" at a seam may meet a "\n": take the neighbours in, so that the pair is seen as one line end.
        if first > 0 and self._lines[first - 1].endswith("\r"):
            first -= 1
            joined = self._lines[first] + joined
        if last + 1 < len(self._lines) and (not joined or joined[-1] not in "\r\n" or joined[-1] == "\r"):
            last += 1
            joined += self._lines[last]
        lines = split_lines(_paired(joined))
        if last + 1 < len(self._lines) and lines[-1] == "":
            lines.pop()
        self.size += sum(map(byte_length, lines)) - sum(map(byte_length, self._lines[first : last + 1]))
        self.stretches.touched(first, len(self._lines) - 1 - last)
        self._lines[first : last + 1] = lines

    def set_text(self, text: str) -> None:
        """Replace everything."""
        self._lines = split_lines(_paired(text))
        self.size = sum(map(byte_length, self._lines))
        self.stretches = Stretches()

    def _content(self, line: int) -> str:
        return self._lines[line].rstrip("\r\n")


def byte_length(text: str) -> int:
    """Bytes of UTF-8; half a surrogate pair has three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _paired(text: str) -> str:
    """The text with halves of a surrogate pair that an edit brought together as the one character that they are."""
    if text.isascii() or not _HALF_PAIRS.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def column_of(content: str, character: int, encoding: Encoding) -> int:
    """Code points before `character` units of a line without its end, clamped; a split character counts as not reached."""
    if character <= 0:
        return 0
    if encoding == "utf-32" or content.isascii():
        return min(character, len(content))
    units = 0
    for column, char in enumerate(content):
        units += _units(char, encoding)
        if units > character:
            return column
    return len(content)


def units_of(text: str, encoding: Encoding) -> int:
    """How many of the client's units a text has."""
    if encoding == "utf-32" or text.isascii():
        return len(text)
    return sum(_units(char, encoding) for char in text)


def _units(char: str, encoding: Encoding) -> int:
    code = ord(char)
    if encoding == "utf-16":
        return 2 if code > 0xFFFF else 1
    if encoding == "utf-8":
        return 1 + (code > 0x7F) + (code > 0x7FF) + (code > 0xFFFF)
    return 1
