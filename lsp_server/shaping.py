"""Pure rules over streamed text: what of the model's output is shown, when to stop it, and why nothing is shown.

Stops are structural: never by strings that valid code contains. Text is fed as it streams; line ends are `\\n`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from lsp_server.window import Window

MAX_LINES = 12
"""Lines of a block that are worth reading at once; the next request brings the rest."""

CLOSERS = frozenset(")]}\"'`,:; \t>")
"""A rest of line made of these alone was closed by the editor; the engine keeps it out of the suffix too."""

_PAIRS = {")": "(", "]": "[", "}": "{"}
_REPEATED = re.compile(r"(.{4,40}?)\1{3}", re.DOTALL)
_OPENERS = (":", "{", "(", "[", "=>", "->", "=")


class Reason(StrEnum):
    """Why nothing is shown: a closed set."""

    NOTHING_TO_ADD = "nothing_to_add"
    DUPLICATE = "duplicate"
    REPETITION = "repetition"
    MID_WORD = "mid_word"
    LOADING = "loading"
    ENGINE_DOWN = "engine_down"
    REFUSED = "refused"
    SUPERSEDED = "superseded"
    OUTDATED = "outdated"
    NOT_OPEN = "not_open"


class Scope(StrEnum):
    """How far a completion may reach."""

    LINE = "line"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Shaped:
    """What may be shown so far, and whether the model has said enough."""

    text: str
    enough: bool


def scope_at(window: Window) -> Scope:
    """A block where the author has just opened one and nothing stands right of the cursor; else the line."""
    if window.rest_of_line.strip():
        return Scope.LINE
    before = window.line_before
    if before.strip():
        return Scope.BLOCK if before.rstrip().endswith(_OPENERS[:2]) else Scope.LINE
    above = next((line for line in reversed(window.prefix.split("\n")[:-1]) if line.strip()), "")
    if not window.prefix.strip() or above.rstrip().endswith(_OPENERS):
        return Scope.BLOCK
    return Scope.LINE


def wanted(window: Window) -> Reason | None:
    """Why an automatic completion should not be asked for here; None when it should. The end of a word is not mid-word."""
    following = window.suffix[:1]
    return Reason.MID_WORD if following.isalnum() or following == "_" else None


class Shaper:
    """Applies the rules to one stream. `feed` the text as it comes; `shaped` is what holds for all fed so far."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._scope = scope_at(window)
        self._raw = ""
        self._shaped = Shaped("", False)

    @property
    def raw(self) -> str:
        """All that was fed."""
        return self._raw

    def feed(self, text: str) -> Shaped:
        """Add text -> what may be shown of it all. Once it is enough, that does not change any more.

        The rules look at each character in turn, so that it does not matter in which pieces the text comes.
        """
        for character in text:
            self._raw += character
            if not self._shaped.enough:
                self._shaped = self._rules(self._raw)
        return self._shaped

    def _rules(self, raw: str) -> Shaped:
        shaped = _end_of_line(raw) if self._scope is Scope.LINE else _end_of_block(raw, self._window)
        return Shaped(shaped.text, enough=True) if repeats_itself(shaped.text) else shaped

    def finish(self) -> tuple[str, Reason | None]:
        """The text to show in the end, or why there is none."""
        text = self._shaped.text
        if repeats_itself(text):
            return "", Reason.REPETITION
        if repeats_what_follows(text, self._window):
            return "", Reason.DUPLICATE
        text = without_overlap(text, self._window.rest_of_line)
        if self._scope is Scope.BLOCK or not self._window.rest_of_line:
            text = text.rstrip()
        return (text, None) if text.strip() else ("", Reason.NOTHING_TO_ADD)


def without_overlap(text: str, rest_of_line: str) -> str:
    """Drop from the end of `text` what stands right of the cursor already, such as a bracket that the editor closed."""
    rest = rest_of_line.strip()
    line, newline, _ = text.partition("\n")
    if not rest or newline:
        return text
    bare = line.rstrip()
    for whole in (rest_of_line.rstrip(), rest):
        if bare.endswith(whole):
            return bare.removesuffix(whole)
    if CLOSERS.issuperset(rest) and (at := _where_it_closes(line, rest)) is not None:
        return line[:at]
    for length in range(min(len(line), len(rest)) - 1, 0, -1):
        if line.endswith(rest[:length]) and not rest[:length].isalnum():
            return line[: len(line) - length]
    return text


def _where_it_closes(line: str, rest: str) -> int | None:
    """Where `line` begins to close what the editor closed right of the cursor; None if it does not."""
    if rest[0] in "\"'`":
        at = line.find(rest[0])
        return None if at < 0 else at
    opened: list[str] = []
    unmatched: list[int] = []
    for at, character in enumerate(line):
        if character in _PAIRS.values():
            opened.append(character)
        elif character in _PAIRS:
            if opened and opened[-1] == _PAIRS[character]:
                opened.pop()
            elif not opened:
                unmatched.append(at)
    there = [character for character in rest if character in _PAIRS]
    closing = unmatched[-len(there) :] if there else []
    same = [line[at] for at in closing] == there[: len(closing)]
    return closing[0] if closing and same else None


def repeats_itself(text: str) -> bool:
    """Whether the text says some words four times in a row: a model that has lost its way."""
    match = _REPEATED.search(text)
    return match is not None and any(character.isalpha() for character in match[1])


def repeats_what_follows(text: str, window: Window) -> bool:
    """Whether the completed line is the next line that has text, or the text is the very rest of this one."""
    rest = window.rest_of_line.strip()
    if rest and text.strip() == rest:
        return True
    first = (window.line_before + text.partition("\n")[0]).strip()
    following = next((line.strip() for line in window.suffix.split("\n")[1:] if line.strip()), "")
    return len(first) > 3 and first == following and text.count("\n") == 0


def _end_of_line(raw: str) -> Shaped:
    line, newline, _ = raw.partition("\n")
    return Shaped(line, bool(newline))


def _end_of_block(raw: str, window: Window) -> Shaped:
    """Stop where the text falls back behind the cursor's own indentation, repeats itself, or grows long."""
    lines = raw.split("\n")
    own = window.line_before
    base = _indent(own) if own.strip() else len(own.expandtabs(4))
    opened = bool(own.strip())
    kept = lines[:1]
    for number, line in enumerate(lines[1:], 1):
        complete = number < len(lines) - 1
        if line.strip():
            closes = line.strip()[0] in ")]}"
            if _indent(line) < base or (opened and _indent(line) == base and not closes):
                return Shaped("\n".join(kept), True)
        elif complete and number > 1 and not lines[number - 1].strip():
            return Shaped("\n".join(kept), True)
        if complete and line.strip() and kept.count(line) >= 2:
            return Shaped("\n".join(kept[: kept.index(line) + 1]), True)
        if number >= MAX_LINES:
            return Shaped("\n".join(kept), True)
        if not complete and not line.strip():
            break  # its indentation is not known yet
        kept.append(line)
    return Shaped("\n".join(kept), False)


def _indent(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())
