"""The process that started us, by the id that its `initialize` gives: when it ends, so do we.

An editor that dies closes our standard input, which is the usual sign; but a child process of the editor may hold it open.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

_POLL_SECONDS = 5.0


class Parent:
    """Watches one process. One that cannot be seen at all (another container, another machine) is not watched."""

    def __init__(self, pid: Any, on_end: Callable[[], None]) -> None:
        self._handle: int | None = None
        self._poll: asyncio.TimerHandle | None = None
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        if type(pid) is not int or not 0 < pid < 2**31 or sys.platform == "win32":
            return
        if hasattr(os, "pidfd_open"):
            try:
                self._handle = os.pidfd_open(pid)
            except OSError:
                return
            self._loop.add_reader(self._handle, self._ended)
        elif _exists(pid):
            self._look(pid)

    def close(self) -> None:
        """Stop watching."""
        if self._handle is not None:
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self._handle = None
        if self._poll is not None:
            self._poll.cancel()

    def _ended(self) -> None:
        self.close()
        self._on_end()

    def _look(self, pid: int) -> None:
        if _exists(pid):
            self._poll = self._loop.call_later(_POLL_SECONDS, self._look, pid)
        else:
            self._ended()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
