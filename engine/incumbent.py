"""Whoever holds an engine's socket at present: what they say of themselves, and their end. No torch."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from pathlib import Path

from engine import __version__, registry, starting
from engine.client import EngineClient
from engine.errors import EngineSilent, EngineUnavailable
from engine.liveness import Patience

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.02


class Incumbent:
    """The process at one socket, if there is any; another one after that has ended."""

    def __init__(self, client: EngineClient, socket: Path, patience: Patience) -> None:
        self._client = client
        self._socket = socket
        self._patience = patience

    def record(self) -> registry.EngineRecord | None:
        """What it wrote down of itself, if it did."""
        return registry.read_record(registry.record_path(self._socket))

    async def state(self) -> str:
        """What it says of itself, or outdated, silent or absent."""
        try:
            health = await self._client.health(timeout=self._patience.ask)
        except EngineSilent:
            return "silent"
        except EngineUnavailable:
            return "absent"
        return "outdated" if _older(str(health.get("version")), __version__) else str(health.get("status"))

    async def wake_or_kill(self) -> str:
        """Somebody listens and says nothing: give them time, then end them -> what the state is then."""
        record = self.record()
        loading = record is not None and not record.dtype
        until = time.monotonic() + (self._patience.loading if loading else self._patience.give_up)
        while (state := await self.state()) == "silent":
            if time.monotonic() > until:
                await self.kill(record)
                return "absent"
        return state

    async def see_off(self, *, leave: bool) -> None:
        """Wait until the present engine is gone, after asking it to leave if it does not know yet."""
        record = self.record()
        if record is None:
            return
        if leave:
            await asyncio.to_thread(starting.stop, record, self._patience.leave)
            return
        until = time.monotonic() + self._patience.leave
        while record.alive:
            if time.monotonic() > until:
                await self.kill(record)
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def kill(self, record: registry.EngineRecord | None) -> None:
        """End it by force; raises EngineUnavailable if that cannot be."""
        if record is None or not record.alive:
            if not registry.listens(self._socket):
                return
            raise EngineUnavailable(
                f"a process that is no engine of ours holds {self._socket} and says nothing; end it, or remove the file"
            )
        log.warning("the engine (pid %d) does not answer: ending it", record.pid)
        if not await asyncio.to_thread(starting.kill, record):
            raise EngineUnavailable(f"the engine (pid {record.pid}) hangs and cannot be ended; end it by hand")

    async def end(self, hung: registry.EngineRecord | None) -> None:
        """End the engine that we were talking to, unless somebody did so already."""
        with suppress(EngineUnavailable):
            async with registry.start_lock(self._socket).held_async(self._patience.leave):
                present = self.record()
                if hung is not None and present is not None and hung.process == present.process:
                    await self.kill(present)


def _older(theirs: str, ours: str) -> bool:
    def number(version: str) -> tuple[int, ...]:
        return tuple(int(part) for part in version.split(".") if part.isdecimal())

    return number(theirs) < number(ours)
