"""Which form of instructions the model at hand follows: its engine says so, or its name tells."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from engine.errors import EngineLoading, StarfillError
from engine.instruct import Following, Form, following_of_id
from lsp_server.engines import Engine


@runtime_checkable
class Describing(Protocol):
    """An engine that can be asked which model it serves."""

    async def model(self) -> Mapping[str, Any]:
        """An entry of `/v1/models`; raises EngineUnavailable."""
        ...


class Model:
    """What is known of the model of one engine after another."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._known: Following | None = None
        self.id: str | None = None

    def known(self, engine: Engine) -> Following | None:
        """What it follows; None while its engine has not said so."""
        return self._known if self._engine is engine else None

    async def learn(self, engine: Engine, patience: float | None = None) -> Following | None:
        """As `ask`, but None where it cannot be known now, or within so many seconds."""
        try:
            async with asyncio.timeout(patience):
                return await self.ask(engine)
        except (StarfillError, TimeoutError):
            return None

    async def ask(self, engine: Engine) -> Following:
        """What it follows, asking its engine if that is not known yet; raises EngineUnavailable."""
        if (known := self.known(engine)) is not None:
            return known
        if not isinstance(engine, Describing):
            return Following()
        found = await engine.model()
        if _loading(found):
            raise EngineLoading("the engine is loading its model")
        self._engine, self._known, self.id = engine, following_by(found), _text(found.get("id"))
        return self._known


def following_by(model: Mapping[str, Any]) -> Following:
    """By an entry of `/v1/models`."""
    ours = model.get("starfill")
    if isinstance(ours, Mapping):
        form = ours.get("instruct")
        return Following(Form(form) if form in tuple(Form) else None, _text(ours.get("terms")))
    return following_of_id(_text(model.get("id")) or "")


def _loading(model: Mapping[str, Any]) -> bool:
    return model.get("owned_by") == "starfill" and "starfill" not in model


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
