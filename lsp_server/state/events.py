"""What happens to requests, and what is to be done about it: the vocabulary of `life.Life`. Plain data.

Events go in with the time at which they happened, effects come out, to be carried out in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from engine.client import Chunk
from lsp_server.attribution.origin import Origin
from lsp_server.reasons import Reason
from lsp_server.window import Window

RequestId = int
StreamId = int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What stands around a document, for the model to read before it."""

    path: str | None = None
    repository: str | None = None
    language: str | None = None
    context: tuple[tuple[str, str], ...] = ()
    """Path and text of each snippet of another file."""


NOWHERE = Surroundings()


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for a completion at a place."""

    document: str
    window: Window
    invoked: bool
    candidates: int = 1
    patience: float | None = None
    """Seconds after which it is answered with what is there; None waits for the model."""
    surroundings: Surroundings = NOWHERE


@dataclass(frozen=True, slots=True)
class Item:
    """One candidate as shown, with the mean log-probability of its tokens, and where it is known to stand verbatim."""

    text: str
    logprob: float | None
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended. `reason` says why there are no items."""

    items: tuple[Item, ...] = ()
    reason: Reason | None = None
    detail: str | None = None
    layout: str | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    cached: int | None = None
    computed: int | None = None
    generated: int = 0
    reused: bool = False
    """Whether it came from an earlier answer, without the model."""
    prose: bool = False
    """Whether the cursor stands in a comment or a text of several lines."""
    first: float | None = None
    """Seconds to the first text."""
    total: float = 0.0
    """Seconds in all."""
    waited: float = 0.0
    """Seconds of them in which it waited for the engine and for the author's next key, up to the first text handed over."""
    answer: str | None = None
    """The engine's id of what it said, if it was asked."""


class Purpose(Enum):
    """What a call of the engine is for."""

    COMPLETE = "complete"
    SAMPLE = "sample"
    """Alternatives to what was completed."""
    PRIME = "prime"
    """Only to have the prompt's keys and values on the device."""


@dataclass(frozen=True, slots=True)
class Call:
    """What the engine is asked."""

    document: str
    window: Window
    purpose: Purpose
    surroundings: Surroundings
    candidates: int = 1


# -- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A request came in."""

    request: RequestId
    ask: Ask


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client does not want the answer any more, and will be told so by others."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class Replied:
    """The reply to a request is out, or will be before anything that is done about this event."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine can complete, or `error` says why not."""

    request: RequestId
    error: Exception | None = None


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
class Due:
    """Alarm: a request has waited for the author's next key long enough."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class Late:
    """Alarm: a request's patience is at its end."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class Idle:
    """Alarm: nothing has happened for a while. `serial` tells whether that is true."""

    serial: int


Alarm = Due | Late | Idle
Event = Asked | Cancelled | Replied | Ready | Arrived | Over | Edited | Pasted | Closed | Alarm

# -- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """Reply to a request. Until the reply is out a later answer replaces it: the text may have changed."""

    request: RequestId
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Fail:
    """An error that nobody foresaw; it is the reply."""

    request: RequestId
    error: Exception


@dataclass(frozen=True, slots=True)
class Show:
    """A partial result: all of the text so far."""

    request: RequestId
    text: str
    waited: float
    """Seconds that the request has waited for others so far."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """See that the engine can complete, then say Ready."""

    request: RequestId
    invoked: bool


@dataclass(frozen=True, slots=True)
class Release:
    """Nobody waits for the engine on this request's behalf any more: no Ready is wanted."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class Open:
    """Ask the engine."""

    stream: StreamId
    call: Call


@dataclass(frozen=True, slots=True)
class Close:
    """Stop a stream, and with it the model; it will be Over."""

    stream: StreamId


@dataclass(frozen=True, slots=True)
class Wake:
    """Raise the alarm at a time."""

    at: float
    alarm: Alarm


Effect = Answer | Fail | Show | Prepare | Release | Open | Close | Wake
