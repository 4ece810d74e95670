"""The calls in progress of all documents: opened, closed, handed over. Part of the state machine of `life`; pure.

Of one document a stream is opened only when those that are being closed are over, so that the engine finds the keys and
values of the older one free to go on from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lsp_server.reuse import Remembered, ReuseStore, typed_since
from lsp_server.state.ask import Ask, RequestId
from lsp_server.state.call import Call, Purpose, StreamId
from lsp_server.state.effects import Close, Effect, Open
from lsp_server.state.streams import Stream
from lsp_server.window import Window

WORTH_PRIMING = 16
"""Prompt tokens from which they are worth a pass of their own; fewer are computed along with the first new token."""

_CHARACTERS_PER_TOKEN = 3
_MAX_SENT = 16


@dataclass(slots=True)
class _Line:
    """One document's calls."""

    streams: dict[StreamId, Stream] = field(default_factory=dict)
    waiting: list[Stream] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        return any(stream.closing for stream in self.streams.values())


class Switchboard:
    """Owns the streams; knows no requests. What it wants done goes to `emit`. What streams said goes to the store."""

    def __init__(self, store: ReuseStore, emit: Callable[[Effect], None]) -> None:
        self._store = store
        self._emit = emit
        self._lines: dict[str, _Line] = {}
        self._sent: dict[str, Window] = {}
        self._last = 0

    def call(self, ask: Ask, purpose: Purpose, owner: RequestId | None, now: float, lead: str = "") -> Stream:
        """Ask the engine, as soon as what is being closed for the document is over."""
        self._last += 1
        choices = ask.candidates - 1 if purpose is Purpose.SAMPLE else 1
        call = Call(ask.document, ask.window, purpose, ask.surroundings, choices)
        stream = Stream(self._last, call, owner, now, lead, invoked=ask.invoked)
        line = self._lines.setdefault(ask.document, _Line())
        if line.busy:
            line.waiting.append(stream)
        else:
            self._open(line, stream, now)
        return stream

    def close(self, stream: Stream) -> None:
        """Stop a stream; what it said is kept."""
        line = self._lines[stream.call.document]
        if stream in line.waiting:
            line.waiting.remove(stream)
        elif not stream.closing:
            stream.closing = True
            self._keep(stream)
            self._emit(Close(stream.id))

    def over(self, stream: Stream, now: float) -> None:
        """A stream's connection is closed."""
        document = stream.call.document
        line = self._lines[document]
        del line.streams[stream.id]
        if not stream.closing:
            self._keep(stream)
        if not line.busy:
            waiting, line.waiting = line.waiting, []
            for each in waiting:
                self._open(line, each, now)
        if not line.streams and not line.waiting:
            del self._lines[document]

    def of(self, document: str) -> list[Stream]:
        """A document's streams, those that wait to be opened included."""
        line = self._lines.get(document)
        return [] if line is None else [*line.streams.values(), *line.waiting]

    def owned(self, document: str, request: RequestId) -> list[Stream]:
        """The streams that answer a request."""
        return [stream for stream in self.of(document) if stream.owner == request]

    def find(self, number: StreamId | None) -> Stream | None:
        """A stream by its number."""
        return next((stream for stream in self if stream.id == number), None)

    def __iter__(self) -> Iterator[Stream]:
        for line in self._lines.values():
            yield from (*line.streams.values(), *line.waiting)

    def worth_priming(self, document: str, window: Window) -> bool:
        """Whether the engine has so little of a window's keys and values that computing them cannot wait."""
        sent = self._sent.get(document)
        if sent is None:
            return True
        if (typed := typed_since(sent, window)) is None:
            return typed_since(window, sent) is None  # text taken away costs nothing
        return len(typed) > WORTH_PRIMING * _CHARACTERS_PER_TOKEN

    def lost(self) -> None:
        """The engine is gone, and what it had on its device with it."""
        self._sent.clear()

    def _open(self, line: _Line, stream: Stream, now: float) -> None:
        line.streams[stream.id] = stream
        document = stream.call.document
        self._sent.pop(document, None)
        self._sent[document] = stream.call.window
        if len(self._sent) > _MAX_SENT:  # more than the engine has room for
            del self._sent[next(iter(self._sent))]
        stream.opened = now
        self._emit(Open(stream.id, stream.call))

    def _keep(self, stream: Stream) -> None:
        if stream.call.purpose is Purpose.COMPLETE:
            layout, logprob = stream.extension.get("layout"), stream.voices[0].logprob
            said = Remembered(stream.raw, stream.ended, stream.cut_short, logprob, layout)
            self._store.remember(stream.call.document, stream.call.window, said)
