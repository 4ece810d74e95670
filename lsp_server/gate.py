"""What stands before pygls: framing and its limits, the ledger of request ids, one reply each, raw params, the write queue.

Holds no document state and decides nothing about completions.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import selectors
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

log = logging.getLogger(__name__)

MAX_MESSAGE = 64 * 2**20
"""Bytes of one message; a larger one is refused and skipped."""

PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS, NOT_INITIALIZED = -32700, -32600, -32602, -32002

_LENGTH = re.compile(rb"content-length:[ \t]*(\d{1,20})[ \t]*\r?\n", re.IGNORECASE)
_HEADER_LINES = re.compile(rb"(?:[\w-]+:[^\n]*\n)*")
_HEADERS_END = re.compile(rb"\r?\n\r?\n")
_MAX_HEADERS = 4_096
_JUNK = "no message: headers with a Content-Length are expected"

RequestId = int | str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that the gate answers by itself. `id` is None when the message had none that could be read."""

    id: RequestId | None
    code: int
    message: str


class Framer:
    """Bytes to message bodies. After junk, refused once, it finds the next header by itself."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._length: int | None = None
        self._refused = False  # what is skipped now was refused already

    def feed(self, data: bytes) -> Iterator[bytes | Refusal]:
        """Bodies that are complete now, and a Refusal for each stretch of what cannot be one."""
        self._data += data
        while True:
            if self._length is None and not (yield from self._header()):
                return
            if self._length is None:
                continue
            if len(self._data) < self._length:
                return
            body = bytes(self._data[: self._length])
            del self._data[: self._length]
            self._length = None
            yield body

    def _header(self) -> Generator[Refusal, None, bool]:
        """Take one header block, or junk, off the data -> (through `yield from`) whether there was one."""
        match = _LENGTH.search(self._data)
        end = _HEADERS_END.search(self._data, match.end() - 2 if match else 0)
        if match is None or end is None:
            if match is None and end is not None:
                yield from self._skip(end.end(), _JUNK)
                return True
            start = match.start() if match is not None else 0
            if len(self._data) - start <= _MAX_HEADERS:
                return False
            # Junk, but for what may be the start of a header.
            yield from self._skip(match.end() if match is not None else len(self._data) - 64, _JUNK)
            return match is not None
        if not _HEADER_LINES.fullmatch(self._data, 0, match.start()):
            yield from self._skip(0, _JUNK)
        length = int(match[1])
        if length > MAX_MESSAGE:
            yield from self._skip(end.end(), f"a message may have {MAX_MESSAGE} bytes", INVALID_REQUEST)
        else:
            del self._data[: end.end()]
            self._length, self._refused = length, False
        return True

    def _skip(self, count: int, reason: str, code: int = PARSE_ERROR) -> Iterator[Refusal]:
        del self._data[:count]
        if not self._refused:
            self._refused = True
            yield Refusal(None, code, reason)


@dataclass(slots=True)
class Ledger:
    """Which requests are open. Every id that passes gets exactly one reply."""

    initialized: bool = False
    shut_down: bool = False
    _open: dict[RequestId, Any] = field(default_factory=dict)

    def admit(self, body: bytes) -> dict[str, Any] | Refusal | None:
        """A message that may go on to pygls, an error to answer, or None for what is to be ignored."""
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            return Refusal(None, PARSE_ERROR, "not JSON")
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            return Refusal(_id_of(message), INVALID_REQUEST, "not a JSON-RPC 2.0 message")
        if "method" not in message:
            return self._admit_reply(message)
        method, request_id = message["method"], _id_of(message)
        if not isinstance(method, str) or ("id" in message and request_id is None):
            return Refusal(request_id, INVALID_REQUEST, "method must be a string and id a string or a number")
        if "params" in message and not isinstance(message["params"], dict | list | None):
            return Refusal(request_id, INVALID_REQUEST, "params must be an object") if request_id is not None else None
        message.setdefault("params", None)
        if request_id is None:
            return message if method == "exit" or (self.initialized and not self.shut_down) else None
        return self._admit_request(message, method, request_id)

    def _admit_request(self, message: dict[str, Any], method: str, request_id: RequestId) -> dict[str, Any] | Refusal:
        if request_id in self._open:
            return Refusal(request_id, INVALID_REQUEST, "this id belongs to a request that is still open")
        if self.shut_down:
            return Refusal(request_id, INVALID_REQUEST, "the server was shut down")
        if method == "initialize":
            if self.initialized:
                return Refusal(request_id, INVALID_REQUEST, "initialize may be sent once")
            self.initialized = True
        elif not self.initialized:
            return Refusal(request_id, NOT_INITIALIZED, "initialize first")
        if method in _POSITIONED and not _has_position(message["params"]):
            return Refusal(request_id, INVALID_PARAMS, "params need textDocument.uri and a position in whole numbers")
        self.shut_down = method == "shutdown"
        self._open[request_id] = message["params"]
        return message

    def _admit_reply(self, message: dict[str, Any]) -> dict[str, Any] | Refusal | None:
        """A client's answer to a request of ours."""
        request_id = _id_of(message)
        if "result" in message or "error" in message:
            return message if request_id is not None else None
        return Refusal(request_id, INVALID_REQUEST, "neither a request nor a reply")

    def params(self, request_id: RequestId | None) -> dict[str, Any]:
        """An open request's params as the client sent them, with the fields that typed ones drop."""
        params = self._open.get(request_id) if request_id is not None else None
        return params if isinstance(params, dict) else {}

    def settle(self, request_id: RequestId) -> bool:
        """A reply is about to be written -> whether it is the first one for an open request."""
        if request_id not in self._open:
            log.error("a second reply to one request was held back")
            return False
        del self._open[request_id]
        return True


_POSITIONED = frozenset({"textDocument/inlineCompletion", "textDocument/completion"})


def _has_position(params: Any) -> bool:
    if not isinstance(params, dict):
        return False
    document, position = params.get("textDocument"), params.get("position")
    if not isinstance(document, dict) or not isinstance(document.get("uri"), str) or not isinstance(position, dict):
        return False
    numbers = (position.get("line"), position.get("character"))
    return all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**31 for n in numbers)


def _id_of(message: Any) -> RequestId | None:
    value = message.get("id") if isinstance(message, dict) else None
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def encode(message: dict[str, Any]) -> bytes:
    """A message with its header."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


class Writer(Protocol):
    """What pygls writes to."""

    def write(self, data: bytes) -> None:
        """Queue bytes."""
        ...

    def close(self) -> None:
        """No more."""
        ...


class Pipes:
    """Standard input and output on the event loop: a client that does not read cannot block us.

    Whatever else prints to standard output goes to standard error from here on.
    """

    def __init__(self) -> None:
        self._reader = asyncio.StreamReader(limit=2**20)
        self._transport: asyncio.WriteTransport | None = None
        self._out: Any = None

    async def open(self) -> None:
        """Take both over. Files and /dev/null, which no event loop can wait for, are read and written directly."""
        loop = asyncio.get_running_loop()
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        if _pollable(sys.stdin.fileno(), selectors.EVENT_READ):
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._reader), sys.stdin.buffer)
        else:
            self._reader.feed_data(await asyncio.to_thread(sys.stdin.buffer.read))
            self._reader.feed_eof()
        if _pollable(self._out.fileno(), selectors.EVENT_WRITE):
            self._transport, _ = await loop.connect_write_pipe(asyncio.Protocol, self._out)

    async def read(self) -> bytes:
        """What has arrived; empty at the end."""
        return await self._reader.read(2**16)

    def write(self, data: bytes) -> None:
        """Queue bytes for the client."""
        if self._transport is not None:
            self._transport.write(data)
        else:
            self._out.write(data)

    def close(self) -> None:
        """See `Writer`; the pipes live as long as the process."""

    async def flush(self, timeout: float = 2.0) -> None:
        """Wait until the client has read what was written, but not for ever."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        # Transports do not tell when they are empty.
        while self._transport is not None and self._transport.get_write_buffer_size() and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def _pollable(descriptor: int, event: int) -> bool:
    """Whether an event loop can wait for a descriptor: pipes, sockets and terminals yes, files and /dev/null no."""
    with selectors.DefaultSelector() as selector:
        try:
            selector.register(descriptor, event)
        except (OSError, ValueError):
            return False
    return True
