"""Find, start and watch the engine that all language servers of this user share. No torch.

However many start at once, a lock lets one of them start the process; it outlives them all and leaves when idle. Versions
only go up: a newer starfill drains an older engine and takes its place, an older one works with the newer that it finds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from engine import registry, starting
from engine.client import Chunk, EngineClient, window_of
from engine.errors import (
    EngineAbsent,
    EngineHung,
    EngineLoading,
    EngineRefused,
    EngineSilent,
    EngineUnavailable,
    StarfillError,
)
from engine.incumbent import Incumbent
from engine.liveness import Liveness, Patience
from engine.starting import Command, EngineOptions, EngineProcess, engine_command, stop

if TYPE_CHECKING:
    from engine.api import CompletionRequest

__all__ = ["EngineOptions", "SharedEngine", "stop"]

log = logging.getLogger(__name__)

Progress = Callable[[str], None]

READY, FAILED = "ready", "failed"
"""The last stage of a start: one of these is always told."""

_STEADY_SECONDS = 60.0
"""An engine that lived so long did not fail at its start: back-off begins anew."""

_LONGEST_BACKOFF = 60.0
_REAP_SECONDS = 1.0  # from the end of a process's connections to its own
_POLL_SECONDS = (0.02, 0.25)  # from, to: growing while nothing happens


class SharedEngine:
    """The engine behind a language server, started when first needed. Use from one event loop."""

    primes = True
    """It computes a prompt's keys and values alone when asked for no token."""

    def __init__(
        self, options: EngineOptions, *, command: Command = engine_command, patience: Patience | None = None
    ) -> None:
        self._options = options
        self._command = command
        self._patience = patience or Patience()
        self._socket = registry.socket_path(registry.engine_key(options.source))
        self.client = EngineClient(f"unix:{self._socket}")
        self.notice: str | None = None
        """In words, which of our options are not in effect, because the engine ran already."""
        self.window: int | None = None
        """Tokens of its model's window, once it has said so."""
        self._incumbent = Incumbent(self.client, self._socket, self._patience)
        self._liveness = Liveness(self.client.health, self._replace_hung, self._patience)
        self._starting: asyncio.Task[None] | None = None
        self._process: EngineProcess | None = None
        self._listeners: list[Progress] = []
        self._stage: str | None = None
        self._serving: registry.EngineRecord | None = None
        self._ready_at = 0.0
        self._failures = 0
        self._retry_at = 0.0
        self._telling: set[asyncio.Task[None]] = set()

    async def ready(self, *, invoked: bool, progress: Progress | None = None) -> None:
        """Return once the engine can complete; at once if it could when last heard of.

        An invoked request waits while it starts and loads, whatever happened before; an automatic one raises
        EngineLoading, and after crashes waits its turn. Raises EngineUnavailable with the reason when it cannot start.
        `progress` hears of the stages, the present one first.
        """
        if self._serving is not None:
            return
        if not invoked and time.monotonic() < self._retry_at and await self._incumbent.state() != "ready":
            raise EngineUnavailable("the engine failed; it is tried again in a moment")
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(_swallow)
            await asyncio.sleep(0)
        if self._stage is None and self._socket.exists():
            # One that runs already is found in a moment: no need to answer that it is loading.
            await asyncio.wait({self._starting}, timeout=self._patience.ask)
        if not invoked and not self._starting.done():
            raise EngineLoading("the engine is loading its model")
        if progress is not None and not self._starting.done():
            self._listeners.append(progress)
            if self._stage is not None:
                progress(self._stage)
        await asyncio.shield(self._starting)

    @asynccontextmanager
    async def complete(self, request: CompletionRequest | bytes) -> AsyncIterator[AsyncIterator[Chunk]]:
        """Stream a completion; leaving the block stops the model. Raises EngineHung when the engine stops answering."""
        try:
            async with self._liveness.watched(), self.client.complete(request, watched=True) as chunks:
                yield self._liveness.listening(chunks)
        except (EngineAbsent, EngineRefused):
            self._serving = None  # it left, or says no: nothing died, but look again before the next request
            raise
        except EngineUnavailable:
            self._lost()
            raise

    async def model(self) -> dict[str, Any]:
        """What the engine says of its model."""
        return await self.client.model()

    def not_shown(self, answer: str, reason: str) -> None:
        """Let `starfill top` say why nothing was shown of the answer with that id. Returns at once."""
        task = asyncio.create_task(self.client.not_shown(answer, reason))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def aclose(self) -> None:
        """Let go of the engine, which goes on."""
        tasks = [task for task in (self._starting, *self._telling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # how a start ended is told to those who waited for it
        await self._liveness.aclose()
        await self.client.aclose()

    # -- starting ----------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._process = None  # of the start before
        try:
            await self._find_or_spawn()
            await self._loaded()
            self._serving = self._incumbent.record() or _NOBODY
            self._ready_at = time.monotonic()
            await self._join()
            self._tell(READY)
        except BaseException as error:
            self._tell(FAILED)
            if isinstance(error, Exception):
                self._serving = None
                self._back_off()
            if isinstance(error, OSError | StarfillError) and not isinstance(error, EngineUnavailable):
                raise starting.not_started(error) from error
            raise
        finally:
            self._listeners.clear()
            self._stage = None

    async def _find_or_spawn(self) -> None:
        lock = registry.start_lock(self._socket)
        until = time.monotonic() + self._patience.start + self._patience.leave
        polls = _Polls()
        while not lock.try_acquire():  # somebody else is at it: what they start is ours too
            if await self._incumbent.state() in ("ready", "loading"):
                return
            if time.monotonic() > until:
                raise lock.refusal(self._patience.start + self._patience.leave)
            await polls.pause()
        try:
            state = await self._incumbent.state()
            if state == "silent":
                state = await self._incumbent.wake_or_kill()
            if state in ("outdated", "draining", "failed"):
                self._tell("replacing an older engine" if state == "outdated" else "starting")
                await self._incumbent.see_off(leave=state == "outdated")
                state = "absent"
            if state == "absent":
                # One that finishes its last requests still has the device's memory.
                await self._incumbent.see_off(leave=False)
                self._tell("starting")
                await self._spawn()
        finally:
            lock.release()

    async def _spawn(self) -> None:
        until = time.monotonic() + self._patience.start
        log_file, errors = starting.log_files(self._socket.stem)
        command = self._command(self._options, self._socket, log_file)
        self._process = process = await asyncio.to_thread(EngineProcess, command, errors)
        polls = _Polls()
        while await self._incumbent.state() == "absent":
            if process.ended:
                raise starting.not_started(process.last_words())
            if time.monotonic() > until:
                raise self._too_long()
            await polls.pause()

    async def _loaded(self) -> None:
        until = time.monotonic() + self._patience.load
        polls = _Polls()
        while True:
            present = self._incumbent.record()
            try:
                health = await self.client.health(timeout=self._patience.loading)
            except EngineSilent:
                await self._incumbent.end(present)
                raise EngineHung("the engine hung while it loaded; it is started again with the next request") from None
            except EngineUnavailable:
                raise EngineUnavailable(f"the engine stopped: {await self._last_words()}") from None
            if health.get("status") == "ready":
                self.window = window_of(health)
                return
            if health.get("status") == "failed":
                raise EngineUnavailable(str(health.get("error")))
            if time.monotonic() > until:
                raise self._too_long()
            if self._stage != "loading":  # said only where it is so: who has to wait for that is told, or sent away
                self._tell("loading")
            await polls.pause()

    async def _last_words(self) -> str:
        """How the engine ended that was loading: by what its process came to, if we have started it ourselves."""
        process = self._process
        if process is not None and await asyncio.to_thread(process.ended_within, _REAP_SECONDS):
            return process.last_words()
        return starting.last_words(starting.log_files(self._socket.stem)[1])

    async def _join(self) -> None:
        """Hear what became of our options, if we had any."""
        self.notice = None
        if self._options.flags:
            self.notice = await self.client.join(self._options.flags)
        if self.notice is not None:
            log.warning("%s", self.notice)
            self._tell(self.notice)

    # -- losing ------------------------------------------------------------------------------------------------------

    def _lost(self) -> None:
        """It died, left or hung: look for it with the next request, later and later if it keeps dying young."""
        if self._serving is None:
            return
        self._serving = None
        if time.monotonic() - self._ready_at < _STEADY_SECONDS:
            self._back_off()
        else:
            self._failures = 0

    def _back_off(self) -> None:
        self._failures += 1
        self._retry_at = time.monotonic() + min(_LONGEST_BACKOFF, 2.0 ** (self._failures - 1))

    async def _replace_hung(self) -> None:
        hung = self._serving
        self._lost()
        await self._incumbent.end(hung)

    def _tell(self, stage: str) -> None:
        self._stage = stage
        for listener in self._listeners:
            listener(stage)

    def _too_long(self) -> EngineUnavailable:
        return EngineUnavailable(
            f"the engine for {self._options.source.id} took too long to start; see starfill doctor"
        )


_NOBODY = registry.EngineRecord(0, 0.0, "", "", "", "", "", "")
"""Stands for an engine without a record: it serves, but it is not ours to end."""


class _Polls:
    """Pauses between polls: short at first, longer while nothing happens."""

    def __init__(self) -> None:
        self._next, self._longest = _POLL_SECONDS

    async def pause(self) -> None:
        await asyncio.sleep(self._next)
        self._next = min(self._longest, 1.5 * self._next)


def _swallow(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # seen here, so that asyncio does not log what the next request reports anyway
