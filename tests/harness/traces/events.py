"""One event of a trace, and how a text became another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

Kind = Literal[
    "jump", "char", "newline", "autoclose", "overtype", "delete", "accept", "walk", "switch", "undo", "redo", "rename",
    "import",
]  # fmt: skip

JUMPS = frozenset({"jump", "rename", "import"})
"""Events that change what stands around the cursor from one end to the other: at most one window is computed anew."""


@dataclass(frozen=True, slots=True)
class Event:
    """The text on both sides of the cursor after one change or movement; `want` is the rest of the line as written."""

    kind: Kind
    prefix: str
    suffix: str
    want: str
    document: str = "a"

    @property
    def text(self) -> str:
        """The whole document."""
        return self.prefix + self.suffix


@dataclass(frozen=True, slots=True)
class Edit:
    """`text` takes the place of the characters from `start` to `end`."""

    start: int
    end: int
    text: str


def edits_between(before: str, after: str, cursor: int) -> Iterator[Edit]:
    """The edits that make `after` of `before`, the last place first, so that none moves another.

    What is typed, taken away or put in at `cursor` (its place in `after`) is one edit that ends there, as editors send it.
    """
    tail = len(after) - cursor
    if before.endswith(after[cursor:]) and len(before) >= tail:
        end = len(before) - tail
        start = _common(before[:end], after[:cursor])
        if end - start + cursor - start <= 400:
            if end > start or cursor > start:
                yield Edit(start, end, after[start:cursor])
            return
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    starts = [0]
    for line in old:
        starts.append(starts[-1] + len(line))
    head = _common(old, new)
    back = _common(old[head:][::-1], new[head:][::-1])
    matcher = SequenceMatcher(None, old[head : len(old) - back], new[head : len(new) - back], autojunk=False)
    for kind, i, j, k, n in reversed(matcher.get_opcodes()):
        if kind == "equal":
            continue
        was, becomes = "".join(old[head + i : head + j]), "".join(new[head + k : head + n])
        left = _common(was, becomes)
        right = _common(was[left:][::-1], becomes[left:][::-1])
        at = starts[head + i] + left
        yield Edit(at, at + len(was) - left - right, becomes[left : len(becomes) - right])


def _common(a: str | list[str], b: str | list[str]) -> int:
    limit = min(len(a), len(b))
    low, high = 0, limit + 1
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
