"""The stages of a request, and what is kept of one. Plain data of `life`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import exp

from lsp_server.state.events import Ask, Outcome, RequestId, StreamId


class Stage(Enum):
    """Where a request stands."""

    QUEUED = "queued"
    """Until the replies to older requests for its document are out."""
    PREPARING = "preparing"
    """Until the engine says that it can complete."""
    WAITING = "waiting"
    """Until the author has not typed for long enough; the prompt may be computed meanwhile."""
    STREAMING = "streaming"
    """Until there is enough text."""
    SAMPLING = "sampling"
    """Until there is enough text of the alternatives."""
    DONE = "done"
    """Until the reply is out."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What of the life of a request can be set."""

    debounce: bool = True
    speculate: bool = True
    """Whether the engine works ahead in the background."""
    prime: bool = True
    """Whether the engine can be asked for a prompt's keys and values alone."""
    min_confidence: int = 0
    """Least mean probability of the tokens of what an automatic request shows, in per cent."""

    def is_unsure(self, logprob: float | None) -> bool:
        """Whether a mean log-probability is below what an automatic request shows."""
        return logprob is not None and 100 * exp(logprob) < self.min_confidence


@dataclass(slots=True)
class Counts:
    """How requests were served, since the start."""

    asked: int = 0
    reused: int = 0
    attached: int = 0
    completed: int = 0
    sampled: int = 0
    primed: int = 0
    generated: int = 0


@dataclass(slots=True)
class Request:
    """One that is not over: its reply is not out, or its stream goes on for the next."""

    id: RequestId
    ask: Ask
    since: float
    stage: Stage = Stage.QUEUED
    outcome: Outcome | None = None
    """What it was answered. It may go on without a reply to make, when its patience was at an end."""
    replied: bool = False
    retried: bool = False
    stream: StreamId | None = None
    first: Outcome | None = None
    """What was found before alternatives are asked for."""
