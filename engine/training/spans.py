"""Where holes are cut: the cursor at a character, the middle up to where a person would stop, the rest as it is served.

Everything here is about text; `samples.py` turns a hole into tokens. The rules for S and for P0 are those of the engine's
`fim.py`, which this package does not import so that it runs where the engine's own needs are not installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

CLOSERS = frozenset(")]}\"'`,:; \t>\r")
"""A rest of line made of these alone is what the editor closed by itself: S starts on the next line."""

ANCHOR_LINES = 8
TOP_BLOCKS = (96, 48, 24, 8, 1)
BUDGET_A_LINE = 48  # tokens of budget for each line of a block at least
MAX_SUFFIX = 224  # tokens of S at most in the engine's prompts
SUFFIX_SHARES = 4  # parts of S's budget; those that it leaves unused are P's
_TOKEN = 4  # characters, about
_LONGEST = 1_000  # characters in a middle that a person would accept in one go
_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")


class Kind(StrEnum):
    """How far the middle reaches."""

    LINE = "line"
    STATEMENT = "statement"
    BLOCK = "block"
    LINES = "lines"
    SPAN = "span"


KINDS: tuple[tuple[Kind, float], ...] = (
    (Kind.LINE, 0.56), (Kind.STATEMENT, 0.11), (Kind.BLOCK, 0.11), (Kind.LINES, 0.05), (Kind.SPAN, 0.17),
)  # fmt: skip
"""Shares. `SPAN` is BigCode's: two characters anywhere."""


@dataclass(frozen=True, slots=True)
class Hole:
    """Half-open character ranges of one file: P = [top, start), M = [start, end), S = [after, bottom)."""

    top: int
    start: int
    end: int
    after: int
    bottom: int


def line_end(text: str, at: int) -> int:
    """Where the line that holds `at` ends: its `\\n`, or the end of the text."""
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def middle_end(text: str, cursor: int, kind: Kind, rng: np.random.Generator) -> int:
    """Where the middle that starts at `cursor` ends."""
    if kind is Kind.LINE:
        end = line_end(text, cursor)
    elif kind is Kind.STATEMENT:
        end = _statement_end(text, cursor)
    elif kind is Kind.BLOCK:
        end = _block_end(text, cursor)
    elif kind is Kind.LINES:
        end = line_end(text, cursor)
        for _ in range(int(rng.integers(1, 8))):
            end = line_end(text, min(end + 1, len(text)))
    else:
        end = cursor + int(np.exp(rng.uniform(0.0, np.log(600.0))))
    end = min(end, len(text))
    if end - cursor > _LONGEST:
        end = max(line_end(text, cursor), text.rfind("\n", cursor, cursor + _LONGEST))
    return max(end, min(cursor + 1, len(text)))


def _statement_end(text: str, cursor: int) -> int:
    """The end of the first line, from the cursor's on, at which no bracket that these lines opened is open."""
    at = text.rfind("\n", 0, cursor) + 1
    depth, end = 0, cursor
    for _ in range(14):
        end = line_end(text, at)
        line = text[at:end]
        depth += sum(c in _OPEN for c in line) - sum(c in _CLOSE for c in line)
        if (depth <= 0 and end > cursor and not line.endswith(("\\", ","))) or end == len(text):
            break
        at = end + 1
    return end


def _block_end(text: str, cursor: int) -> int:
    """The end of the lines below that are indented more than the cursor's, or, inside a block, not less."""
    first = text.rfind("\n", 0, cursor) + 1
    own = _indent(text, first)
    end = line_end(text, cursor)
    opens = text[first:end].rstrip().endswith((":", "{", "(", "["))
    for _ in range(24):
        if end >= len(text):
            break
        at = end + 1
        next_end = line_end(text, at)
        if text[at:next_end].strip():
            indent = _indent(text, at)
            closes = opens and indent == own and text[at + indent : at + indent + 1] in _CLOSE
            if closes:
                return next_end
            if indent < own + opens:
                break
        end = next_end
    return cursor + len(text[cursor:end].rstrip())


def _indent(text: str, at: int) -> int:
    end = at
    while end < len(text) and text[end] in " \t":
        end += 1
    return end - at


def suffix_start(text: str, end: int) -> int:
    """Where S starts behind a middle that ends at `end`."""
    stop = line_end(text, end)
    return min(stop + 1, len(text)) if CLOSERS.issuperset(text[end:stop]) else end


def suffix_end(text: str, after: int, characters: int) -> int:
    """Whole lines of S in about so many characters; nothing for a budget of 0."""
    if characters <= 0:
        return after
    if after + characters >= len(text):
        return len(text)
    whole = text.rfind("\n", after, after + characters) + 1
    return whole if whole > after else min(line_end(text, after) + 1, after + characters)


def window_top(starts: np.ndarray[tuple[int], np.dtype[np.int64]], cursor: int, characters: int) -> int:
    """Where P starts: whole blocks of lines, counted from the top, are dropped until the rest fits.

    `starts` are the offsets of the file's lines. Coarse blocks come first, as the engine cuts them.
    """
    if cursor <= characters:
        return 0
    best = int(max(cursor - characters, 0))
    for block in top_blocks(characters // _TOKEN):
        marks = starts[::block]
        at = int(np.searchsorted(marks, cursor - characters))
        if at < len(marks) and marks[at] < cursor:
            best = int(marks[at])
            if (cursor - best) * 2 >= characters:
                return best
    return best


def top_blocks(budget: int) -> list[int]:
    """How many lines are dropped together at the top of a window with so many tokens for P, coarse ones first."""
    return [block for block in TOP_BLOCKS if block <= max(ANCHOR_LINES, budget // BUDGET_A_LINE)]


def anchor_at(text: str, top: int, line_of_top: int, end: int) -> int:
    """Where P1 starts within P = text[top:end], whose first line is number `line_of_top` of the file."""
    line = line_of_top + text.count("\n", top, end)
    at = text.rfind("\n", top, end) + 1
    for _ in range(line % ANCHOR_LINES):
        if at <= top:
            break
        at = text.rfind("\n", top, at - 1) + 1
    return max(at, top)
