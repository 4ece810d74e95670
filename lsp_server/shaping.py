"""What of the model's output is shown, and when it has said enough: named rules over one stream.

Stops are structural: never by strings that valid code contains. Text is fed as it streams; line ends are `\\n`. The rules
look at each sign once, so that it does not matter in which pieces a text comes, and no sign costs more than the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lsp_server.reasons import Reason
from lsp_server.rules.hygiene import CleanStream
from lsp_server.rules.indentation import Indenter
from lsp_server.rules.languages import PLAIN, Language
from lsp_server.rules.lexing import Lexer, stands_alone, surroundings
from lsp_server.rules.overlap import (
    ends_where_rest_begins,
    repeats_what_follows,
    said_already,
    without_next_line,
    without_overlap,
)
from lsp_server.rules.quoting import CLOSERS as BRACKETS
from lsp_server.rules.quoting import PAIRS
from lsp_server.rules.repetition import TIMES, Lines, Repetition
from lsp_server.rules.scope import Scope, place_at
from lsp_server.rules.syntax import longest_that_parses
from lsp_server.window import Window

MAX_LINES = 12
"""Lines of a block that are worth reading at once; the next request brings the rest."""

CLOSERS = frozenset(")]}\"'`,:; \t>")
"""A rest of line made of these alone was closed by the editor; the engine keeps it out of the suffix too."""

_LEFT = 64
"""Characters left of the cursor in which a literal or the announcement of a text may have begun."""


class Rule(StrEnum):
    """A rule's name; an evaluation switches each off in turn."""

    SCOPE = "scope"
    """To the end of the line, statement or block, by what stands around the cursor; without it, always a block."""
    STATEMENT = "statement"
    """A statement goes on over a line end while brackets or a string that it opened are open."""
    BLOCK_END = "block_end"
    """A block ends where the indentation falls back; one that a bracket opened, not before that bracket is closed."""
    BRACKETS = "brackets"
    """Stop before a bracket or quote that stands right of or below the cursor already."""
    REST_OF_LINE = "rest_of_line"
    """Stop before, or drop from the end, what stands right of the cursor already."""
    NEXT_LINE = "next_line"
    """Stop before a line that is the next line below; show nothing if that is all."""
    REPETITION = "repetition"
    """A piece four times in a row, a line twice in a row, the same lines three times in a row: end before the loop."""
    INDENTATION = "indentation"
    """Tabs or blanks at line starts as the document has them, and no more of them than the cursor has already."""
    NATURAL_END = "natural_end"
    """What ran into the token limit ends with its last whole line."""
    SYNTAX = "syntax"
    """Nothing after which the document parses worse than before: back to the last line that it parses with. If that leaves
    nothing, an automatic completion is not shown, and one that was invoked as it is.
    """


ALL_RULES = frozenset(Rule)


@dataclass(frozen=True, slots=True)
class Shaped:
    """What may be shown so far, and whether the model has said enough."""

    text: str
    enough: bool


def wanted(window: Window, language: Language = PLAIN) -> Reason | None:
    """Why an automatic completion should not be asked for here; None when it should. The end of a word is not mid-word.

    In the middle of a line of code a completion is as good as elsewhere; in the middle of a line of a comment or a string the
    text goes on, and what a model would put there is not what is missing.
    """
    following = window.suffix[:1]
    if following.isalnum() or following == "_":
        return Reason.MID_WORD
    if CLOSERS.issuperset(window.rest_of_line) or not surroundings(language, window.prefix, window.suffix).inside:
        return None
    return Reason.MID_TEXT


class Shaper:
    """Applies the rules to one stream. `feed` the text as it comes; `finish` says what is shown in the end.

    `invoked`: somebody asked by hand, and sees what the model said rather than nothing, though it may not parse.

    `max_lines` is `MAX_LINES` if left out.

    Nothing is looked up or parsed before the first text comes, so that it happens while the engine works.
    """

    def __init__(
        self,
        window: Window,
        language: Language = PLAIN,
        rules: frozenset[Rule] = ALL_RULES,
        *,
        invoked: bool = False,
        max_lines: int | None = None,
    ) -> None:
        self._window = window
        self._max_lines = MAX_LINES if max_lines is None else max_lines
        self._invoked = invoked
        self._language = language
        self._rules = rules
        self._clean = CleanStream(window)
        self._begun = False
        self._raw: list[str] = []
        self._text = ""
        self._line_at = 0  # where the last line begins
        self._lines = 0  # whole lines so far
        self._whole = 0  # where the last whole line ended with nothing open
        self._said = Lines()
        self._enough = False
        self._reason: Reason | None = None

    @property
    def in_prose(self) -> bool:
        """Whether the cursor is in a comment or in a string that may have several lines."""
        inside = self._place.around.inside if self._begun else ""
        return bool(inside) and not (len(inside) == 1 and inside in "\"'`")

    @property
    def raw(self) -> str:
        """All that was fed, with the indentation that the document has."""
        return "".join(self._raw)

    def feed(self, text: str) -> Shaped:
        """Add text -> what may be shown of it all. Once it is enough, that does not change any more."""
        if not self._begun:
            self._begin()
        for sign in self._clean.feed(text):
            for put in self._indenter.feed(sign):
                self._raw.append(put)
                if not self._enough:
                    self._next(put)
        self._enough = self._enough or self._clean.cut is not None
        return Shaped(self._visible(), self._enough)

    def finish(self, *, cut_short: bool = False) -> tuple[str, Reason | None]:
        """The text to show in the end, or why there is none. `cut_short`: the model had more to say than it was allowed."""
        if self._reason is not None or not self._begun:
            return "", self._reason or Reason.NOTHING_TO_ADD
        rules, text = self._rules, self._text
        if cut_short and not self._enough and Rule.NATURAL_END in rules:
            text = text[: self._whole or None]
        if Rule.NEXT_LINE in rules:
            if repeats_what_follows(text, self._window):
                return "", Reason.DUPLICATE
            text = without_next_line(text, self._place.following.strip())
        said, text = text, self._without_overlap(text)
        if not self._window.rest_of_line or self._window.rest_of_line[0].isspace() or "\n" in text:
            text = text.rstrip()
        if not text.strip():
            return "", self._clean.cut or (Reason.DUPLICATE if said.strip() else Reason.NOTHING_TO_ADD)
        if Rule.SYNTAX in rules:
            parses = longest_that_parses(self._language, self._window.prefix, text, self._window.suffix)
            text = parses if parses.strip() or not self._invoked else text
        return (text, None) if text.strip() else ("", Reason.DOES_NOT_PARSE)

    def _begin(self) -> None:
        self._begun = True
        self._place = place_at(self._window, self._language)
        self._scope = self._place.scope if Rule.SCOPE in self._rules else Scope.BLOCK
        self._opened = bool(self._window.line_before.strip())
        self._open = list(self._place.around.opened)
        self._missing = list(self._place.around.missing)
        self._closed = False  # whether a bracket was closed that stood open at the cursor
        self._lexer = Lexer(self._language, self._place.around.inside, self._window.line_before[-_LEFT:])
        self._repetition = Repetition()
        self._indenter = Indenter(self._window, self._language, active=Rule.INDENTATION in self._rules)
        rest = self._window.rest_of_line.lstrip()
        # A rest that begins with a bracket is left to the rule that counts them: the text may end in one of its own. In
        # strings and comments nobody counts.
        in_code = not self._place.around.inside
        closed = rest.startswith(tuple(BRACKETS)) and not stands_alone(self._language, rest[0], self._open)
        counted = Rule.BRACKETS in self._rules and in_code and closed
        self._overlaps = Rule.REST_OF_LINE in self._rules and not counted
        quote = self._place.around.inside
        paired = len(quote) == 1 and quote in "\"'`" and self._window.rest_of_line.count(quote) % 2 == 1
        self._closing_quote = quote if paired else ""

    def _visible(self) -> str:
        """What a partial result shows: no line that may yet be dropped as a whole, no overlap."""
        text = self._text
        if not self._enough and self._lines and self._may_be_next_line(text[self._line_at :].strip()):
            text = text[: self._line_at - 1]
        return self._without_overlap(text)

    def _may_be_next_line(self, line: str) -> bool:
        """Whether a line that has begun can still become the one below the cursor, or nothing."""
        following = self._place.following.strip()
        return not line or (Rule.NEXT_LINE in self._rules and len(line) > 3 and following.startswith(line))

    def _without_overlap(self, text: str) -> str:
        return without_overlap(text, self._window.rest_of_line) if self._overlaps else text

    def _next(self, sign: str) -> None:
        begins_line = self._lines > 0 and not sign.isspace() and not self._text[self._line_at :].strip()
        before = self._line_at - 1 if begins_line else len(self._text)
        if begins_line and self._falls_back(sign):
            self._end(before)
            return
        quote = self._lexer.quote
        there = self._lexer.feed(sign) and self._closes(sign)
        if Rule.BRACKETS in self._rules and (there or self._closes_string(sign, quote)):
            if not self._lines:
                before -= said_already(self._text + sign, self._window.rest_of_line) - 1
            again = self._window.rest_of_line.strip().startswith(sign) or before < len(self._text)
            nothing = not self._text[:before].strip()
            self._end(before, Reason.DUPLICATE if nothing and again else None)
        elif sign == "\n":
            self._line_ended()
        else:
            self._text += sign
            if Rule.REPETITION in self._rules and (piece := self._repetition.feed(sign)):
                self._looped(piece)
            elif Rule.REST_OF_LINE in self._rules and not self._lines:
                at = ends_where_rest_begins(self._text, self._window.rest_of_line)
                if at is not None:
                    self._end(at, None if self._text[:at].strip() else Reason.DUPLICATE)

    def _looped(self, piece: int) -> None:
        """Keep the lines above the loop, else what came before it and its first turn; nothing if it is one from the start."""
        at = len(self._text) - (TIMES - 1) * piece
        line_end = max(0, self._text.rfind("\n", 0, at))
        if self._text[:line_end].strip():
            self._end(line_end)
        else:
            self._end(at, None if self._text[: at - piece].strip() else Reason.REPETITION)

    def _closes(self, sign: str) -> bool:
        """Whether a bracket that the stream did not open is closed right of or below the cursor, too."""
        if stands_alone(self._language, sign, self._open):
            return False
        self._closed = True
        opener = PAIRS[sign]
        if opener in self._open:
            while self._open.pop() != opener:
                pass
        if self._missing[-1:] != [opener]:
            return True
        self._missing.pop()
        return False

    def _closes_string(self, sign: str, quote: str) -> bool:
        """Whether this sign ends the string that the cursor was in. `quote`: that of the string it was in itself."""
        return bool(self._closing_quote) and quote == sign == self._closing_quote and not self._lexer.quote

    def _falls_back(self, sign: str) -> bool:
        """Whether a further line, of which this is the first sign, is outside of the block."""
        if Rule.BLOCK_END not in self._rules or self._lexer.quote or self._lexer.opened:
            return False
        return self._place.is_left_by(self._text[self._line_at :] + sign, opened=self._opened, closed=self._closed)

    def _line_ended(self) -> None:
        line = self._text[self._line_at :]
        if self._is_next_line(line) or self._is_repeated(line):
            return
        if (self._scope is not Scope.BLOCK and not self._goes_on()) or self._lines + 1 >= self._max_lines:
            self._end(len(self._text))
            return
        if line.strip() and not self._lexer.opened and not self._lexer.quote:
            self._whole = len(self._text)
        self._text += "\n"
        self._lines += 1
        self._line_at = len(self._text)

    def _is_next_line(self, line: str) -> bool:
        """End before a line that stands below already."""
        following = self._place.following.strip()
        whole = line if self._lines else self._window.line_before + line
        if Rule.NEXT_LINE not in self._rules or len(following) <= 3 or whole.strip() != following:
            return False
        if self._lines:
            self._end(self._line_at - 1)
        elif line.strip():
            self._end(0, Reason.DUPLICATE)
        return self._enough

    def _is_repeated(self, line: str) -> bool:
        """End before a line that was said just now, or after the first turn of three."""
        if Rule.REPETITION not in self._rules or not line.strip():
            return False
        whole = line if self._lines else self._window.line_before + line
        at = self._said.ended(line, whole, self._line_at)
        if at is not None:
            self._end(at)
        return self._enough

    def _goes_on(self) -> bool:
        """Whether the statement does not end with this line: it opened a bracket or a string that nothing below closes."""
        if Rule.STATEMENT not in self._rules or self._window.rest_of_line.strip():
            return False
        quote, opened, awaited = self._lexer.quote, self._lexer.opened, self._place.around.awaited
        if quote:
            return quote != self._place.around.inside
        closed_below = [PAIRS[sign] for sign in awaited[: len(opened)]]
        return bool(opened) and closed_below != opened[::-1]

    def _end(self, at: int, reason: Reason | None = None) -> None:
        self._text = self._text[:at]
        self._enough = True
        self._reason = reason
