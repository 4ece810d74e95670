"""Standard input and output on the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import selectors
import sys
from collections.abc import Callable
from typing import Any, Protocol

log = logging.getLogger(__name__)

MAX_UNREAD = 64 * 2**20
"""Bytes that a client may leave unread; one that leaves more is given up."""


class Channel(Protocol):
    """What the main loop reads from, and what pygls writes to."""

    async def read(self) -> bytes:
        """What has arrived; empty at the end."""
        ...

    def write(self, data: bytes) -> None:
        """Queue bytes. Never waits."""
        ...

    def close(self) -> None:
        """pygls may call this; it ends nothing."""
        ...

    def hang_up(self) -> None:
        """Read no more: what has arrived still comes, then the end."""
        ...

    async def flush(self, timeout: float = 2.0) -> None:
        """Wait until the client has read what was written, but not for ever."""
        ...


class Pipes:
    """Implements `Channel`. A client that does not read cannot block us: what it leaves waits in memory, up to a limit.

    Whatever else prints to standard output goes to standard error from here on.
    """

    def __init__(self, max_unread: int = MAX_UNREAD) -> None:
        self._max_unread = max_unread
        self._reader = asyncio.StreamReader(limit=2**20)
        self._in: asyncio.ReadTransport | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._out: Any = None

    async def open(self) -> None:
        """Take both over. Files and /dev/null, which no event loop can wait for, are read and written directly."""
        loop = asyncio.get_running_loop()
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        if _pollable(sys.stdin.fileno(), selectors.EVENT_READ):
            protocol = asyncio.StreamReaderProtocol(self._reader)
            self._in, _ = await loop.connect_read_pipe(lambda: protocol, sys.stdin.buffer)
        else:
            self._reader.feed_data(await asyncio.to_thread(sys.stdin.buffer.read))
            self._reader.feed_eof()
        if _pollable(self._out.fileno(), selectors.EVENT_WRITE):
            self._transport, _ = await loop.connect_write_pipe(lambda: _Output(self.hang_up), self._out)

    async def read(self) -> bytes:
        """See `Channel`."""
        return await self._reader.read(2**16)

    def write(self, data: bytes) -> None:
        """See `Channel`."""
        if self._transport is None:
            self._out.write(data)
        elif not self._transport.is_closing():
            self._transport.write(data)
            if self.unread > self._max_unread:
                log.error("the editor has left %d bytes unread: the session ends", self._max_unread)
                self._transport.abort()

    @property
    def unread(self) -> int:
        """Bytes that wait for the client."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def close(self) -> None:
        """See `Channel`; the pipes live as long as the process."""

    def hang_up(self) -> None:
        """See `Channel`."""
        if self._in is not None:
            self._in.close()

    async def flush(self, timeout: float = 2.0) -> None:
        """See `Channel`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        # Transports do not tell when they are empty.
        while self.unread and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class _Output(asyncio.Protocol):
    """Notices when nobody can read what we write any more."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        """The client closed its end, or was given up."""
        self._on_lost()


def _pollable(descriptor: int, event: int) -> bool:
    """Whether an event loop can wait for a descriptor: pipes, sockets and terminals yes, files and /dev/null no."""
    with selectors.DefaultSelector() as selector:
        try:
            selector.register(descriptor, event)
        except (OSError, ValueError):
            return False
    return True
