"""What the engine does ahead of time: getting ready for the acceptance of what is shown. Part of `life`; pure.

After a completion of several lines has been shown for a moment, the prompt as if it were accepted is computed; one of a
single line leaves next to nothing to compute. When nothing happens after that either, what follows is completed, the next
line included, so that a second text is there at once, on the same line or after the line end that the author types. One
call at a time, and none while a request needs the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lsp_server.reuse import ReuseStore
from lsp_server.state.ask import Ask
from lsp_server.state.call import Purpose, StreamId
from lsp_server.state.effects import Effect, Wake
from lsp_server.state.events import Idle
from lsp_server.state.streams import Stream, goes_beyond_its_line
from lsp_server.state.switchboard import Switchboard
from lsp_server.window import Window

SHOWN_FOR = 0.15
"""Seconds for which a completion is shown before the engine prepares for its acceptance."""

READ_FOR = 0.4
"""Seconds for which nothing happens after that, before what follows is asked for."""


class Speculation:
    """Owns the one call in the background."""

    def __init__(self, board: Switchboard, store: ReuseStore, emit: Callable[[Effect], None]) -> None:
        self.primed = 0
        self.completed = 0
        self._board = board
        self._store = store
        self._emit = emit
        self._serial = 0
        self._shown: tuple[Ask, str] | None = None
        self._ready: Window | None = None  # the engine is prepared for this one
        self._running: StreamId | None = None

    def stir(self) -> None:
        """Something happens: what was to be done after a while without is not."""
        self._serial += 1

    def shown(self, ask: Ask, text: str, now: float) -> None:
        """A completion is being shown."""
        self._shown = (ask, text)
        delay = SHOWN_FOR if "\n" in text else SHOWN_FOR + READ_FOR
        self._emit(Wake(now + delay, Idle(self._serial)))

    def shown_at(self, document: str, window: Window) -> bool:
        """Whether the last completion was shown at this very place."""
        return self._shown is not None and (self._shown[0].document, self._shown[0].window) == (document, window)

    def hidden(self) -> None:
        """It is not there any more."""
        self._shown = None

    def idle(self, serial: int, now: float, *, prime: bool) -> None:
        """The alarm: go on, if nothing has happened since it was set. An engine that cannot `prime` is not one of ours, and
        is asked for no more than is needed.
        """
        if serial != self._serial or self._shown is None or self._running is not None or not prime:
            return
        shown, text = self._shown
        accepted = replace(shown.window, prefix=shown.window.prefix + text)
        ask = replace(shown, window=accepted, candidates=1)
        if "\n" in text and accepted != self._ready:
            self.prime(ask, now, text)
        elif not self._follows(ask.document, accepted):
            self.completed += 1
            self._running = self._board.call(ask, Purpose.COMPLETE, None, now, text).id

    def _follows(self, document: str, accepted: Window) -> bool:
        """Whether what follows is known already."""
        found = self._store.find(document, accepted)
        return found is not None and (found.source.ended or goes_beyond_its_line(found.rest))

    def prime(self, ask: Ask, now: float, lead: str = "") -> None:
        """Have the engine compute a prompt, in place of what it did in the background."""
        self.yield_to(None)
        self.primed += 1
        self._running = self._board.call(ask, Purpose.PRIME, None, now, lead).id

    def yield_to(self, document: str | None) -> None:
        """A request needs the engine. What is primed for its own document the engine ends by itself, and goes on from."""
        stream = self._board.find(self._running)
        if stream is not None and not (stream.call.document == document and stream.call.purpose is Purpose.PRIME):
            self._board.close(stream)
            self._running = None

    def taken(self, stream: Stream) -> None:
        """A request took a stream over."""
        if stream.id == self._running:
            self._running = None

    def over(self, stream: Stream, error: Exception | None, now: float) -> None:
        """A stream has ended."""
        if error is not None:
            self._ready = None
        if stream.id != self._running:
            return
        self._running = None
        if error is None and not stream.closing and stream.call.purpose is Purpose.PRIME:
            self._ready = stream.call.window
            self._emit(Wake(now + READ_FOR, Idle(self._serial)))
