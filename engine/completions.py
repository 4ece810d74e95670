"""`POST /v1/completions`, written against ASGI itself: the reader's hanging up must stop the model at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Protocol

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from engine.accounts import Entry, Ledger, State
from engine.answers import DONE, Answer, event
from engine.api import CompletionRequest
from engine.errors import DeviceMemoryExhausted, EngineFault, Overloaded, RequestError, StarfillError
from engine.generation import Delta
from engine.guard import read_body
from engine.intake import Admitted
from engine.worker import Worker

MAX_UNREAD = 64
"""Deltas of a request that may wait for its reader; then the model works for others until half of them are read."""


class Front(Protocol):
    """What the route needs of the service around it."""

    ledger: Ledger

    @property
    def model_id(self) -> str:
        """The model that answers."""
        ...

    async def complete(self, body: bytes, client: str) -> tuple[CompletionRequest, Admitted, Worker]:
        """Validate a request and lay its prompt out; raises RequestError."""
        ...

    def ended(self, outcome: str) -> None:
        """Count a request."""
        ...

    def first_text(self, seconds: float) -> None:
        """Time a request's first text."""
        ...


class Json(JSONResponse):
    """A body that can be sent whatever it names: a path may be no UTF-8."""

    def render(self, content: Any) -> bytes:
        """As the base class does, with question marks for what has no UTF-8."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


class Completions:
    """The route. One call is one request."""

    def __init__(self, service: Front) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, validate, queue, answer."""
        started = time.monotonic()
        client = (scope.get("client") or ("", 0))[0]
        try:
            request, admitted, worker = await self._service.complete(await read_body(receive), client)
        except RequestError as error:
            self._service.ended("refused")
            await _refuse(error, scope, receive, send)
            return
        answer = Answer(request, admitted, self._service.model_id, int(time.time()))
        entry = self._service.ledger.open(admitted.generation.id, request.starfill.document, admitted.candidates)
        deltas = Deltas(worker, admitted, receive)
        respond = self._stream if request.stream else self._whole
        outcome: State = "aborted"
        reason: str | None = None
        try:
            async with deltas:
                await respond(answer, self._noted(deltas, entry, started), scope, receive, send)
            outcome, reason = "served", answer.finish
        except HungUp:
            pass
        except StarfillError as error:
            outcome, reason = "refused" if isinstance(error, Overloaded) else "failed", type(error).__name__
        finally:
            entry.close(outcome, reason)
            self._service.ended(outcome)

    async def _noted(self, deltas: Deltas, entry: Entry, started: float) -> AsyncIterator[tuple[int, Delta]]:
        waiting = True
        async for candidate, delta in deltas:
            if waiting and delta.text:
                waiting = False
                entry.progress()
                self._service.first_text(time.monotonic() - started)
            yield candidate, delta

    async def _whole(
        self, answer: Answer, deltas: AsyncIterator[tuple[int, Delta]], scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            async for candidate, delta in deltas:
                answer.add(candidate, delta)
        except StarfillError as error:
            await _refuse(as_refusal(error), scope, receive, send)
            raise
        await Json(answer.whole())(scope, receive, send)

    async def _stream(
        self, answer: Answer, deltas: AsyncIterator[tuple[int, Delta]], scope: Scope, receive: Receive, send: Send
    ) -> None:
        head_sent = False

        async def put(data: bytes, more: bool = True) -> None:
            nonlocal head_sent
            if not head_sent:
                head_sent = True
                headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": data, "more_body": more})

        try:
            async for candidate, delta in deltas:
                await put(b"".join(answer.chunks(candidate, delta)))
        except StarfillError as error:
            refusal = as_refusal(error)
            if not head_sent:
                await _refuse(refusal, scope, receive, send)
            else:
                await put(event(refusal.body()) + DONE, more=False)
            raise
        await put(b"", more=False)


class HungUp(Exception):
    """The reader closed the connection."""


class Deltas:
    """Deltas of a request's candidates as an async iterator; the request is aborted when the block is left early.

    A reader who does not read has `MAX_UNREAD` deltas waiting at most: beyond that its generations keep their slots and
    compute nothing. The connection's guard hangs up on it in the end, which aborts them.
    """

    def __init__(self, worker: Worker, admitted: Admitted, receive: Receive) -> None:
        self._worker = worker
        self._first = admitted.generation
        self._unfinished = len(admitted.candidates)
        self._receive = receive
        self._queue: asyncio.Queue[tuple[int, Delta | StarfillError | HungUp]] = asyncio.Queue()
        self._delivered = 0  # written by the worker's thread alone
        self._read = 0  # written by the event loop alone
        self._paused = False

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._watch = loop.create_task(self._hang_up())

        def deliver(candidate: int, item: Delta | StarfillError) -> None:
            self._delivered += 1
            if not self._paused and self._delivered - self._read > MAX_UNREAD:
                self._pause(True)
            with suppress(RuntimeError):  # the loop may be closed while the worker drains
                loop.call_soon_threadsafe(self._queue.put_nowait, (candidate, item))

        self._worker.submit(self._first, deliver)

    async def __aexit__(self, *_: object) -> None:
        if self._unfinished:
            self._worker.abort(self._first.id)
        self._watch.cancel()

    def __aiter__(self) -> Deltas:
        return self

    async def __anext__(self) -> tuple[int, Delta]:
        if not self._unfinished:
            raise StopAsyncIteration
        candidate, item = await self._queue.get()
        self._read += 1
        if self._paused and self._delivered - self._read <= MAX_UNREAD // 2:
            self._pause(False)
        if isinstance(item, Delta):
            self._unfinished -= item.finish is not None
            return candidate, item
        if isinstance(item, StarfillError):
            self._unfinished = 0
        raise item

    def _pause(self, paused: bool) -> None:
        # In this order: who sees the flag knows that the worker has been told, so that no later word overtakes it.
        self._worker.pause(self._first.id, paused)
        self._paused = paused

    async def _hang_up(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._worker.abort(self._first.id)  # at once, not when a slow writer comes back to the queue
        self._queue.put_nowait((0, HungUp()))


def as_refusal(error: StarfillError) -> RequestError:
    """An error of the engine as the wire tells it."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, DeviceMemoryExhausted):
        return RequestError(str(error), code="out_of_memory", status=503, kind="engine_error")
    status = 500 if isinstance(error, EngineFault) else 503
    return RequestError(str(error), code="engine_fault", status=status, kind="engine_error")


async def _refuse(error: RequestError, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"retry-after": str(error.retry_after)} if isinstance(error, Overloaded) else None
    await Json(error.body(), error.status, headers)(scope, receive, send)
