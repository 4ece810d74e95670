"""No completion holds what a reader cannot see or is misled by, and none goes on with what looks like a live key.

The text is cut before the first such sign, never altered: what stands before it means what it says. A character that the
author uses near the cursor may come in completions too, and what joins and selects inside of an emoji (`emoji.py`). Works on
a stream, looks at each sign once; a sign that may be part of an emoji waits for the next.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from lsp_server.reasons import Reason
from lsp_server.rules.emoji import part_of_emoji
from lsp_server.window import Window

NEAR_LINES: Final = 64
"""Lines above and below the cursor whose characters may come in a completion."""

NEAR_CHARACTERS: Final = 2**13
"""Characters above and below at most, should lines be long."""

SHOWN_OF_A_KEY: Final = 8
"""Signs of a key after its mark that may be shown: names of variables have as many."""

UNSEEN: Final = re.compile(
    "["
    "\0-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tab and line end
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # hyphens, joiners, fillers and selectors that are not drawn
    "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2"  # Arabic and Syriac signs that enclose what follows
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f"  # zero width, line separators, direction
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff"  # blanks that are letters, selectors, U+FFFD: broken text
    "\ud800-\uf8ff"  # surrogates and private use
    "\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # formats of single scripts
    "\U0001fffe\U0001ffff\U0002fffe\U0002ffff\U0003fffe\U0003ffff\U0004fffe\U0004ffff\U0005fffe\U0005ffff\U0006fffe"
    "\U0006ffff\U0007fffe\U0007ffff\U0008fffe\U0008ffff\U0009fffe\U0009ffff\U000afffe\U000affff\U000bfffe\U000bffff"
    "\U000cfffe\U000cffff\U000dfffe\U000dffff"  # no characters
    "\U000e0000-\U000e0fff"  # tags and selectors
    "\U000efffe-\U0010ffff"  # private use
    "]"
)
"""One character that is not drawn, or that changes how others are."""

_KEY = re.compile(
    r"(?<![0-9A-Za-z])"
    rf"(?:(A[KS]IA)[A-Z2-7]{{{SHOWN_OF_A_KEY + 1},}}"
    r"|(github_pat_|glpat-|xox[abeoprs]-|[rs]k_live_|sk-(?:ant|proj|svcacct)-|AIza|pypi-)"
    rf"(?=[a-z_-]{{0,{SHOWN_OF_A_KEY}}}[0-9A-Z])"  # random text, no words
    rf"[0-9A-Za-z_-]{{{SHOWN_OF_A_KEY + 1},}})"
)
_TOKEN = re.compile(rf"(?<![0-9A-Za-z])(gh[pousr]_|npm_|hf_)[0-9A-Za-z]{{{SHOWN_OF_A_KEY + 1},}}")
"""What may as well be a name: these marks begin names too, and a token has letters alone after them."""
_NO_WORDS = re.compile(r"[0-9]|(?<![a-z])[a-z][A-Z]")
"""What words written together have not: digits, one small letter between capitals."""
_NO_LONG_WORDS = re.compile(r"[A-Z]{2}[a-z]")
_LONG = 20  # signs of a run that few names have
_PRIVATE_KEY = re.compile(r"(-----BEGIN [A-Z ]{0,24}PRIVATE KEY(?: BLOCK)?-----)\s{0,8}[0-9A-Za-z+/]")


def _shown_of_token(match: re.Match[str]) -> int | None:
    """Up to before the sign that no name goes on with: where that is does not depend on what follows."""
    run = match[0][len(match[1]) :]
    found = [
        max(least, odd.end())
        for pattern, least in ((_NO_WORDS, SHOWN_OF_A_KEY + 1), (_NO_LONG_WORDS, _LONG))
        if (odd := pattern.search(run)) and len(run) >= least
    ]
    return match.end(1) + min(found) - 1 if found else None


_LIVE: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], int | None]], ...] = (
    (_KEY, lambda match: match.end(match.lastindex or 0) + SHOWN_OF_A_KEY),
    (_TOKEN, _shown_of_token),
    (_PRIVATE_KEY, lambda match: match.end(1)),
)
"""What looks like a key, and up to where it may be shown; None if it is none after all."""

_TAIL = 128  # characters before a piece that a match may have begun in


class CleanStream:
    """What may be shown of one stream of text. Line ends come out as `\\n`."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._near: str | None = None
        self._tail = window.prefix[-_TAIL:]
        self._held = ""  # it depends on what comes next whether this may be shown
        self._after_return = False
        self.cut: Reason | None = None
        """Why the rest of the stream is not shown; None while it is."""

    def feed(self, piece: str) -> str:
        """The next piece -> what of it may be shown. Once the stream is cut, nothing."""
        if self.cut is not None or not piece:
            return ""
        text = self._tail + self._held + self._with_our_line_ends(piece)
        end = self._seen(text, len(self._tail))
        text, self._held = text[:end], text[end:]
        for pattern, shown in _LIVE:
            for match in pattern.finditer(text):
                if match.end() > len(self._tail) and (last := shown(match)) is not None:
                    text = text[: max(len(self._tail), last)]
                    self.cut = Reason.SECRET
                    break
        piece = text[len(self._tail) :]
        self._tail = text[-_TAIL:]
        return piece

    def _with_our_line_ends(self, piece: str) -> str:
        if self._after_return and piece[0] == "\n":
            piece = piece[1:]
        elif not self._after_return and "\r" not in piece:
            return piece
        self._after_return = piece.endswith("\r") if piece else False
        return piece.replace("\r\n", "\n").replace("\r", "\n")

    def _seen(self, text: str, start: int) -> int:
        """Up to where a text may be shown that may be shown up to `start`."""
        at = start
        while match := UNSEEN.search(text, at):
            at = match.start()
            if self._near is None:
                self._near = _near(self._window)
            if match[0] in self._near:
                at += 1
            elif (length := part_of_emoji(text, at)) is None:
                return at
            elif not length:
                self.cut = Reason.UNSAFE
                return at
            else:
                at += length
        return len(text)


def _near(window: Window) -> str:
    above = "\n".join(window.prefix[-NEAR_CHARACTERS:].split("\n")[-NEAR_LINES:])
    below = "\n".join(window.suffix[:NEAR_CHARACTERS].split("\n")[:NEAR_LINES])
    return above + below
