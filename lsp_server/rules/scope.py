"""How far a completion may reach, decided by what stands around the cursor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lsp_server.rules.languages import PLAIN, Language
from lsp_server.rules.lexing import Around, code_of, surroundings
from lsp_server.rules.quoting import CLOSERS, OPENERS
from lsp_server.window import Window

_OPENERS = (*OPENERS, "=>", "->", "=")
_DIRECTIVES = frozenset({"c", "cpp", "cuda-cpp", "csharp", "glsl"})
"""Where a line that begins with `#` stands at the margin, whatever it is in."""


class Scope(StrEnum):
    """How far a completion may reach."""

    LINE = "line"
    """To the end of the line."""
    STATEMENT = "statement"
    """To the end of the statement: further lines only where brackets or a string are open."""
    BLOCK = "block"
    """To the end of the block that the author has just opened."""


@dataclass(frozen=True, slots=True)
class Place:
    """The cursor's place: how far to go, what is open, and the columns that a block there has."""

    scope: Scope
    around: Around
    base: int
    """Indentation of the cursor's line in columns; of the cursor itself on a line without text."""
    following: str
    """The next line below that has text, with its indentation; "" at the end."""
    margin: int | None = None
    """Indentation of the line whose bracket opened the block under the cursor; None where no bracket did."""
    directives: bool = False
    """Whether lines that begin with `#` have no indentation of their own."""

    def is_left_by(self, line: str, *, opened: bool, closed: bool) -> bool:
        """Whether a further line, up to its first sign, is outside of the block.

        `opened`: the cursor's line has text; `closed`: a bracket was closed that stood open at the cursor. Before that it is
        the bracket that ends a block: labels may stand at the margin, as `case` and `public:` do.
        """
        indent, sign = indent_of(line), line[-1]
        if self.margin is not None and not closed and sign not in CLOSERS:
            return indent < self.margin and not (self.directives and sign == "#")
        return indent < self.base or (opened and indent == self.base and sign not in CLOSERS)


def indent_of(line: str) -> int:
    """Columns of blanks before a line's text."""
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())


def place_at(window: Window, language: Language = PLAIN) -> Place:
    """Look around the cursor, by brackets, strings, comments and indentation: a text that is being typed seldom parses."""
    around = surroundings(language, window.prefix, window.suffix)
    before = window.line_before
    base = indent_of(before) if before.strip() else len(before.expandtabs(4))
    below = window.suffix.partition("\n")[2]
    following = next((line for line in below.split("\n") if line.strip()), "")
    margin = _margin(window, language, around)
    scope = _scope(window, language, around, base, following, margin)
    return Place(scope, around, base, following, margin, language.id in _DIRECTIVES)


def _margin(window: Window, language: Language, around: Around) -> int | None:
    if language.indented or around.inside or not around.opened:
        return None
    line = window.line_before if window.line_before.strip() else _above(window)
    return indent_of(line) if code_of(language, line).endswith(around.opened[-1]) else None


def _above(window: Window) -> str:
    """The next line above that has text; "" at the start."""
    return next((line for line in reversed(window.prefix.split("\n")[:-1]) if line.strip()), "")


def _scope(window: Window, language: Language, around: Around, base: int, following: str, margin: int | None) -> Scope:
    if window.rest_of_line.strip() or around.inside:
        return Scope.LINE
    before = window.line_before
    if before.strip():
        opens = opens_block(code_of(language, before), language, around.opened)
        return Scope.BLOCK if opens and indent_of(following) <= base else Scope.LINE
    above = _above(window)
    if not above:
        return Scope.BLOCK
    code = code_of(language, above)
    opened = opens_block(code, language, around.opened) or code.endswith(_OPENERS)
    closed = indent_of(following) == margin and following.lstrip().startswith(tuple(CLOSERS))
    if opened and (not following or closed or indent_of(following) < max(base, 1)):
        return Scope.BLOCK
    return Scope.STATEMENT


def opens_block(code: str, language: Language, opened: str) -> bool:
    """Whether a line of code ends in what opens a block: a brace, or a colon outside of brackets where those do."""
    if code.endswith("{"):
        return True
    by_colon = language.indented or language is PLAIN
    return by_colon and code.endswith(":") and (not opened or (opened[-1] == "{" and not language.indented))
