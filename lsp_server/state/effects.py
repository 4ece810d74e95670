"""What is to be done about what happened: what comes out of `life.Life`, to be carried out in this order. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from lsp_server.state.ask import RequestId
from lsp_server.state.call import Call, StreamId
from lsp_server.state.events import Alarm
from lsp_server.state.outcome import Outcome


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
