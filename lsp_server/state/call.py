"""What the engine is asked. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lsp_server.state.ask import Surroundings
from lsp_server.window import Window

StreamId = int


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
