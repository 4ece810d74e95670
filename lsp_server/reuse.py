"""Completions that the model gave already, to answer from while what is typed agrees with them.

Knows no wire. Keys cover prefix, suffix and model output; nothing is kept on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

from cachetools import LRUCache

from lsp_server.shaping import CLOSERS
from lsp_server.window import Window

MAX_ENTRIES = 64
"""Completions remembered per document."""

_MAX_DOCUMENTS = 64
_TAIL = 4_096  # characters of the prefix that must agree; windows scroll, so that the rest may differ


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the model said at one place. `ended`: it had no more to say; otherwise it was stopped."""

    prefix: str
    text: str
    ended: bool
    logprob: float | None
    layout: str | None


@dataclass(frozen=True, slots=True)
class Reusable:
    """The rest of a remembered completion after what was typed since."""

    rest: str
    source: Remembered


class ReuseStore:
    """The completions of one language server, least recently used forgotten first."""

    def __init__(self) -> None:
        self._documents: LRUCache[str, LRUCache[tuple[str, str], Remembered]] = LRUCache(_MAX_DOCUMENTS)

    def remember(
        self, document: str, window: Window, text: str, *, ended: bool, logprob: float | None, layout: str | None
    ) -> None:
        """Keep what the model said at this window."""
        if not text:
            return
        entries = self._documents.setdefault(document, LRUCache(MAX_ENTRIES))
        prefix = window.prefix[-_TAIL:]
        entries[prefix, _suffix_key(window)] = Remembered(prefix, text, ended, logprob, layout)

    def find(self, document: str, window: Window) -> Reusable | None:
        """The remembered completion with most of its text left that agrees with all that stands around the cursor."""
        suffix, best = _suffix_key(window), None
        for (_, remembered_suffix), entry in self._documents.get(document, {}).items():
            if remembered_suffix != suffix:
                continue
            rest = _rest(entry, window.prefix)
            if rest and (best is None or len(rest) > len(best.rest)):
                best = Reusable(rest, entry)
        return best

    def forget(self, document: str) -> None:
        """The document was closed."""
        self._documents.pop(document, None)


def _rest(entry: Remembered, prefix: str) -> str | None:
    """What of the entry's text follows `prefix`, if that is the entry's prefix and a beginning of its text."""
    # The longest first, so that of a text that repeats itself no more is offered than is left.
    for typed in range(min(len(entry.text), len(prefix)) - 1, -1, -1):
        at = len(prefix) - typed
        if prefix.endswith(entry.text[:typed]) and prefix[max(0, at - _TAIL) : at] == entry.prefix:
            return entry.text[typed:]
    return None


def _suffix_key(window: Window) -> str:
    """The suffix without a rest of line that the editor closed by itself: the model was not shown that either."""
    rest, newline, after = window.suffix.partition("\n")
    return newline + after if CLOSERS.issuperset(rest) else window.suffix
