"""What does not parse is found however deep it stands."""

from __future__ import annotations

import pytest

from lsp_server.rules.languages import LANGUAGES, Language, by_id
from lsp_server.rules.syntax import longest_that_parses, mistakes
from lsp_server.shaping import Shaper
from lsp_server.window import Window

DEPTH = 2_000
NESTED = (
    ("fn f(){", "{", "let ;", "}"),
    ("x = ", "[", "+ *", "]"),
    ("x = ", "(", "let ;", ")"),
    ("", "<a>", "< ", "</a>"),
    ("x: ", "[", "'", "]"),
)
GRAMMARS = [row for row in LANGUAGES if row.grammar]


@pytest.mark.parametrize("language", GRAMMARS, ids=lambda language: language.id)
def test_a_mistake_in_deep_nesting_is_counted(language: Language) -> None:
    found = 0
    for before, opener, wrong, closer in NESTED:
        above, below = before + opener * DEPTH, wrong + closer * DEPTH + "\n"
        found += mistakes(language, above + below) or 0
        assert longest_that_parses(language, above, "x\n", below) in ("x\n", "x", "")
    assert found


@pytest.mark.parametrize("language", ["rust", "javascript", "python", "c", "html"])
def test_a_completion_in_deep_nesting_is_shaped(language: str) -> None:
    for before, opener, wrong, closer in NESTED:
        for depth in (500, DEPTH):
            shaper = Shaper(Window(before + opener * depth, f"\n{wrong}\n{closer * depth}\n"), by_id(language))
            shaper.feed("x\n")
            text, reason = shaper.finish()
            assert bool(text) != bool(reason)
