"""The engine's HTTP face: routes, admission, health, metrics, accounts. Does no device work."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine import __version__
from engine.accounts import Ledger
from engine.api import CompletionRequest, parse_completion
from engine.completions import Completions, Json, as_refusal
from engine.errors import EngineFault, RequestError
from engine.flags import as_words, not_in_effect, parse_flags
from engine.guard import read_body
from engine.instruct import Following
from engine.intake import Admitted, Intake
from engine.metrics import Metrics
from engine.worker import Worker

MAX_SMALL_BODY = 4_096
"""Bytes of a request's body that is no completion."""

_TOKENISERS = 2
_QUICK_BODY = 256 * 1024  # bytes that are parsed in about a millisecond

MAX_ASKED = 8
"""Different wishes for other flags that are remembered."""


@dataclass(slots=True)
class EngineState:
    """What the service knows of the engine behind it. `worker` and `intake` are there once the model is loaded."""

    model_id: str
    facts: dict[str, Any] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    """Other flags that somebody asked for, as words, and how often; the first to start an engine wins."""
    intake: Intake | None = None
    following: Following = field(default_factory=Following)
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
        self.ledger = Ledger()
        # Tokenising a window takes a millisecond, a megabyte takes a second: never on the event loop, and what is large waits
        # for what is large alone.
        self._tokenising = ThreadPoolExecutor(_TOKENISERS, thread_name_prefix="starfill-tokenise")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="starfill-large")
        together = threading.Barrier(_TOKENISERS)
        for _ in range(_TOKENISERS):  # all of them now, so that no key waits for a thread to start
            self._tokenising.submit(together.wait)
        self.app = Starlette(
            routes=[
                Route("/v1/completions", Completions(self), methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/health", self._health),
                Route("/metrics", self._metrics_page),
                Route("/starfill/join", self._join, methods=["POST"]),
                Route("/starfill/requests", self._requests),
                Route("/starfill/requests/{request:int}", self._shown, methods=["POST"]),
            ],
            exception_handlers={404: _no_route, 405: _no_route, RequestError: _refused, Exception: _failed},
        )

    @property
    def model_id(self) -> str:
        """What `/v1/models` lists."""
        return self._state.model_id

    def close(self) -> None:
        """Give the threads back."""
        for threads in (self._tokenising, self._large):
            threads.shutdown(wait=False, cancel_futures=True)

    async def complete(self, body: bytes, client: str) -> tuple[CompletionRequest, Admitted, Worker]:
        """Validate a request of `client` and lay its prompt out; raises RequestError."""
        loop = asyncio.get_running_loop()
        large = len(body) > _QUICK_BODY
        request = await loop.run_in_executor(self._large, parse_completion, body) if large else parse_completion(body)
        state = self._state
        if state.worker is None or state.intake is None or state.draining:
            raise RequestError(
                state.failure or f"the engine is {state.name}; ask again in a moment",
                code=f"engine_{state.name}",
                status=503,
                kind="engine_error",
            )
        threads = self._large if large else self._tokenising
        admitted = await loop.run_in_executor(threads, state.intake.take, request, client)
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
            body["slots"] = {
                "total": len(slots),
                "held": slots.held,
                "cached": slots.cached,
                "pinned": slots.pinned,
                "window": slots.window,
            }
        if state.asked:
            body["asked"] = state.asked
        if state.failure is not None:
            body["error"] = state.failure
        return Json(body, 200 if state.name == "ready" else 503)

    async def _join(self, request: Request) -> Response:
        """A client says with which flags it would have started this engine, and hears what became of them."""
        wanted = parse_flags(await read_body(request.receive, MAX_SMALL_BODY))
        state = self._state
        other = not_in_effect(wanted, state.flags, state.facts)
        if not other:
            return Json({"notice": None})
        words = as_words(other)
        if words in state.asked or len(state.asked) < MAX_ASKED:
            state.asked[words] = state.asked.get(words, 0) + 1
        present = as_words({name: state.flags.get(name) or "its default" for name in other})
        notice = (
            f"{state.model_id} runs already, started with {present}, so {words} is not in effect; "
            "to change it: starfill stop, then start again"
        )
        return Json({"notice": notice})

    async def _requests(self, _: Request) -> Response:
        return Json({"requests": self.ledger.page(), "totals": await run_in_threadpool(self._metrics.totals)})

    async def _shown(self, request: Request) -> Response:
        """A client says why it showed nothing of an answer."""
        body = await read_body(request.receive, MAX_SMALL_BODY)
        known = self.ledger.shown(request.path_params["request"], body.decode("ascii", "replace"))
        return Response(status_code=204 if known else 404)

    async def _models(self, _: Request) -> Response:
        state = self._state
        model: dict[str, Any] = {"id": state.model_id, "object": "model", "created": 0, "owned_by": "starfill"}
        if state.worker is not None:
            model["starfill"] = {"instruct": state.following.form, "terms": state.following.terms}
        return Json({"object": "list", "data": [model]})

    def _metrics_page(self, _: Request) -> Response:  # not async: on a thread, because it may ask the GPU's driver
        return Response(self._metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    refusal = RequestError(f"{request.method} {request.url.path} is not served here", code="not_found", status=status)
    return Json(refusal.body(), status)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101  (registered for nothing else)
    return Json(error.body(), error.status)


async def _failed(_: Request, error: Exception) -> Response:
    """Starlette raises the error again after this answer, for `containment.py` to log."""
    refusal = _unexpected(error)
    return Json(refusal.body(), refusal.status)


def _unexpected(error: Exception) -> RequestError:
    return as_refusal(EngineFault(f"the engine failed on this request: {type(error).__name__}"))
