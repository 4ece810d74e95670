"""Brackets, strings and comments, lexed without a grammar: in bulk around the cursor, and sign by sign for a stream.

Good enough for shaping in any language, and right about a text that does not parse yet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from lsp_server.rules.languages import Language
from lsp_server.rules.quoting import (
    CLOSERS,
    LONE,
    OPENERS,
    PAIRS,
    TRIPLE,
    Character,
    Heredoc,
    has_heredocs,
    has_literals,
    literal_of,
    quotes_of,
)

_WORD_START = r"(?<![^\s;&|()])"
_BEGINS = {
    **dict.fromkeys(("shellscript", "tcsh", "powershell", "tcl"), _WORD_START),  # not `$#`, `${#names[@]}`
    "perl": r"(?<!\$)",  # not `$#names`
    "yaml": r"(?<!\S)",
    "latex": r"(?<!\\)",
    "makefile": r"(?<!\\)",
}  # fmt: skip
"""Where the sign of a line comment begins one, in languages that write it elsewhere too."""

_AROUND = 16_384  # characters that are looked at on each side


@dataclass(frozen=True, slots=True)
class Around:
    """What is open at a cursor.

    `inside` is the quote, or the comment's first sign, that the cursor is in; "" in code. `opened` are the brackets that
    are open there, outermost first; `missing` those of them that nothing after the cursor closes; `awaited` what is closed
    after the cursor, next first, without having been opened before it.
    """

    inside: str
    opened: str
    missing: str
    awaited: str = ""


def surroundings(language: Language, prefix: str, suffix: str) -> Around:
    """Look around the cursor."""
    above, complete = prefix, True
    if len(prefix) > _AROUND:
        complete = False
        cut = re.compile(r"\n\n(?=\S)").search(prefix, len(prefix) - _AROUND)
        above = prefix[cut.end() :] if cut else prefix[-_AROUND:]
    opened, _, inside = _scan(language, above)
    below = suffix[:_AROUND]
    if inside:
        below = _after(inside, below, language)
    _, closed, _ = _scan(language, below)
    closed = _without_lone(language, closed, opened)
    if complete and len(suffix) <= _AROUND:
        more = len(closed) - len(opened)
        awaited, rest = (closed[:more], closed[more:]) if more > 0 else ("", closed)
        outer = opened[: len(rest)]
        if all(PAIRS[sign] == opener for sign, opener in zip(rest, reversed(outer), strict=True)):
            return Around(inside, opened, opened[len(rest) :], awaited)
    left = len(opened)
    unclosed = []
    for sign in closed:  # from the inside outwards; what does not fit stays open
        while left and opened[left - 1] != PAIRS[sign]:
            left -= 1
            unclosed.append(opened[left])
        if not left:
            return Around(inside, opened, "")
        left -= 1
    if len(suffix) <= _AROUND:
        unclosed += opened[:left][::-1]  # nothing more is closed below
    elif not closed:
        unclosed += re.findall(r"[(\[]*$", opened[:left])[0][::-1]  # braces may be closed further below
    return Around(inside, opened, "".join(reversed(unclosed)))


def code_of(language: Language, line: str) -> str:
    """A line without a comment at its end and without the blanks before that."""
    for match in _pattern(language).finditer(line):
        if match.lastgroup == "comment" and match.end() == len(line):
            return line[: match.start()].rstrip()
    return line.rstrip()


def _scan(language: Language, text: str) -> tuple[str, str, str]:
    """-> (brackets open at the end, brackets closed that were not open, what the end is inside of)."""
    stack: list[str] = []
    closed: list[str] = []
    inside = ""
    for match in _pattern(language).finditer(text):
        kind, piece = match.lastgroup, match[0]
        if kind == "bracket":
            if piece in OPENERS:
                stack.append(piece)
            elif stack and stack[-1] == PAIRS[piece]:
                stack.pop()
            elif not stack:
                closed.append(piece)
        elif kind != "literal" and match.end() == len(text):
            inside = _left_open(language, kind or "", piece)
    return "".join(stack), "".join(closed), inside


def _without_lone(language: Language, closed: str, opened: str) -> str:
    """What is closed below without the parentheses that close nothing."""
    kept, left = "", list(opened)
    for sign in closed:
        if left and left[-1] == PAIRS[sign]:
            left.pop()
        elif stands_alone(language, sign, left):
            continue
        kept += sign
    return kept


def stands_alone(language: Language, closer: str, opened: Sequence[str]) -> bool:
    """Whether a closing bracket closes nothing: a parenthesis where it need not, behind these that are open."""
    return closer == ")" and language.id in LONE and (not opened or opened[-1] != "(")


def _left_open(language: Language, kind: str, piece: str) -> str:
    if kind == "comment":
        return piece[0]
    if kind == "block":
        end = (language.block_comment or ("", ""))[1]
        return "" if piece.endswith(end) and len(piece) > len(end) else piece[0]
    quote = piece[:3] if kind == "triple" else piece[0]
    closed = len(piece) >= 2 * len(quote) and piece.endswith(quote)
    if closed and kind == "string":
        body = piece[1:-1]
        closed = (len(body) - len(body.rstrip("\\"))) % 2 == 0
    return "" if closed else quote


def _after(inside: str, below: str, language: Language) -> str:
    """What follows the string or comment that the cursor is in."""
    if inside in ("'", '"'):
        line, newline, rest = below.partition("\n")
        at = line.find(inside)
        return (line[at + 1 :] if at >= 0 else "") + newline + rest
    block = (language.block_comment or ("", ""))[1]
    if len(inside) == 3 or inside == "`":
        at = below.find(inside)
        return below[at + len(inside) :] if at >= 0 else below.partition("\n")[2]
    if (language.line_comment and language.line_comment.startswith(inside)) or not block:
        return below.partition("\n")[2]
    at = below.find(block)
    return below[at + len(block) :] if at >= 0 else below


@cache
def _pattern(language: Language) -> re.Pattern[str]:
    quotes = quotes_of(language)
    parts = []
    if literal := literal_of(language):
        parts.append(f"(?P<literal>{literal})")
    if language.id in TRIPLE:
        parts.append(
            r'(?P<triple>"""(?:\\.|[^\\])*?(?:"""|\Z)'
            + (r"|'''(?:\\.|[^\\])*?(?:'''|\Z)" if "'" in quotes else "")
            + ")"
        )
    strings = [rf"{q}(?:\\.|[^{q}\\\n])*{q}?" for q in quotes if q != "`"]
    strings += [r"`(?:\\.|[^`\\])*`?"] if "`" in quotes else []
    if language.block_comment:
        start, end = map(re.escape, language.block_comment)
        parts.append(rf"(?P<block>{start}.*?(?:{end}|\Z))")
    if marker := line_comment_of(language):
        parts.append(rf"(?P<comment>{_BEGINS.get(language.id, '')}{re.escape(marker)}[^\n]*)")
    if strings:
        parts.append(f"(?P<string>{'|'.join(strings)})")
    parts.append(r"(?P<bracket>[()\[\]{}])")
    return re.compile("|".join(parts), re.DOTALL)


def _announcing(language: Language, before: str) -> str:
    """What stands left of the cursor from `<<` on, if that is in no comment, string or arithmetic."""
    code = _pattern(language).sub(
        lambda found: found[0] if found.lastgroup == "bracket" else " " * len(found[0]), before
    )
    at = code.find("<<")
    return "" if at < 0 or "((" in code[:at] else before[at:]


def line_comment_of(language: Language) -> str | None:
    """The line comment's sign, unless it is one that code is full of."""
    marker = language.line_comment
    return None if marker is None or marker in {"*", "..", "'"} or marker[0].isalpha() else marker


class Lexer:
    """One stream, sign by sign, from the state at the cursor. Work per sign does not grow with the stream."""

    def __init__(self, language: Language, inside: str, before: str = "") -> None:
        """`before` is what stands left of the cursor in its line, or the end of it."""
        self._quotes = quotes_of(language)
        self._triple = language.id in TRIPLE
        self._marker = line_comment_of(language)
        self._block = language.block_comment
        self._in_block = bool(inside) and inside not in self._quotes and len(inside) == 1 and not self._is_line(inside)
        self._in_line = bool(inside) and self._is_line(inside)
        self.quote = inside if inside and not (self._in_block or self._in_line) else ""
        """The quote of the string that the stream is in, `<<` in a text up to a word; "" outside of strings."""
        self.opened: list[str] = []
        """Brackets that the stream opened and did not close, outermost first."""
        self._escaped = False
        self._tail = ""
        self._begins = re.compile(_BEGINS.get(language.id, ""))
        self._before = before  # what stands left of the tail
        left = before if self.in_code else ""
        self._character = Character(language, left, self.opened) if has_literals(language) else None
        self._heredoc = Heredoc(language, _announcing(language, left)) if has_heredocs(language) else None

    @property
    def in_code(self) -> bool:
        """Whether the stream is outside of strings and comments."""
        return not (self.quote or self._in_block or self._in_line)

    def feed(self, sign: str) -> bool:
        """Take one sign -> whether it closes a bracket that the stream did not open."""
        tail, whole = self._tail, self._tail + sign
        self._tail, self._before = whole[-3:], whole[-4:-3] or self._before
        if self._in_line:
            self._in_line = sign != "\n"
        elif self._in_block:
            end = self._block[1] if self._block else "\n"
            self._in_block = not self._tail.endswith(end)
        elif self.quote:
            self._in_string(sign)
        elif self._character and self._character.takes(sign, self._before + tail):
            pass
        elif sign in self._quotes:
            self.quote = sign * 3 if self._triple and tail[-2:] == sign * 2 else sign
        elif self._marker and self._tail.endswith(self._marker) and self._begins_comment(self._marker):
            self._in_line = True
        elif self._block and self._tail.endswith(self._block[0]):
            self._in_block = True
        elif sign in OPENERS:
            self.opened.append(sign)
        elif sign in CLOSERS:
            if not self.opened:
                return True
            if self.opened[-1] == PAIRS[sign]:
                self.opened.pop()
        if self._heredoc and self.quote != "<<":
            shifts = self.opened[-2:] == ["(", "("]
            begins = self._heredoc.begins(sign, self._tail if self.in_code and not shifts else "")
            self.quote = "<<" if begins and not self.quote else self.quote
        return False

    def _begins_comment(self, marker: str) -> bool:
        at = len(self._before + self._tail) - len(marker)
        return self._begins.match(self._before + self._tail, at) is not None

    def _in_string(self, sign: str) -> None:
        if self._heredoc and self.quote == "<<":
            self.quote = "" if self._heredoc.ends(sign) else self.quote
        elif self._escaped:
            self._escaped = False
        elif sign == "\\":
            self._escaped = True
        elif len(self.quote) == 3:
            if self._tail == self.quote:
                self.quote, self._tail = "", ""
        elif sign == self.quote or (sign == "\n" and self.quote != "`"):
            self.quote = ""

    def _is_line(self, inside: str) -> bool:
        return self._marker is not None and self._marker.startswith(inside)
