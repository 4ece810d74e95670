"""What is shown of each document, so that accepting it in part leaves the very rest of it, and accepting all of a block that
was cut for its length brings what the model had said beyond. Part of `life`; pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from cachetools import LRUCache

from lsp_server.reuse import Reusable, typed_since
from lsp_server.rules.languages import by_id
from lsp_server.shaping import MAX_LINES, Shaper
from lsp_server.state.ask import Ask
from lsp_server.state.outcome import Item, Outcome
from lsp_server.window import Window

_DOCUMENTS = 16


@dataclass(frozen=True, slots=True)
class _Shown:
    """A text, what had been typed of it when it was last shown included, and the window at which it begins."""

    window: Window
    text: str
    logprob: float | None
    layout: str | None
    prose: bool


class Showing:
    """One text for each document."""

    def __init__(self) -> None:
        self._shown: LRUCache[str, _Shown] = LRUCache(_DOCUMENTS)

    def shown(self, ask: Ask, outcome: Outcome) -> None:
        """A request was answered with something."""
        item, before = outcome.items[0], self._shown.get(ask.document)
        typed = None if before is None else _typed(before, ask.window)
        if before is not None and typed and outcome.reused:
            window, text = before.window, typed + item.text  # it goes on with what was shown before
        else:
            window, text = ask.window, item.text
        self._shown[ask.document] = _Shown(window, text, item.logprob, outcome.layout, outcome.prose)

    def forget(self, document: str) -> None:
        """The document was closed."""
        self._shown.pop(document, None)

    def rest(self, ask: Ask, found: Reusable | None, since: float, now: float) -> Outcome | None:
        """What is left for a request whose author has typed some of what was shown; None if it is not for us to say.

        `found` is what the model had said at the request's place.
        """
        shown = self._shown.get(ask.document)
        typed = None if shown is None else _typed(shown, ask.window)
        if shown is None or not typed or "\n" not in shown.text:
            return None  # within a line, shaping anew says the same, and minds brackets that were closed meanwhile
        if shown.text.startswith(typed) and shown.text[len(typed) :].strip():
            text = shown.text[len(typed) :]
        elif shown.text.rstrip() == typed.rstrip() and found is not None:
            text = _beyond(shown, typed, ask, found)
        else:
            return None
        if not text.strip():
            return None
        return Outcome(
            items=(Item(text, shown.logprob),),
            layout=shown.layout,
            finish_reason="stop",
            cached=0,
            computed=0,
            reused=True,
            prose=shown.prose,
            first=now - since,
            total=now - since,
        )


def _typed(shown: _Shown, window: Window) -> str | None:
    """What was typed since at the place where a text begins; None if anything else changed."""
    return typed_since(shown.window, window) if window.suffix == shown.window.suffix else None


def _beyond(shown: _Shown, typed: str, ask: Ask, found: Reusable) -> str:
    """What the model had said beyond a text, in the block that it began in: as many lines again."""
    lines = typed.count("\n") + MAX_LINES
    shaper = Shaper(shown.window, by_id(ask.surroundings.language), invoked=ask.invoked, max_lines=lines)
    enough = shaper.feed(typed + found.rest).enough
    text, _ = shaper.finish(cut_short=found.source.cut_short)
    known = enough or found.source.ended or found.source.cut_short
    return text[len(typed) :] if known and text.startswith(typed) else ""
