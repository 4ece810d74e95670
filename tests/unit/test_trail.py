"""Where the author writes: which edits are made just there."""

from __future__ import annotations

import pytest

from lsp_server.buffer import Position
from lsp_server.features.trail import Trail
from lsp_server.state.events import Typed


def _trail(line: int = 2, column: int = 4) -> Trail:
    trail = Trail()
    trail.caret = Position(line, column)
    return trail


@pytest.mark.parametrize(
    ("start", "end", "replaced", "text", "edit", "caret"),
    [
        ((2, 4), (2, 4), "", "a", Typed("a"), (2, 5)),
        ((2, 4), (2, 4), "", "a\n  b", Typed("a\n  b"), (3, 3)),
        ((2, 4), (2, 4), "", "\n", Typed("\n"), (3, 0)),
        ((2, 4), (2, 4), "", "()", Typed("("), (2, 5)),
        ((2, 4), (2, 5), ")", ")", Typed(")"), (2, 5)),
        ((2, 3), (2, 4), "x", "", Typed("", 1), (2, 3)),
        ((2, 1), (2, 4), "xyz", "word", Typed("word", 3), (2, 5)),
        ((2, 4), (2, 5), ")", "", None, None),
        ((2, 5), (2, 5), "", "a", None, None),
        ((1, 4), (1, 4), "", "a", None, None),
        ((1, 4), (2, 4), "", "", None, None),
    ],
)
def test_an_edit_is_followed_if_it_was_made_at_the_caret(
    start: tuple[int, int],
    end: tuple[int, int],
    replaced: str,
    text: str,
    edit: Typed | None,
    caret: tuple[int, int] | None,
) -> None:
    trail = _trail()
    assert trail.follow(Position(*start), Position(*end), replaced, text) == edit
    assert trail.caret == (None if caret is None else Position(*caret))


def test_what_is_lost_stays_lost() -> None:
    trail = _trail()
    trail.follow(Position(9, 9), Position(9, 9), "", "a")
    assert trail.follow(Position(2, 4), Position(2, 4), "", "a") is None
    assert Trail().follow(Position(0, 0), Position(0, 0), "", "a") is None
