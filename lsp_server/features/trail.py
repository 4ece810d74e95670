"""Where the author of a document writes: a caret that follows the edits made just there. Pure."""

from __future__ import annotations

from lsp_server.buffer import Position
from lsp_server.state.events import Typed

_PAIRS = frozenset({"()", "[]", "{}", '""', "''", "``"})


class Trail:
    """Begins where a completion was asked for."""

    def __init__(self) -> None:
        self.caret: Position | None = None

    def follow(self, start: Position, end: Position, replaced: str, text: str) -> Typed | None:
        """A range was replaced by a text (line ends `\\n`) -> the edit, if it was made at the caret, which moves along; else
        the caret is lost.
        """
        caret, self.caret = self.caret, None
        if caret is None or end.line != start.line:
            return None
        if start == caret and replaced == text:  # typed over what the editor had put there
            self.caret = end
            return Typed(text)
        if end != caret:
            return None
        deleted = end.column - start.column
        if text in _PAIRS and not deleted:
            text = text[:1]  # the editor closed the bracket that was typed
        self.caret = _after(start, text)
        return Typed(text, deleted)


def _after(start: Position, text: str) -> Position:
    lines = text.count("\n")
    last = text[text.rfind("\n") + 1 :]
    return Position(start.line + lines, len(last) if lines else start.column + len(last))
