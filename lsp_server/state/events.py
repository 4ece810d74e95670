"""What happens to requests: what goes into `life.Life`, with the time at which it happened. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from engine.client import Chunk
from lsp_server.state.ask import Ask, RequestId
from lsp_server.state.call import StreamId
from lsp_server.window import Window


@dataclass(frozen=True, slots=True)
class Asked:
    """A request came in."""

    request: RequestId
    ask: Ask


@dataclass(frozen=True, slots=True)
class OfRequest:
    """What happens to one request."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class Cancelled(OfRequest):
    """The client does not want the answer any more, and will be told so by others."""


@dataclass(frozen=True, slots=True)
class Replied(OfRequest):
    """The reply to a request is out, or will be before anything that is done about this event."""


@dataclass(frozen=True, slots=True)
class Ready(OfRequest):
    """The engine can complete, or `error` says why not."""

    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Due(OfRequest):
    """Alarm: a request has waited for the author's next key long enough."""


@dataclass(frozen=True, slots=True)
class Late(OfRequest):
    """Alarm: a request's patience is at its end."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A piece of a stream."""

    stream: StreamId
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Over:
    """A stream's connection is closed: it ended, `error` ended it, or it was told to. Comes once for each opened one."""

    stream: StreamId
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Typed:
    """One edit at the place where the last request was made, or what was typed there since: so many characters
    taken away before it, then text put in.
    """

    inserted: str
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class Edited:
    """A document changed; `typed` has the edits in their order, None if any was not just where its author writes."""

    document: str
    typed: tuple[Typed, ...] | None = None


@dataclass(frozen=True, slots=True)
class Pasted:
    """Much was put in at once where the author writes; `window` is what stands around its end."""

    document: str
    window: Window


@dataclass(frozen=True, slots=True)
class Closed:
    """A document was closed."""

    document: str


@dataclass(frozen=True, slots=True)
class Idle:
    """Alarm: nothing has happened for a while. `serial` tells whether that is true."""

    serial: int


Alarm = Due | Late | Idle
Event = Asked | Cancelled | Replied | Ready | Arrived | Over | Edited | Pasted | Closed | Alarm
