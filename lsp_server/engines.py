"""An engine as this server sees it, and which the settings name: the one that this user's servers share, or one at a given
address.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from engine.client import Chunk, EngineClient, window_of
from engine.errors import EngineRefused, EngineUnavailable, Overloaded, RequestError, StarfillError
from engine.launcher import EngineOptions, SharedEngine
from engine.models import locate
from lsp_server.settings import Settings, read_token

if TYPE_CHECKING:
    from engine.api import CompletionRequest

_REMEDIES = {401: "; see --token-file", 403: "; see --token-file", 404: "; see --model"}

Progress = Callable[[str], None]
"""Hears of the stages in which an engine starts."""


class Engine(Protocol):
    """What this server needs of an engine."""

    @property
    def primes(self) -> bool:
        """Whether it can be asked for a prompt's keys and values alone, with `max_tokens: 0`."""
        ...

    @property
    def window(self) -> int | None:
        """Tokens of its model's window; None while that is not known, and for engines that are not ours."""
        ...

    async def ready(self, *, invoked: bool, progress: Progress | None) -> None:
        """Return when it can complete; raises EngineLoading or EngineUnavailable."""
        ...

    def complete(self, request: CompletionRequest | bytes) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """Stream a completion for a request, serialised or not; leaving the block stops the model."""
        ...

    def not_shown(self, answer: str, reason: str) -> None:
        """Let it know why nothing was shown of what it said; returns at once."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class RemoteEngine:
    """An engine at a given address, which nobody here starts."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self.primes = False
        """Whether it has shown itself to be one of ours: others refuse to be asked for no token."""
        self.window: int | None = None
        """Tokens of its model's window, once it has been recognised as ours and was asked."""
        self._client = EngineClient(endpoint, token)
        self._asking: asyncio.Task[None] | None = None

    async def ready(self, *, invoked: bool, progress: Progress | None = None) -> None:
        """A remote engine is taken at its word: the request itself tells."""

    @asynccontextmanager
    async def complete(self, request: CompletionRequest | bytes) -> AsyncIterator[AsyncIterator[Chunk]]:
        """See `Engine`."""
        try:
            async with self._client.complete(request) as chunks:
                yield chunks if self.primes else self._recognised(chunks)
        except (RequestError, EngineRefused) as error:
            raise error if self.primes else without_quotation(error) from None

    async def model(self) -> dict[str, Any]:
        """What the server says of its model, by which it shows whether it is one of ours."""
        found = await self._client.model()
        self.primes = self.primes or isinstance(found.get("starfill"), dict)
        return found

    def not_shown(self, answer: str, reason: str) -> None:
        """Nobody else's engine asks."""

    async def aclose(self) -> None:
        """Close the connections."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        await self._client.aclose()

    async def _recognised(self, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
        async for chunk in chunks:
            if chunk.extension is not None and not self.primes:
                self.primes = True
                self._asking = asyncio.create_task(self._ask_for_window())
            yield chunk

    async def _ask_for_window(self) -> None:
        with suppress(EngineUnavailable):
            self.window = window_of(await self._client.health())


def without_quotation(error: RequestError | EngineRefused) -> StarfillError:
    """A stranger's error in our own words: theirs may quote what they were sent, and it is shown and logged."""
    match error:
        case Overloaded():
            return Overloaded("the server has too much to do", retry_after=error.retry_after)
        case RequestError():
            code = error.code if isinstance(error.code, str) and re.fullmatch("[a-z_]{1,40}", error.code) else None
            named, remedy = f" ({code})" if code else "", _REMEDIES.get(error.status, "")
            return RequestError(f"HTTP {error.status}{named}{remedy}", code=code, status=error.status)
    return EngineRefused("the server failed")


def connect(settings: Settings, *, trust_folder: bool) -> Engine:
    """The engine that the settings name: the user's shared one, or a remote one. `trust_folder`: see `locate`."""
    if settings.engine != "auto":
        return RemoteEngine(settings.engine, read_token(settings))
    source = locate(settings.model, trust_folder=trust_folder)
    options = EngineOptions(
        source,
        device=settings.device,
        dtype=settings.dtype,
        idle_exit=settings.idle_exit,
        window=settings.window,
        kv_memory=settings.kv_memory,
    )
    return SharedEngine(options)
