"""Beside the requests that wait: does the engine still say anything? It cannot tell us itself when it is stopped or hangs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from engine.client import Chunk
from engine.errors import EngineHung, EngineSilent, EngineUnavailable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds without a sign of life: until we ask for one, and until we give the engine up."""

    ask: float = 1.0
    give_up: float = 10.0
    loading: float = 60.0
    """In place of `give_up` while a model loads: imports may hold the interpreter for long."""
    start: float = 60.0
    """Until a started process answers at all."""
    load: float = 120.0
    """Until an invoked request has waited long enough for a model to load."""
    leave: float = 15.0
    """Until an engine that was asked to leave is ended by force; more than it takes to drain."""


class Liveness:
    """Watches one engine while somebody waits for it. Use from one event loop."""

    def __init__(
        self, probe: Callable[[float], Awaitable[object]], on_hang: Callable[[], Awaitable[None]], patience: Patience
    ) -> None:
        self._probe = probe
        self._on_hang = on_hang
        self._patience = patience
        self._waiting: set[asyncio.Timeout] = set()
        self._watch: asyncio.Task[None] | None = None
        self._heard = 0.0

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Raises EngineHung inside the block, wherever it waits, when the engine gives no sign of life."""
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._enter(limit)
                try:
                    yield
                finally:
                    self._waiting.discard(limit)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise EngineHung("the engine hung and is started again with the next request") from error

    async def listening(self, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
        """The same pieces; each is a sign of life."""
        async for chunk in chunks:
            self._heard = asyncio.get_running_loop().time()
            yield chunk

    async def aclose(self) -> None:
        """Watch no more."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    def _enter(self, limit: asyncio.Timeout) -> None:
        if not self._waiting:
            self._heard = asyncio.get_running_loop().time()
        self._waiting.add(limit)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look())

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            silent = loop.time() - self._heard
            if silent < self._patience.ask:
                await asyncio.sleep(self._patience.ask - silent)
                continue
            try:
                await self._probe(max(0.05, self._patience.give_up - silent))
            except EngineSilent:
                await self._hung()
                return
            except EngineUnavailable:
                # It died, and whoever waits hears that from the connection. Or it drains, or broke off this question alone.
                if silent > self._patience.leave:
                    await self._hung()
                    return
                await asyncio.sleep(self._patience.ask)
                continue
            self._heard = loop.time()

    async def _hung(self) -> None:
        log.warning("the engine gave no sign of life for %g s", self._patience.give_up)
        for limit in self._waiting:
            with suppress(RuntimeError):  # it has just ended
                limit.reschedule(asyncio.get_running_loop().time())
        await self._on_hang()
