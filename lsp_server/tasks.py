"""Tasks that somebody started and has to end, on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """Those of one owner that are under way."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have it run until it ends or is stopped."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def stop(self, task: asyncio.Task[None]) -> None:
        """Cancel one, soon. It may be the one that says so."""
        if task is asyncio.current_task():
            task.cancel()
        else:
            # It may wait for its connection. The HTTP library sets the future that it waits with as soon as there is
            # something to read, cancelled or not, and fails in the latter case; a turn of the loop does that before timers.
            asyncio.get_running_loop().call_later(0, task.cancel)

    def let_go(self, task: asyncio.Task[None]) -> None:
        """It ends by itself now, and nobody waits for that."""
        self._running.discard(task)

    async def aclose(self) -> None:
        """Cancel all, and wait for their ends."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
