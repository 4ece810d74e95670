"""The streaming client of an engine, ours or any OpenAI-compatible one. No torch, no state but its connections.

Closing a stream closes its connection, which is how the engine learns that nobody wants the rest.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.errors import (
    EngineAbsent,
    EngineRefused,
    EngineSilent,
    EngineUnavailable,
    Overloaded,
    RequestError,
    StarfillError,
)

if TYPE_CHECKING:
    import httpx2

    from engine.api import CompletionRequest

_CONNECT_SECONDS = 2.0
_SILENCE_SECONDS = 60.0
_KEEPALIVE_SECONDS = 30.0  # less than the server's, so that a connection is never reused while it is being closed


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a streamed answer. `usage` and `extension` are there when the engine sent them."""

    id: str = field(default="", kw_only=True)
    """The answer's, the same in all its pieces."""

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


def window_of(health: Mapping[str, Any]) -> int | None:
    """The tokens of a model's window, by what `/health` of an engine of ours says."""
    slots = health.get("slots")
    window = slots.get("window") if isinstance(slots, Mapping) else None
    return window if isinstance(window, int) and window > 0 else None


class EngineClient:
    """Talks to one endpoint. Use from one event loop; `aclose` when done."""

    def __init__(self, engine: str, token: str | None = None) -> None:
        self._socket, self._base = parse_endpoint(engine)
        self._token = token
        self._http: httpx2.AsyncClient | None = None

    async def health(self, timeout: float = 1.0) -> dict[str, Any]:
        """What `/health` says, whether ready or not; raises EngineAbsent, EngineSilent or EngineUnavailable."""
        return await self._ask("GET", "/health", timeout)

    async def model(self, timeout: float = 2.0) -> dict[str, Any]:
        """The first model that `/v1/models` lists; empty if it lists none."""
        models = (await self._ask("GET", "/v1/models", timeout)).get("data")
        first = models[0] if isinstance(models, list) and models else None
        return first if isinstance(first, dict) else {}

    async def join(self, flags: Mapping[str, str | int], timeout: float = 5.0) -> str | None:
        """Tell an engine of ours which flags were wanted -> in words, which of them are not in effect."""
        notice = (await self._ask("POST", "/starfill/join", timeout, dict(flags))).get("notice")
        return notice if isinstance(notice, str) else None

    async def requests(self, timeout: float = 2.0) -> dict[str, Any]:
        """The accounts of an engine of ours."""
        return await self._ask("GET", "/starfill/requests", timeout)

    async def not_shown(self, request: str, reason: str) -> None:
        """Tell an engine of ours why nothing was shown of the answer with that id; nobody minds if it gets lost."""
        number = request.removeprefix("cmpl-")
        if number.isdecimal():
            with suppress(EngineUnavailable):
                await self._ask("POST", f"/starfill/requests/{number}", 1.0, reason)

    async def _ask(self, method: str, path: str, timeout: float, body: Any = None) -> dict[str, Any]:
        import httpx2

        try:
            if isinstance(body, str):
                response = await self._client().request(method, path, content=body, timeout=timeout)
            else:
                response = await self._client().request(method, path, json=body, timeout=timeout)
            found = response.json() if response.content else {}
        except httpx2.ConnectError as error:
            raise EngineAbsent("no engine listens there") from error
        except httpx2.TimeoutException as error:
            raise EngineSilent(f"the engine did not answer within {timeout:g} s") from error
        except (httpx2.HTTPError, ValueError, RecursionError) as error:
            raise EngineUnavailable(f"the engine does not answer ({type(error).__name__})") from error
        return found if isinstance(found, dict) else {}

    @asynccontextmanager
    async def complete(
        self, request: CompletionRequest | bytes, *, watched: bool = False
    ) -> AsyncIterator[AsyncIterator[Chunk]]:
        """Stream a completion; bytes are a request serialised already. Leaving the block early stops the model.

        `watched`: somebody asks the engine meanwhile how it is, so that it may say nothing for as long as it takes.
        Raises RequestError for a refusal, EngineAbsent when nobody listens, EngineUnavailable when it breaks off.
        """
        if not isinstance(request, bytes):
            streaming = {"stream": True, "stream_options": {"include_usage": True}}
            request = json.dumps(request.model_dump(exclude_unset=True) | streaming).encode()
        if self._socket is None:
            async with self._complete_over_tcp(request) as chunks:
                yield chunks
            return
        from engine import local

        silence = None if watched else _SILENCE_SECONDS
        posted = local.posted(
            self._socket, "/v1/completions", request, self._token, connect=_CONNECT_SECONDS, silence=silence
        )
        async with posted as answer:
            if answer.status != 200:
                raise _refusal(answer.status, b"".join([data async for data in answer.body()]))
            yield _chunks(answer.lines())

    @asynccontextmanager
    async def _complete_over_tcp(self, request: bytes) -> AsyncIterator[AsyncIterator[Chunk]]:
        import httpx2

        from engine import local

        headers = {"content-type": "application/json"}
        try:
            async with self._client().stream("POST", "/v1/completions", content=request, headers=headers) as response:
                if response.status_code != 200:
                    raise _refusal(response.status_code, await response.aread())
                yield _chunks(local.lines_of(response.aiter_bytes()))
        except httpx2.ConnectError as error:
            raise EngineAbsent("no engine listens there") from error
        except httpx2.TimeoutException as error:
            raise EngineSilent(f"the engine said nothing for {_SILENCE_SECONDS:g} s") from error
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


async def _chunks(lines: AsyncIterator[str]) -> AsyncIterator[Chunk]:
    async for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        for chunk in _said(data):
            yield chunk
    raise EngineUnavailable("the engine broke off in mid-answer")


def _said(data: str) -> Iterator[Chunk]:
    """The pieces of one event; raises EngineRefused for an error, EngineUnavailable for what is no such event."""
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EngineUnavailable("the engine sent something that is no JSON event") from error
    if not isinstance(event, dict):
        raise _unknown()
    if event.get("error"):
        raise EngineRefused(_message(event) or "the engine failed")
    choices = event.get("choices") or [{}]
    if not isinstance(choices, list):
        raise _unknown()
    usage, extension = (found if isinstance(found := event.get(name), dict) else None for name in ("usage", "starfill"))
    for choice in choices:
        if not isinstance(choice, dict):
            raise _unknown()
        index, text, finish = choice.get("index") or 0, choice.get("text") or "", choice.get("finish_reason")
        if type(index) is not int or not isinstance(text, str) or not isinstance(finish, str | None):
            raise _unknown()
        yield Chunk(index, text, finish, _logprobs(choice), usage, extension, id=str(event.get("id", "")))


def _logprobs(choice: Mapping[str, Any]) -> tuple[float, ...]:
    """A number for each token; none in a form that is not the one we asked for."""
    logprobs = choice.get("logprobs")
    found = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    numbers = found if isinstance(found, list) else []
    return tuple(number for number in numbers if type(number) in (int, float))


def _unknown() -> EngineUnavailable:
    return EngineUnavailable("the engine sent an event that is none of a completion's")


def _message(body: object) -> str | None:
    """What an error says for people: OpenAI's object, or one of the forms that others write in its place."""
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    found = (error.get("message") if isinstance(error, dict) else error) or body.get("message") or body.get("detail")
    return found if isinstance(found, str) else None


def _refusal(status: int, body: bytes) -> StarfillError:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    message = _message(found) or f"the engine answered HTTP {status}"
    error = found.get("error") if isinstance(found, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    if code in ("engine_draining", "engine_loading"):
        return EngineAbsent(message)
    if status == 429:
        return Overloaded(message)
    if status >= 500:
        return EngineRefused(message)
    return RequestError(message, param=None, code=code if isinstance(code, str) else None, status=status)
