"""Which engine the settings name: the one that this user's servers share, or one at a given address."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from engine.client import Chunk, EngineClient
from engine.launcher import EngineOptions, SharedEngine
from engine.models import locate
from lsp_server.completer import Engine
from lsp_server.settings import Settings, read_token

if TYPE_CHECKING:
    from engine.api import CompletionRequest


class RemoteEngine:
    """An engine at a given address, which nobody here starts."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self._client = EngineClient(endpoint, token)

    async def ready(self, *, invoked: bool, progress: Callable[[str], None] | None = None) -> None:
        """A remote engine is taken at its word: the request itself tells."""

    def complete(self, request: CompletionRequest) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """See `completer.Engine`."""
        return self._client.complete(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def connect(settings: Settings, *, trust_folder: bool) -> Engine:
    """The engine that the settings name: the user's shared one, or a remote one. `trust_folder`: see `locate`."""
    if settings.engine == "auto":
        return SharedEngine(EngineOptions(locate(settings.model, trust_folder=trust_folder)))
    return RemoteEngine(settings.engine, read_token(settings))
