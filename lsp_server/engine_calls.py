"""What one `life.Life` has under way at the engine: waits for it to get ready, and calls; a task each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from lsp_server.state.ask import RequestId
from lsp_server.state.call import Call, StreamId
from lsp_server.state.events import Arrived, Event, Over, Ready
from lsp_server.tasks import Tasks
from lsp_server.wire import Wire

if TYPE_CHECKING:
    from lsp_server.engines import Engine, Progress


class EngineCalls:
    """`feed` hears Ready once for each wait that is not released; Arrived, and in the end Over, for each call."""

    def __init__(
        self, engine: Engine, wire: Wire, tasks: Tasks, feed: Callable[[Event], None], progress: Progress | None
    ) -> None:
        self.engine = engine
        """Which one is asked from now on."""
        self._wire = wire
        self._tasks = tasks
        self._feed = feed
        self._progress = progress
        self._waits: dict[RequestId, asyncio.Task[None]] = {}
        self._streams: dict[StreamId, asyncio.Task[None]] = {}

    def prepare(self, request: RequestId, *, invoked: bool) -> None:
        """See that the engine can complete."""
        self._waits[request] = self._tasks.start(self._wait(request, invoked))

    def release(self, request: RequestId) -> None:
        """Nobody waits for that any more."""
        if (task := self._waits.pop(request, None)) is not None:
            self._tasks.stop(task)

    def open(self, stream: StreamId, call: Call) -> None:
        """Ask the engine."""
        task = self._streams[stream] = self._tasks.start(self._listen(stream, call))
        task.add_done_callback(partial(self._over, stream))

    def close(self, stream: StreamId) -> None:
        """Stop a call, and with it the model."""
        if (task := self._streams.get(stream)) is not None:
            self._tasks.stop(task)

    def stop(self) -> None:
        """All of it."""
        for task in (*self._waits.values(), *self._streams.values()):
            self._tasks.stop(task)

    async def _wait(self, request: RequestId, invoked: bool) -> None:
        error: Exception | None = None
        try:
            await self.engine.ready(invoked=invoked, progress=self._progress)
        except Exception as failure:  # noqa: BLE001 (whatever it is, the request that waits for it gets to know)
            error = failure
        self._waits.pop(request, None)
        self._feed(Ready(request, error))

    async def _listen(self, stream: StreamId, call: Call) -> None:
        async with self.engine.complete(self._wire.encode(call)) as chunks:
            async for chunk in chunks:
                self._feed(Arrived(stream, chunk))
            self._tasks.let_go(self._streams.pop(stream))  # it closes its connection by itself now

    def _over(self, stream: StreamId, task: asyncio.Task[None]) -> None:
        self._streams.pop(stream, None)
        error = None if task.cancelled() else task.exception()
        self._feed(Over(stream, error if isinstance(error, Exception) else None))
