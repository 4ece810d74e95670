"""One request's life: supersede, ask the engine, shape the stream, answer. Latest wins per document.

Knows no protocol and no buffer: it is given a window and gives back an outcome, exactly one for each request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from engine.client import Chunk
from engine.errors import EngineAbsent, EngineLoading, EngineUnavailable, RequestError
from lsp_server.reuse import ReuseStore
from lsp_server.shaping import Reason, Shaped, Shaper, wanted, without_overlap
from lsp_server.window import Window

if TYPE_CHECKING:
    from engine.api import CompletionRequest

Progress = Callable[[str], None]


class Engine(Protocol):
    """What the completer needs of an engine."""

    async def ready(self, *, invoked: bool, progress: Progress | None) -> None:
        """Return when it can complete; raises EngineLoading or EngineUnavailable."""
        ...

    def complete(self, request: CompletionRequest) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """Stream a completion; leaving the block stops the model."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class Item:
    """One candidate as shown, with the mean log-probability of its tokens."""

    text: str
    logprob: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended. `reason` says why there are no items."""

    items: tuple[Item, ...] = ()
    reason: Reason | None = None
    detail: str | None = None
    layout: str | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    cached: int | None = None
    computed: int | None = None
    generated: int = 0
    reused: bool = False
    """Whether it came from an earlier answer, without the model."""
    first: float | None = None
    """Seconds to the first text."""
    total: float = 0.0
    """Seconds in all."""


@dataclass(slots=True)
class _Attempt:
    earlier: list[_Attempt]
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    dismissed: Reason | None = None
    task: asyncio.Task[Outcome] = field(init=False)

    def dismiss(self, reason: Reason) -> None:
        """End it with an empty answer. Its task may be done already: what was found must not be shown any more."""
        if self.dismissed is None:
            self.dismissed = reason
            self.task.cancel()


@dataclass(slots=True)
class _Tally:
    """What a stream has brought so far."""

    started: float
    logprobs: list[float] = field(default_factory=list)
    generated: int = 0
    first: float | None = None
    finish: str | None = None
    usage: dict[str, Any] | None = None
    extension: dict[str, Any] = field(default_factory=dict)


class Completer:
    """Requests of one language server. Use from one event loop."""

    def __init__(self, engine: Engine, max_tokens: int, clock: Callable[[], float], progress: Progress | None = None):
        self._engine = engine
        self._max_tokens = max_tokens
        self._clock = clock
        self._progress = progress
        self._unanswered: dict[str, list[_Attempt]] = {}
        self._store = ReuseStore()

    async def complete(
        self,
        document: str,
        window: Window,
        *,
        invoked: bool,
        on_text: Callable[[str], None] | None = None,
        candidates: int = 1,
    ) -> Outcome:
        """Complete at the cursor. Cancelling this call stops the model.

        A newer call for the same document ends this one as superseded, and starts when this one's reply is out.
        """
        unanswered = self._unanswered.setdefault(document, [])
        attempt = _Attempt(earlier=unanswered.copy())
        attempt.task = asyncio.create_task(self._attempt(attempt, window, document, invoked, on_text, candidates))
        unanswered.append(attempt)
        for earlier in attempt.earlier:
            earlier.dismiss(Reason.SUPERSEDED)
        try:
            outcome = await attempt.task
            return outcome if attempt.dismissed is None else Outcome(reason=attempt.dismissed)
        except asyncio.CancelledError:
            attempt.task.cancel()
            if attempt.dismissed is None:
                raise
            return Outcome(reason=attempt.dismissed)
        finally:
            attempt.answered.set()
            unanswered.remove(attempt)
            if not unanswered and self._unanswered.get(document) is unanswered:
                del self._unanswered[document]

    def outdate(self, document: str) -> None:
        """The text changed: a completion for the older one must not be shown. What was streamed of it stays in store."""
        for attempt in self._unanswered.get(document, ()):
            attempt.dismiss(Reason.OUTDATED)

    def forget(self, document: str) -> None:
        """The document was closed."""
        self.outdate(document)
        self._store.forget(document)

    async def _attempt(
        self,
        attempt: _Attempt,
        window: Window,
        document: str,
        invoked: bool,
        on_text: Callable[[str], None] | None,
        candidates: int,
    ) -> Outcome:
        for earlier in attempt.earlier:
            await earlier.answered.wait()
            await asyncio.sleep(0)  # its reply is written in this turn of the loop
        attempt.earlier.clear()
        from engine.api import CompletionRequest, Extension  # 70 ms of pydantic, which initialize need not wait for

        started = self._clock()
        if not invoked and (reason := wanted(window)):
            return Outcome(reason=reason)
        if (outcome := self._from_store(document, window, started)) is not None:
            return outcome
        request = CompletionRequest(
            prompt=window.prefix,
            suffix=window.suffix,
            max_tokens=self._max_tokens,
            temperature=0,
            logprobs=0,
            n=candidates,
            starfill=Extension(document=document),
        )
        try:
            return await self._ask(request, document, window, invoked, on_text, started)
        except EngineLoading as error:
            return Outcome(reason=Reason.LOADING, detail=str(error), total=self._clock() - started)
        except EngineUnavailable as error:
            return Outcome(reason=Reason.ENGINE_DOWN, detail=str(error), total=self._clock() - started)
        except RequestError as error:
            return Outcome(reason=Reason.REFUSED, detail=error.message, total=self._clock() - started)

    def _from_store(self, document: str, window: Window, started: float) -> Outcome | None:
        """The answer, if the model has said already what comes here, and whether that is all that is to be shown."""
        found = self._store.find(document, window)
        if found is None:
            return None
        shaper = Shaper(window)
        if not shaper.feed(found.rest).enough and not found.source.ended:
            return None
        text, reason = shaper.finish()
        took = self._clock() - started
        return Outcome(
            items=(Item(text, found.source.logprob),) if text else (),
            reason=reason,
            layout=found.source.layout,
            finish_reason="stop",
            cached=0,
            computed=0,
            reused=True,
            first=took if text else None,
            total=took,
        )

    async def _ask(
        self,
        request: CompletionRequest,
        document: str,
        window: Window,
        invoked: bool,
        on_text: Callable[[str], None] | None,
        started: float,
    ) -> Outcome:
        await self._engine.ready(invoked=invoked, progress=self._progress)
        try:
            return await self._stream(request, document, window, on_text, started)
        except EngineAbsent:
            # It left or died since it was last heard of, and was not sent anything: start it, and ask again.
            await self._engine.ready(invoked=invoked, progress=self._progress)
            return await self._stream(request, document, window, on_text, started)

    async def _stream(
        self,
        request: CompletionRequest,
        document: str,
        window: Window,
        on_text: Callable[[str], None] | None,
        started: float,
    ) -> Outcome:
        shaper, tally, shown = Shaper(window), _Tally(started), ""
        ended = False
        try:
            async with self._engine.complete(request) as chunks:
                async for chunk in chunks:
                    if chunk.index == 0:
                        shaped = self._take(chunk, shaper, tally)
                        if shaped.text != shown and shaped.text.strip() and on_text is not None:
                            on_text(without_overlap(shaped.text, window.rest_of_line))
                        shown = shaped.text
                        if shaped.enough:
                            break
            ended = tally.finish == "stop"
        finally:  # also when the stream is broken off: what was said is worth keeping
            mean = sum(tally.logprobs) / len(tally.logprobs) if tally.logprobs else None
            layout = tally.extension.get("layout")
            self._store.remember(document, window, shaper.raw, ended=ended, logprob=mean, layout=layout)
        text, reason = shaper.finish()
        return Outcome(
            items=(Item(text, mean),) if text else (),
            reason=reason,
            layout=layout,
            finish_reason=tally.finish or "stop",
            usage=tally.usage or _usage(tally),
            cached=tally.extension.get("cached"),
            computed=tally.extension.get("computed"),
            generated=tally.generated,
            first=tally.first,
            total=self._clock() - started,
        )

    def _take(self, chunk: Chunk, shaper: Shaper, tally: _Tally) -> Shaped:
        tally.extension |= chunk.extension or {}
        tally.usage = chunk.usage or tally.usage
        tally.finish = chunk.finish_reason or tally.finish
        tally.logprobs.extend(chunk.logprobs)
        tally.generated += len(chunk.logprobs)
        shaped = shaper.feed(chunk.text)
        if tally.first is None and shaped.text:
            tally.first = self._clock() - tally.started
        return shaped


def _usage(tally: _Tally) -> dict[str, Any] | None:
    """The usage of a stream that was stopped before the engine could say it."""
    if not tally.extension:
        return None
    cached, computed = tally.extension.get("cached", 0), tally.extension.get("computed", 0)
    return {
        "prompt_tokens": cached + computed,
        "completion_tokens": tally.generated,
        "total_tokens": cached + computed + tally.generated,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
