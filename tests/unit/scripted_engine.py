"""An engine that says what it was told to, on a clock that moves only when it speaks, and notes all that happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from engine.api import CompletionRequest, parse_completion
from engine.client import Chunk
from lsp_server.completer import Completer
from lsp_server.engines import Progress
from lsp_server.state.outcome import Outcome
from lsp_server.window import Window

WINDOW = Window("x = ", "\n")


class ScriptedEngine:
    """Implements `engines.Engine`. With `held`, streams stop before their last chunk until `release` is called."""

    primes = True
    window: int | None = None

    def __init__(
        self,
        *script: Chunk | Exception,
        held: bool = False,
        loading: Sequence[Exception] = (),
        turns_to_close: int = 0,
    ) -> None:
        self.now = 0.0
        self.events: list[str] = []
        self.requests: list[CompletionRequest] = []
        self.told: list[tuple[str, str]] = []
        self.open = 0
        self.most_open = 0
        self._script = script
        self._loading = list(loading)
        self._turns_to_close = turns_to_close
        self._released = asyncio.Event()
        if not held:
            self._released.set()

    def release(self) -> None:
        """Let held streams go on."""
        self._released.set()

    def clock(self) -> float:
        """Seconds."""
        return self.now

    async def ready(self, *, invoked: bool, progress: Progress | None) -> None:
        """Each call takes one of the errors that `loading` holds."""
        if progress is not None:
            progress("loading")
        if self._loading:
            raise self._loading.pop(0)

    @asynccontextmanager
    async def complete(self, request: CompletionRequest | bytes) -> AsyncIterator[AsyncIterator[Chunk]]:
        """A second for each chunk."""
        self.requests.append(parse_completion(request) if isinstance(request, bytes) else request)
        number = len(self.requests)
        self.events.append(f"open {number}")
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            yield self._chunks()
        finally:
            await asyncio.shield(self._close(number))  # as connections do: being cancelled again does not stop it

    def not_shown(self, answer: str, reason: str) -> None:
        """Noted in `told`."""
        self.told.append((answer, reason))

    async def aclose(self) -> None:
        """Nothing to close."""

    async def _close(self, number: int) -> None:
        await turns(self._turns_to_close)
        self.open -= 1
        self.events.append(f"close {number}")

    async def _chunks(self) -> AsyncIterator[Chunk]:
        for number, chunk in enumerate(self._script, 1):
            if number == len(self._script):
                await self._released.wait()
            await asyncio.sleep(0)
            self.now += 1.0
            if isinstance(chunk, Exception):
                raise chunk
            self.events.append(f"chunk {number}")
            yield chunk


class Caller:
    """Calls a completer, and notes each start and return among the engine's events."""

    def __init__(self, engine: ScriptedEngine, completer: Completer | None = None) -> None:
        self.engine = engine
        self.completer = completer or Completer(engine, 64, engine.clock)
        self.calls: list[asyncio.Task[Outcome]] = []

    def request(
        self, *, invoked: bool = True, window: Window | None = None, document: str = "a"
    ) -> asyncio.Task[Outcome]:
        """Start one call; each is made at a place of its own, so that none is answered from another's text."""
        number = len(self.calls) + 1
        window = window or Window(f"x{number} = ", "\n")

        async def call() -> Outcome:
            self.engine.events.append(f"start {number}")
            try:
                return await self.completer.complete(document, window, invoked=invoked)
            finally:
                self.engine.events.append(f"return {number}")

        self.calls.append(asyncio.create_task(call()))
        return self.calls[-1]


async def turns(count: int) -> None:
    """Let the loop turn so many times."""
    for _ in range(count):
        await asyncio.sleep(0)
