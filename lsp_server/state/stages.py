"""The stages of a request, and what is kept of one. Plain data of `life`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lsp_server.state.ask import Ask, RequestId
from lsp_server.state.call import StreamId
from lsp_server.state.outcome import Outcome


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
    due: float = 0.0
    """When the debounce ends, if it waits for that."""
    _waited: float = 0.0
    _waiting: float | None = None

    def wait(self, now: float) -> None:
        """From now on it waits for others: the engine, the author's next key."""
        self.go_on(now)
        self._waiting = now

    def go_on(self, now: float) -> None:
        """What it waited for has come."""
        self._waited, self._waiting = self.waited(now), None

    def waited(self, now: float) -> float:
        """Seconds that it has waited for others."""
        return self._waited + (0.0 if self._waiting is None else now - self._waiting)
