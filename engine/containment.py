"""Whatever happens inside the engine, its peer gets a typed error: an exception, a hang that was noticed, the end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.answers import DONE, event
from engine.completions import as_refusal
from engine.errors import EngineFault, StarfillError

log = logging.getLogger(__name__)


class Containment:
    """ASGI middleware around the whole service."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._under_way: set[asyncio.Timeout] = set()
        self._reason = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve; turn what is raised into the error object of the wire."""
        started = streaming = False

        async def noted(message: Message) -> None:
            nonlocal started, streaming
            if message["type"] == "http.response.start":
                started = True
                streaming = any(value.startswith(b"text/event-stream") for _, value in message["headers"])
            await send(message)

        error: StarfillError
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._under_way.add(limit)
                await self._app(scope, receive, noted)
            return
        except StarfillError as raised:
            error = raised
        except Exception as raised:
            if limit.expired():
                error = EngineFault(self._reason)
            else:
                log.exception("a request failed")
                error = EngineFault(f"the engine failed on this request: {type(raised).__name__}")
        finally:
            self._under_way.discard(limit)
        refusal = as_refusal(error)
        if not started:
            await JSONResponse(refusal.body(), refusal.status)(scope, receive, send)
        elif streaming:
            body = event(refusal.body()) + DONE
            await send({"type": "http.response.body", "body": body, "more_body": False})

    def interrupt(self, reason: str) -> None:
        """End every request that is under way with an error. Call on the event loop."""
        self._reason = reason
        for limit in self._under_way:
            with suppress(RuntimeError):  # it has just ended
                limit.reschedule(asyncio.get_running_loop().time())

    async def settled(self) -> None:
        """Wait until none is under way."""
        while self._under_way:  # noqa: ASYNC110  (called once in a life, by an engine that hangs)
            await asyncio.sleep(0.01)
