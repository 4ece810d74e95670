"""The language server without process and pipes: gate, loop and handlers on a channel in memory, with a scripted engine."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from engine.client import Chunk
from lsp_server.server import StarfillServer
from lsp_server.settings import LiveSettings
from lsp_server.stdio import serve

Message = dict[str, Any]

_FRAME = re.compile(rb"Content-Length: (\d+)\r\n(?:Content-Type: [^\r\n]+\r\n)?\r\n")


class MemoryChannel:
    """Implements `lsp_server.pipes.Channel`. `sent` has every message that the server wrote, in order."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.news = asyncio.Event()
        self._arrived = bytearray()
        self._ended = False
        self._arrival = asyncio.Event()

    def feed(self, data: bytes) -> None:
        """Bytes of the editor."""
        self._arrived += data
        self._arrival.set()

    @property
    def waiting(self) -> bool:
        """Whether the server has read all and waits for more."""
        return not self._arrived and not self._arrival.is_set()

    async def read(self) -> bytes:
        while not self._arrived and not self._ended:
            self._arrival.clear()
            await self._arrival.wait()
        data = bytes(self._arrived)
        self._arrived.clear()
        return data

    def write(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            header = _FRAME.match(data, at)
            assert header is not None, data[at : at + 80]
            body = data[header.end() : header.end() + int(header[1])]
            assert len(body) == int(header[1])
            self.sent.append(json.loads(body))
            at = header.end() + len(body)
        self.news.set()

    def close(self) -> None:
        """pygls may call it."""

    def hang_up(self) -> None:
        self._ended = True
        self._arrival.set()

    async def flush(self, timeout: float = 2.0) -> None:
        """Nothing waits here."""


class QuickEngine:
    """A `lsp_server.engines.Engine` that says `text` in two chunks to whatever it is asked; `on_call` hears each call."""

    primes = False
    window: int | None = None

    def __init__(self, text: str = "value + 1\n", on_call: Callable[[], None] | None = None) -> None:
        self.calls = 0
        self.open = 0
        self.logprob = -0.1
        """Of each of its tokens."""
        self._text = text
        self._on_call = on_call

    async def ready(self, *, invoked: bool, progress: Callable[[str], None] | None) -> None:
        """Always."""

    @asynccontextmanager
    async def complete(self, request: Any) -> AsyncIterator[AsyncIterator[Chunk]]:
        if self._on_call is not None:
            self._on_call()
        self.calls += 1
        self.open += 1
        try:
            yield self._chunks()
        finally:
            self.open -= 1

    async def _chunks(self) -> AsyncIterator[Chunk]:
        half = len(self._text) // 2
        await asyncio.sleep(0)
        yield Chunk(text=self._text[:half], logprobs=(self.logprob,))
        await asyncio.sleep(0)
        yield Chunk(text=self._text[half:], logprobs=(self.logprob,), finish_reason="stop")

    def not_shown(self, answer: str, reason: str) -> None:
        """Takes note of nothing."""

    async def aclose(self) -> None:
        """Nothing to close."""


def frame(message: Any) -> bytes:
    """A message as an editor sends it."""
    body = json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode()
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


class InsideSession:
    """One server on a wire in memory. `status` is its exit code once it has ended."""

    def __init__(self, engine: QuickEngine | None = None, settings: Mapping[str, Any] | None = None) -> None:
        self.engine = engine or QuickEngine()
        self.channel = MemoryChannel()
        self.server = StarfillServer(LiveSettings(settings or {}, time.monotonic), self.engine)
        self._task = asyncio.create_task(serve(self.server, self.channel))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.channel.hang_up()
        await asyncio.wait_for(self._task, 5)

    @property
    def ended(self) -> bool:
        """Whether the server has said goodbye."""
        return self._task.done()

    @property
    def status(self) -> int:
        """Its exit code."""
        return self._task.result()

    @property
    def idle(self) -> bool:
        """Whether the server has dealt with all that it was sent, but for requests that are under way."""
        return self.channel.waiting

    def text(self, uri: str) -> str | None:
        """What the server holds of a document, None if it holds none."""
        opened = self.server._opened
        document = None if opened is None else opened.documents.get(uri)
        return None if document is None else document.buffer.text

    def is_open(self, request_id: Any) -> bool:
        """Whether a request was let in and has no reply yet."""
        return self.server.protocol.ledger.is_open(request_id)

    async def settled(self, timeout: float = 5.0) -> None:
        """Wait until no request is open."""
        async with asyncio.timeout(timeout):
            while self.server.protocol.ledger.busy:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.001)

    def send(self, *messages: Message) -> None:
        """Several messages in one write."""
        self.channel.feed(b"".join(map(frame, messages)))

    def replies(self, request_id: Any) -> list[Message]:
        """All that was answered under an id, so far."""
        return [m for m in self.channel.sent if "method" not in m and m["id"] == request_id]

    async def reply(self, request_id: Any, timeout: float = 5.0) -> Message:
        """The first reply under an id."""
        async with asyncio.timeout(timeout):
            while not (found := self.replies(request_id)):
                self.channel.news.clear()
                await self.channel.news.wait()
        return found[0]

    async def ask(self, request_id: Any, method: str, params: Any = None) -> Message:
        """A request and its reply."""
        self.send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        return await self.reply(request_id)

    def tell(self, method: str, params: Any = None) -> None:
        """A notification."""
        self.send({"jsonrpc": "2.0", "method": method, "params": params})
