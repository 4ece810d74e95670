"""Completions that the model gave already, to answer from while what is typed agrees with them.

An index by document, exact suffix and the text above the cursor's line; within a line, by what stands left of the cursor. So
typing through, undo and redo, deleting and retyping, and accepting in part all find what was said. Knows no wire, holds
no other document's state, and nothing goes to disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from cachetools import LRUCache

from lsp_server.shaping import CLOSERS
from lsp_server.window import Window

MAX_LINES = 2_048
"""Lines that completions are remembered for, over all documents."""

MAX_ENTRIES = 32
"""Completions remembered for one line."""

_TAIL = 4_096  # characters above the line that must agree; windows scroll, so that the rest may differ
_REACH = 16  # lines of one completion that it can be found from


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the model said at one place. `ended`: it had no more to say; `cut_short`: it was not allowed to say more;
    neither: it was stopped.
    """

    text: str
    ended: bool
    cut_short: bool
    logprob: float | None
    layout: str | None


@dataclass(frozen=True, slots=True)
class Reusable:
    """The rest of a remembered completion after what was typed since."""

    rest: str
    source: Remembered


@dataclass(frozen=True, slots=True)
class _Entry:
    """A completion seen from one of its lines: `line` stood there before the model went on with `text`."""

    line: str
    text: str
    source: Remembered


_Key = tuple[str, str, bytes, bytes]


class ReuseStore:
    """The completions of one language server, least recently used forgotten first.

    `scope` names the model and the settings that a completion depends on; what was said under another is not found.
    """

    def __init__(self, scope: str = "") -> None:
        self.scope = scope
        self._lines: LRUCache[_Key, LRUCache[str, _Entry]] = LRUCache(MAX_LINES)
        self._suffix = ("", _digest(""))

    def remember(self, document: str, window: Window, source: Remembered) -> None:
        """Keep what the model said at this window. Nothing said is worth keeping only if it was all."""
        if not source.text and not source.ended:
            return
        suffix = self._suffix_digest(window)
        for above, entry in _lines(window, source):
            key = (document, self.scope, suffix, _digest(above))
            if (entries := self._lines.get(key)) is None:
                entries = self._lines[key] = LRUCache(MAX_ENTRIES)
            entries[entry.line] = entry

    def find(self, document: str, window: Window) -> Reusable | None:
        """The remembered completion with most of its text left that agrees with all that stands around the cursor."""
        line = window.line_before
        key = (document, self.scope, self._suffix_digest(window), _digest(_above(window, line)))
        best: Reusable | None = None
        entries: Mapping[str, _Entry] = self._lines.get(key) or {}
        for start in [start for start in entries if line.startswith(start)]:
            entry, typed = entries[start], line[len(start) :]
            if not entry.text.startswith(typed):
                continue
            rest = entry.text[len(typed) :]
            nothing_more = not rest and (typed or not entry.source.ended)
            if not nothing_more and (best is None or len(rest) > len(best.rest)):
                best = Reusable(rest, entry.source)
        return best

    def forget(self, document: str) -> None:
        """The document was closed."""
        for key in [key for key in self._lines if key[0] == document]:
            del self._lines[key]

    def _suffix_digest(self, window: Window) -> bytes:
        suffix = suffix_key(window)
        if suffix != self._suffix[0]:  # comparing is cheaper than hashing, and typing leaves the suffix as it was
            self._suffix = (suffix, _digest(suffix))
        return self._suffix[1]


def suffix_key(window: Window) -> str:
    """The suffix without a rest of line that the editor closed by itself: the model was not shown that either."""
    suffix = window.suffix
    end = suffix.find("\n") if "\n" in suffix else len(suffix)
    return suffix[end:] if CLOSERS.issuperset(suffix[:end]) else suffix


def typed_since(earlier: Window, window: Window) -> str | None:
    """What was typed at the earlier window's cursor to make it this one; None if anything else happened."""
    if suffix_key(earlier) != suffix_key(window):
        return None
    before, prefix = earlier.prefix, window.prefix
    if prefix.startswith(before):
        return prefix[len(before) :]
    tail = before[-_TAIL:]  # the window may have scrolled
    at = prefix.rfind(tail) if len(tail) == _TAIL else -1
    return None if at < 0 else prefix[at + _TAIL :]


def _lines(window: Window, source: Remembered) -> Iterator[tuple[str, _Entry]]:
    """What must agree above each line of a completion, and the completion as seen from there."""
    line = window.line_before
    above, text = _above(window, line), source.text
    for _ in range(_REACH):
        yield above, _Entry(line, text, source)
        first, newline, text = text.partition("\n")
        if not newline or not text:
            return
        above, line = (above + line + first + "\n")[-_TAIL:], ""


def _above(window: Window, line: str) -> str:
    """What must agree above the line."""
    end = len(window.prefix) - len(line)
    return window.prefix[max(0, end - _TAIL) : end]


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
