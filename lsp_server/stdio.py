"""The main loop: bytes from the editor through the gate to pygls, and back."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lsprotocol.types import CANCEL_REQUEST
from pygls.exceptions import JsonRpcException

from lsp_server.gate import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    Framer,
    Refusal,
    failed_reply,
)
from lsp_server.parent import Parent
from lsp_server.pipes import Channel, Pipes
from lsp_server.server import StarfillServer
from lsp_server.settings import LiveSettings

log = logging.getLogger(__name__)

_LAST_TURNS = 5
"""Turns of the loop in which what was under way at the end gets its reply."""


async def run_stdio(settings: LiveSettings) -> int:
    """Serve one editor over standard input and output until it says exit or goes away -> exit code."""
    asyncio.get_running_loop().set_exception_handler(_log_kind)
    pipes = Pipes()
    await pipes.open()
    # Some editors leave no time for a goodbye: what was counted is kept all the same.
    for name in ("SIGTERM", "SIGHUP"):
        with suppress(AttributeError, NotImplementedError):  # as on Windows
            asyncio.get_running_loop().add_signal_handler(getattr(signal, name), pipes.hang_up)
    return await serve(StarfillServer(settings), pipes)


async def serve(server: StarfillServer, channel: Channel) -> int:
    """Serve one editor over a channel until it says exit (-> 0 after shutdown, else 1) or hangs up (-> 0)."""
    framer, dispatcher = Framer(), _Dispatcher(server, channel)
    try:
        while data := await channel.read():
            server.latency.read()
            for body in framer.feed(data):
                if isinstance(body, Refusal):
                    channel.write(body.encoded())
                    continue
                if dispatcher.receive(body):
                    return dispatcher.status
                await asyncio.sleep(0)  # a handler takes its look at the text before the next edit is read
        return dispatcher.status if dispatcher.orphaned else 0
    finally:
        dispatcher.close()
        await server.aclose()
        for _ in range(_LAST_TURNS):
            await asyncio.sleep(0)
        await channel.flush()


class _Timed:
    """What pygls writes to."""

    def __init__(self, channel: Channel, written: Callable[[], None]) -> None:
        """`written` hears of it just before the channel does."""
        self._channel = channel
        self._written = written

    def write(self, data: bytes) -> None:
        """Queue bytes. Never waits."""
        self._written()
        self._channel.write(data)

    def close(self) -> None:
        """pygls may call this; it ends nothing."""


class _Dispatcher:
    """Takes messages one by one: refuses, passes on, watches the editor's process."""

    def __init__(self, server: StarfillServer, channel: Channel) -> None:
        self._protocol = server.protocol
        self._ledger = server.protocol.ledger
        self._channel = channel
        self._parent: Parent | None = None
        self.orphaned = False
        self._protocol.set_writer(_Timed(channel, server.latency.written))

    @property
    def status(self) -> int:
        """The exit code that the protocol asks for at this point."""
        return 0 if self._ledger.shut_down else 1

    def receive(self, body: bytes) -> bool:
        """Deal with one message -> whether it says that the session is over. Never raises."""
        message = self._ledger.admit(body)
        if isinstance(message, Refusal):
            self._channel.write(message.encoded())
        elif message is not None:
            if message.get("method") == "exit" and "id" not in message:
                return True
            self._dispatch(message)
            if message.get("method") == "initialize" and self._ledger.initialized and self._parent is None:
                self._parent = Parent((message["params"] or {}).get("processId"), self._orphan)
        return False

    def close(self) -> None:
        """Let go of the editor's process."""
        if self._parent is not None:
            self._parent.close()

    def _orphan(self) -> None:
        self.orphaned = True
        self._channel.hang_up()

    def _dispatch(self, message: dict[str, Any]) -> None:
        method = message.get("method")
        if method is not None and not self._serves(method):
            self._refuse(message, METHOD_NOT_FOUND, "this server has no such method")
            return
        try:
            structured = self._protocol.structure_message(message)
        except JsonRpcException:
            if method is not None:
                self._refuse(message, INVALID_PARAMS, f"the params of {method} are not as specified")
                return
            structured = self._protocol.structure_message(failed_reply(message["id"]))
        if "id" in message and not hasattr(structured, "id"):
            self._refuse(message, METHOD_NOT_FOUND, f"{method} is a notification and has no reply")
            return
        try:
            self._protocol.handle_message(structured)
        except Exception as error:  # noqa: BLE001 - whatever it is, the session goes on
            log.error("a message could not be handled: %s", type(error).__name__)
            self._refuse(message, INTERNAL_ERROR, "this server failed")

    def _serves(self, method: str) -> bool:
        features = self._protocol.fm
        return method in features.features or method in features.builtin_features or method == CANCEL_REQUEST

    def _refuse(self, message: dict[str, Any], code: int, reason: str) -> None:
        """Answer a request with an error; a notification has no answer."""
        if "method" in message and "id" in message and self._ledger.settle(message["id"], failed=True):
            self._channel.write(Refusal(message["id"], code, reason).encoded())


def _log_kind(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio would log of a task that failed may hold user text: the kind alone."""
    log.error("a task failed: %s", type(context.get("exception")).__name__)
