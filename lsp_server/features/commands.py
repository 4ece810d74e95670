"""`workspace/executeCommand`, and the notifications that tell what became of an offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lsp_server.features.acceptance import Acceptance
from lsp_server.features.confidence import Confidence
from lsp_server.features.offers import Offers
from lsp_server.features.status import Status


class Commands:
    """One session's. What a client sends that makes no sense is left alone: nothing hangs on it."""

    def __init__(
        self,
        offers: Offers,
        acceptance: Acceptance,
        confidence: Confidence,
        status: Status,
        facts: Callable[[], Mapping[str, Any]],
    ) -> None:
        """`facts`: what else the status command says."""
        self._offers = offers
        self._acceptance = acceptance
        self._confidence = confidence
        self._status = status
        self._facts = facts

    def accept(self, identifier: Any) -> None:
        """An offer was accepted."""
        if (offer := self._offers.get(identifier)) is not None:
            self._acceptance.accepted(offer)

    def did_show(self, params: Any) -> None:
        """`{item}` is being shown."""
        if (offer := self._offers.of_item(_field(params, "item"))) is not None:
            self._acceptance.shown(offer)

    def did_partially_accept(self, params: Any) -> None:
        """`{item, acceptedLength}`: so many UTF-16 code units of its text have been accepted by now."""
        length = _field(params, "acceptedLength")
        offer = self._offers.of_item(_field(params, "item"))
        if offer is not None and isinstance(length, int) and not isinstance(length, bool):
            self._acceptance.partially(offer, length)

    def status(self) -> dict[str, Any]:
        """How the engine is, what the last requests came to, and counts."""
        return {**self._status.account(), **self._facts()}

    def statistics(self) -> dict[str, Any]:
        """How much was accepted, by language."""
        return {"languages": self._acceptance.summary(), "confidence": self._confidence.summary()}

    def reset_statistics(self) -> None:
        """Forget what was counted, and what was learned from it."""
        self._acceptance.reset()
        self._confidence.reset()


def _field(params: Any, name: str) -> Any:
    return params.get(name) if isinstance(params, Mapping) else None
