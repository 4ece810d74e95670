"""How a request ended. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lsp_server.attribution.origin import Origin
from lsp_server.reasons import Reason


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
