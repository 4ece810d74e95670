"""Text as an editor sees it: positions and edits, written the naive way, independent of the server's own buffer.

Every call walks the whole text. That is the point: there is no index that could go stale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

Encoding = Literal["utf-8", "utf-16", "utf-32"]

_LINE_END = re.compile(r"\r\n|\n|\r")


class Position(TypedDict):
    """An LSP position: line from 0, character in code units of the session's encoding."""

    line: int
    character: int


class Range(TypedDict):
    """An LSP range, end exclusive."""

    start: Position
    end: Position


def position(line: int, character: int) -> Position:
    """The LSP object for one position."""
    return {"line": line, "character": character}


def span(line: int, character: int, end_line: int | None = None, end_character: int | None = None) -> Range:
    """The LSP object for a range; without an end it is empty, with only `end_line=None` it stays on the line."""
    return {
        "start": position(line, character),
        "end": position(line if end_line is None else end_line, character if end_character is None else end_character),
    }


def units(text: str, encoding: Encoding) -> int:
    """How many code units `text` has; a lone surrogate counts as one character (three bytes of utf-8)."""
    if encoding == "utf-8":
        return sum(len(char.encode("utf-8", "surrogatepass")) for char in text)
    if encoding == "utf-16":
        return sum(2 if ord(char) > 0xFFFF else 1 for char in text)
    return len(text)


def line_spans(text: str) -> list[tuple[int, int]]:
    """Half-open code point offsets of each line without its end; only LF, CRLF and CR end a line."""
    spans, start = [], 0
    for end in _LINE_END.finditer(text):
        spans.append((start, end.start()))
        start = end.end()
    spans.append((start, len(text)))
    return spans


def offset_at(text: str, at: Position, encoding: Encoding) -> int:
    """The code point offset of a position.

    Past the end of a line means the end of that line (before its line end), past the last line the end of the text;
    inside a character means before it.
    """
    return _offset(text, line_spans(text), at, encoding)


def position_at(text: str, offset: int, encoding: Encoding) -> Position:
    """The position of a code point offset; one between CR and LF means the end of that line."""
    if not 0 <= offset <= len(text):
        raise ValueError(f"offset {offset} is outside a text of {len(text)} characters")
    for line, (start, end) in reversed(list(enumerate(line_spans(text)))):
        if offset >= start:
            return position(line, units(text[start : min(offset, end)], encoding))
    raise AssertionError("the first line starts at 0")


def splice(text: str, where: Range, new: str, encoding: Encoding) -> str:
    """`text` with a range replaced."""
    lines = line_spans(text)
    start, end = (_offset(text, lines, at, encoding) for at in (where["start"], where["end"]))
    if end < start:
        raise ValueError(f"a range that ends before it starts: {where}")
    return text[:start] + new + text[end:]


def apply_item(text: str, item: Mapping[str, Any], encoding: Encoding = "utf-16") -> str:
    """`text` after the user accepts a completion item.

    Takes items of inlineCompletion (`insertText` and `range`) and of completion (`textEdit`). An item that some editor
    could not apply (no range, a range over several lines or outside the text, a snippet) is an AssertionError.
    """
    edit = item.get("textEdit")
    where: Range | None = edit["range"] if edit else item.get("range")
    new = edit["newText"] if edit else item.get("insertText")
    assert isinstance(new, str), f"an item without plain text: {item!r}"
    assert where is not None, f"an item without a range: {item!r}"
    assert where["start"]["line"] == where["end"]["line"], f"an item's range must be on one line: {item!r}"
    for end in (where["start"], where["end"]):
        exact = position_at(text, offset_at(text, end, encoding), encoding)
        assert exact == end, f"an item's range must lie inside the text: {item!r} would be clamped to {exact}"
    return splice(text, where, new, encoding)


def _offset(text: str, lines: list[tuple[int, int]], at: Position, encoding: Encoding) -> int:
    if at["line"] < 0 or at["character"] < 0:
        raise ValueError(f"a position has no negative parts: {at}")
    if at["line"] >= len(lines):
        return len(text)
    start, end = lines[at["line"]]
    passed = 0
    for offset in range(start, end):
        passed += units(text[offset], encoding)
        if passed > at["character"]:
            return offset
    return end
