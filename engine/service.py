"""The engine's HTTP face: routes, admission, health, metrics. Does no device work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from engine import __version__
from engine.answers import DONE, Answer, event
from engine.api import MAX_BODY, CompletionRequest, parse_completion
from engine.errors import EngineFault, RequestError, StarfillError
from engine.generation import Delta, Generation
from engine.intake import Admitted, Intake
from engine.metrics import Metrics
from engine.worker import Worker


@dataclass(slots=True)
class EngineState:
    """What the service knows of the engine behind it. `worker` and `intake` are there once the model is loaded."""

    model_id: str
    facts: dict[str, Any] = field(default_factory=dict)
    intake: Intake | None = None
    worker: Worker | None = None
    failure: str | None = None
    draining: bool = False
    started: float = field(default_factory=time.monotonic)
    last_request: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """One word for people and programs."""
        if self.failure is not None:
            return "failed"
        if self.draining:
            return "draining"
        return "ready" if self.worker is not None else "loading"

    def idle_seconds(self) -> float:
        """Time since a request ended."""
        if self.worker is not None and self.worker.active:
            self.last_request = time.monotonic()
        return time.monotonic() - self.last_request


class Service:
    """Routes of one engine."""

    def __init__(self, state: EngineState, metrics: Metrics) -> None:
        self._state = state
        self._metrics = metrics
        # Tokenising a window takes a millisecond, a megabyte takes a second: never on the event loop.
        self._tokenising = ThreadPoolExecutor(2, thread_name_prefix="starfill-tokenise")
        self.app = Starlette(
            routes=[
                Route("/v1/completions", _Completions(self), methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/health", self._health),
                Route("/metrics", self._metrics_page),
            ],
            exception_handlers={404: _no_route, 405: _no_route},
        )

    @property
    def model_id(self) -> str:
        """What `/v1/models` lists."""
        return self._state.model_id

    def close(self) -> None:
        """Give the threads back."""
        self._tokenising.shutdown(wait=False, cancel_futures=True)

    async def complete(self, body: bytes) -> tuple[CompletionRequest, Admitted, Worker]:
        """Validate a request and lay its prompt out; raises RequestError."""
        request = parse_completion(body)
        state = self._state
        if state.worker is None or state.intake is None or state.draining:
            raise RequestError(
                state.failure or f"the engine is {state.name}; ask again in a moment",
                code=f"engine_{state.name}",
                status=503,
                kind="engine_error",
            )
        loop = asyncio.get_running_loop()
        admitted = await loop.run_in_executor(self._tokenising, state.intake.take, request)
        return request, admitted, state.worker

    def ended(self, outcome: str) -> None:
        """Count a request."""
        self._state.last_request = time.monotonic()
        self._metrics.requests.labels(outcome).inc()

    def first_text(self, seconds: float) -> None:
        """Time a request's first text."""
        self._metrics.first_token.observe(seconds)

    async def _health(self, _: Request) -> Response:
        state = self._state
        body = state.facts | {
            "status": state.name,
            "version": __version__,
            "uptime": round(time.monotonic() - state.started, 1),
        }
        if state.worker is not None:
            slots = state.worker.scheduler.slots
            body["slots"] = {"total": len(slots), "held": slots.held, "cached": slots.cached, "window": slots.window}
        if state.failure is not None:
            body["error"] = state.failure
        return JSONResponse(body, 200 if state.name == "ready" else 503)

    async def _models(self, _: Request) -> Response:
        model = {"id": self._state.model_id, "object": "model", "created": 0, "owned_by": "starfill"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _metrics_page(self, _: Request) -> Response:
        return Response(self._metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


class _Completions:
    """`POST /v1/completions`, written against ASGI itself: the reader's hanging up must stop the model at once."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        try:
            body = await _read_body(receive)
            if body is None:
                return
            request, admitted, worker = await self._service.complete(body)
        except RequestError as error:
            self._service.ended("refused")
            await JSONResponse(error.body(), error.status)(scope, receive, send)
            return
        model = self._service.model_id
        answer = Answer(request, admitted, model, int(time.time()))
        deltas = _Deltas(worker, admitted.generation, receive)
        respond = self._stream if request.stream else self._whole
        outcome = "aborted"
        try:
            async with deltas:
                outcome = await respond(answer, self._timed(deltas, started), scope, receive, send)
        finally:
            self._service.ended(outcome)

    async def _timed(self, deltas: _Deltas, started: float) -> AsyncIterator[Delta]:
        waiting = True
        async for delta in deltas:
            if waiting and delta.text:
                waiting = False
                self._service.first_text(time.monotonic() - started)
            yield delta

    async def _whole(
        self, answer: Answer, deltas: AsyncIterator[Delta], scope: Scope, receive: Receive, send: Send
    ) -> str:
        try:
            async for delta in deltas:
                answer.add(delta)
        except _HungUp:
            return "aborted"
        except StarfillError as error:
            refusal = _as_refusal(error)
            await JSONResponse(refusal.body(), refusal.status)(scope, receive, send)
            return "failed"
        await JSONResponse(answer.whole())(scope, receive, send)
        return "served"

    async def _stream(
        self, answer: Answer, deltas: AsyncIterator[Delta], scope: Scope, receive: Receive, send: Send
    ) -> str:
        head_sent = False

        async def put(data: bytes, more: bool = True) -> None:
            nonlocal head_sent
            if not head_sent:
                head_sent = True
                headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": data, "more_body": more})

        try:
            async for delta in deltas:
                await put(b"".join(answer.chunks(delta)))
        except _HungUp:
            return "aborted"
        except StarfillError as error:
            refusal = _as_refusal(error)
            if not head_sent:
                await JSONResponse(refusal.body(), refusal.status)(scope, receive, send)
            else:
                await put(event(refusal.body()) + DONE, more=False)
            return "failed"
        await put(b"", more=False)
        return "served"


class _HungUp(Exception):
    """The reader closed the connection."""


class _Deltas:
    """Deltas of one generation as an async iterator; the generation is aborted when the block is left early."""

    def __init__(self, worker: Worker, generation: Generation, receive: Receive) -> None:
        self._worker = worker
        self._generation = generation
        self._receive = receive
        self._queue: asyncio.Queue[Delta | StarfillError | _HungUp] = asyncio.Queue()
        self._ended = False

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._watch = loop.create_task(self._hang_up())

        def deliver(item: Delta | StarfillError) -> None:
            with suppress(RuntimeError):  # the loop may be closed while the worker drains
                loop.call_soon_threadsafe(self._queue.put_nowait, item)

        self._worker.submit(self._generation, deliver)

    async def __aexit__(self, *_: object) -> None:
        if not self._ended:
            self._worker.abort(self._generation.id)
        self._watch.cancel()

    def __aiter__(self) -> _Deltas:
        return self

    async def __anext__(self) -> Delta:
        if self._ended:
            raise StopAsyncIteration
        item = await self._queue.get()
        if isinstance(item, Delta):
            self._ended = item.finish is not None
            return item
        self._ended = not isinstance(item, _HungUp)
        raise item

    async def _hang_up(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._worker.abort(self._generation.id)  # at once, not when a slow writer comes back to the queue
        self._queue.put_nowait(_HungUp())


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body, or None if the reader hung up before sending it."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            raise RequestError(f"the body is larger than {MAX_BODY >> 20} MiB", code="body_too_large", status=413)
        if not message.get("more_body", False):
            return b"".join(parts)


def _as_refusal(error: StarfillError) -> RequestError:
    if isinstance(error, RequestError):
        return error
    status = 500 if isinstance(error, EngineFault) else 503
    return RequestError(str(error), code="engine_fault", status=status, kind="engine_error")


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    refusal = RequestError(f"{request.method} {request.url.path} is not served here", code="not_found", status=status)
    return JSONResponse(refusal.body(), status)
