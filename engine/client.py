"""The streaming client of an engine, ours or any OpenAI-compatible one. No torch, no state but its connections.

Closing a stream closes its connection, which is how the engine learns that nobody wants the rest.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import EngineAbsent, EngineUnavailable, RequestError, StarfillError

if TYPE_CHECKING:
    import httpx2

    from engine.api import CompletionRequest

_CONNECT_SECONDS = 2.0
_SILENCE_SECONDS = 60.0
_KEEPALIVE_SECONDS = 30.0  # less than the server's, so that a connection is never reused while it is being closed


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a streamed answer. `usage` and `extension` are there when the engine sent them."""

    index: int = 0
    text: str = ""
    finish_reason: str | None = None
    logprobs: tuple[float, ...] = ()
    usage: dict[str, Any] | None = None
    extension: dict[str, Any] | None = None


def parse_endpoint(engine: str) -> tuple[str | None, str]:
    """`unix:PATH` or a URL -> (socket path or None, base URL)."""
    if engine.startswith("unix:"):
        return engine.removeprefix("unix:"), "http://localhost"
    if engine.startswith(("http://", "https://")):
        return None, engine.rstrip("/").removesuffix("/v1")
    raise StarfillError(f"--engine {engine!r}: write auto, unix:PATH or http(s)://HOST:PORT")


class EngineClient:
    """Talks to one endpoint. Use from one event loop; `aclose` when done."""

    def __init__(self, engine: str, token: str | None = None) -> None:
        self._socket, self._base = parse_endpoint(engine)
        self._token = token
        self._http: httpx2.AsyncClient | None = None

    async def health(self, timeout: float = 1.0) -> dict[str, Any]:
        """What `/health` says, whether ready or not; raises EngineUnavailable when nobody answers."""
        import httpx2

        try:
            response = await self._client().get("/health", timeout=timeout)
            body = response.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise EngineUnavailable(f"the engine does not answer ({type(error).__name__})") from error
        return body if isinstance(body, dict) else {}

    @asynccontextmanager
    async def complete(self, request: CompletionRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        """Stream a completion. Leaving the block early stops the model.

        Raises RequestError for a refusal, EngineAbsent when nobody listens, EngineUnavailable when it breaks off.
        """
        import httpx2

        body = request.model_dump(exclude_unset=True) | {"stream": True, "stream_options": {"include_usage": True}}
        try:
            async with self._client().stream("POST", "/v1/completions", json=body) as response:
                if response.status_code != 200:
                    raise _refusal(response.status_code, await response.aread())
                yield _chunks(response)
        except httpx2.ConnectError as error:
            raise EngineAbsent("no engine listens there") from error
        except httpx2.HTTPError as error:
            raise EngineUnavailable(f"the connection to the engine broke ({type(error).__name__})") from error

    async def aclose(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    def _client(self) -> httpx2.AsyncClient:
        if self._http is None:
            import httpx2

            limits = httpx2.Limits(keepalive_expiry=_KEEPALIVE_SECONDS)
            self._http = httpx2.AsyncClient(
                base_url=self._base,
                transport=httpx2.AsyncHTTPTransport(uds=self._socket, limits=limits) if self._socket else None,
                headers={"authorization": f"Bearer {self._token}"} if self._token else None,
                timeout=httpx2.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
                limits=limits,
            )
        return self._http


async def _chunks(response: httpx2.Response) -> AsyncIterator[Chunk]:
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError as error:
            raise EngineUnavailable("the engine sent something that is no JSON event") from error
        if "error" in event:
            raise EngineUnavailable(str(event["error"].get("message", "the engine failed")))
        usage, extension = event.get("usage"), event.get("starfill")
        for choice in event.get("choices") or [{}]:
            logprobs = (choice.get("logprobs") or {}).get("token_logprobs") or ()
            yield Chunk(
                choice.get("index", 0),
                choice.get("text") or "",
                choice.get("finish_reason"),
                tuple(logprobs),
                usage,
                extension,
            )
    raise EngineUnavailable("the engine broke off in mid-answer")


def _refusal(status: int, body: bytes) -> StarfillError:
    try:
        error = json.loads(body)["error"]
        message, code = str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError):
        message, code = f"the engine answered HTTP {status}", None
    if status >= 500:
        return EngineUnavailable(message)
    return RequestError(message, param=None, code=code, status=status)
