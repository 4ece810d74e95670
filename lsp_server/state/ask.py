"""A request for a completion, as the state machine is given it. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from lsp_server.window import Window

RequestId = int


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
