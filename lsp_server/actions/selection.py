"""Which code an action is about: whole lines, as they stand, and without the indentation that all of them share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from lsp_server.buffer import Buffer, Position
from lsp_server.rules.languages import Language
from lsp_server.rules.syntax import parse
from lsp_server.window import Window, window_at

if TYPE_CHECKING:
    from tree_sitter import Node

_DEFINITION: Final = re.compile(
    "(?:function|method|constructor|class|struct|enum|interface|trait|impl|decorated|generator_function)"
    "(?:_[a-z]+)?_(?:definition|declaration|item|specifier)"
)
_LOOKED_AT: Final = 4_000  # lines that are parsed for the definition around the cursor


@dataclass(frozen=True, slots=True)
class Selection:
    """Code from `start` to `end`, with `\\n` line ends. `code` is empty where something is to be written anew."""

    start: Position
    end: Position
    code: str
    indent: str
    around: Window
    """What stands before it, itself included, and after it."""
    version: int

    def indented(self, code: str) -> str:
        """New code with the indentation of the old."""
        return "\n".join(self.indent + line if line.strip() else "" for line in code.split("\n"))


def select(buffer: Buffer, start: Position, end: Position, language: Language, *, widen: bool) -> Selection:
    """The lines from `start` to `end`. A cursor is widened to the definition or paragraph around it, or kept empty."""
    start, end = min(start, end), max(start, end)
    if start == end and not widen:
        return Selection(start, end, "", "", window_at(buffer, start), buffer.version)
    first, last = start.line, end.line
    if widen and _is_cursor(buffer, start, end):
        first, last = _definition(buffer, start, language) or _paragraph(buffer.lines, start.line)
    elif end.column == 0 and last > first:
        last -= 1
    begin = Position(first, 0)
    finish = Position(last, len(buffer.lines[last].rstrip("\r\n")))
    if not widen and not any(line.strip() for line in buffer.lines[first : last + 1]):
        # Blank lines are where something is to be written: after their blanks, which stay.
        return Selection(finish, finish, "", "", window_at(buffer, finish), buffer.version)
    lines = [line.rstrip("\r\n") for line in buffer.lines[first : last + 1]]
    indent = shared_indent(lines)
    code = "\n".join(line[len(indent) :] if line.strip() else "" for line in lines)
    code = code.encode("utf-8", "replace").decode()
    return Selection(begin, finish, code, indent, window_at(buffer, finish), buffer.version)


def shared_indent(lines: Sequence[str]) -> str:
    """The blanks and tabs that every line with text begins with."""
    indents = [line[: len(line) - len(line.lstrip())] for line in lines if line.strip()]
    alike = takewhile(lambda signs: len(set(signs)) == 1, zip(*indents, strict=False))
    return "".join(signs[0] for signs in alike)


def _is_cursor(buffer: Buffer, start: Position, end: Position) -> bool:
    """Whether nothing is selected, or one character: in editors with selections for cursors (Helix) that is nothing."""
    if end.line == start.line:
        return end.column - start.column <= 1
    at_end = start.column >= len(buffer.lines[start.line].rstrip("\r\n"))
    return end == Position(start.line + 1, 0) and at_end


def _paragraph(lines: Sequence[str], at: int) -> tuple[int, int]:
    first = last = at
    if lines[at].strip():
        while first > 0 and lines[first - 1].strip():
            first -= 1
        while last + 1 < len(lines) and lines[last + 1].strip():
            last += 1
    return first, last


def _definition(buffer: Buffer, at: Position, language: Language) -> tuple[int, int] | None:
    """The lines of the smallest definition around a place; None where there is none, or no grammar."""
    if len(buffer.lines) > _LOOKED_AT:
        return None
    tree = parse(language, "".join(line.rstrip("\r\n") + "\n" for line in buffer.lines))
    if tree is None:
        return None
    line = buffer.lines[at.line]
    column = len(line[: at.column].encode("utf-8", "replace"))
    indent = len(line) - len(line.lstrip())
    node: Node | None = tree.root_node.descendant_for_point_range(
        (at.line, max(column, indent)), (at.line, max(column, indent))
    )
    while node is not None and not _DEFINITION.fullmatch(node.type):
        node = node.parent
    if node is not None and node.parent is not None and node.parent.type == "decorated_definition":
        node = node.parent
    return None if node is None else (node.start_point.row, node.end_point.row - (node.end_point.column == 0))
