"""Carries out what `life.Life` decides: tasks for streams, timers for alarms, one outcome for each call. Use from one loop.

Knows no protocol and no buffer: it is given a window and gives back an outcome, exactly one for each request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from engine.client import Chunk
from lsp_server.reasons import Reason
from lsp_server.reuse import ReuseStore
from lsp_server.state.debounce import Debounce
from lsp_server.state.events import (
    NOWHERE,
    Alarm,
    Answer,
    Arrived,
    Ask,
    Asked,
    Call,
    Cancelled,
    Close,
    Closed,
    Edited,
    Effect,
    Event,
    Fail,
    Item,
    Open,
    Outcome,
    Over,
    Pasted,
    Prepare,
    Ready,
    Release,
    Replied,
    RequestId,
    Show,
    StreamId,
    Surroundings,
    Typed,
    Wake,
)
from lsp_server.state.life import Life
from lsp_server.state.stages import Policy
from lsp_server.window import Window
from lsp_server.wire import Wire

if TYPE_CHECKING:
    from engine.api import CompletionRequest

__all__ = ["Completer", "Engine", "Item", "Outcome", "Policy", "Progress"]

log = logging.getLogger(__name__)

Progress = Callable[[str], None]
Later = Callable[[float, Callable[[], None]], object]

_TaskName = tuple[int, str, int]
"""Whose task it is, what for, and the request's or stream's number."""

PLAIN = Policy(debounce=False, speculate=False)
"""For one request on its own."""


class Engine(Protocol):
    """What the completer needs of an engine."""

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


@dataclass(slots=True)
class _Caller:
    on_text: Callable[[str], None] | None
    waited: float | None = None
    """Seconds until its first text, if it has been shown some."""
    outcome: Outcome | None = None
    error: Exception | None = None
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class Completer:
    """Requests of one language server."""

    def __init__(
        self,
        engine: Engine,
        max_tokens: int,
        clock: Callable[[], float],
        progress: Progress | None = None,
        *,
        policy: Policy = PLAIN,
        later: Later | None = None,
    ) -> None:
        """`later(seconds, callback)` is how it waits; the running loop's timer if left out."""
        self._engine = engine
        self._clock = clock
        self._progress = progress
        self._later = later
        self._store = ReuseStore()
        self._life = Life(policy, self._store, Debounce())
        self._lives = 0  # how many there were before this one
        self._wire = Wire(max_tokens)
        self._callers: dict[RequestId, _Caller] = {}
        self._tasks: dict[_TaskName, asyncio.Task[None]] = {}
        self._last = 0
        self._closed = False

    def configure(self, *, max_tokens: int, policy: Policy, scope: str) -> None:
        """Settings changed. `scope` names all that a completion depends on; what was said under another is not reused."""
        self._life.policy = replace(policy, prime=self._life.policy.prime)  # what the engine can do is no setting
        self._wire.max_tokens = max_tokens
        self._store.scope = f"{scope} {max_tokens}"

    def require(self, min_confidence: int, min_in_prose: int) -> None:
        """The least confidence of what is shown unasked may have changed, in per cent; see `Policy`."""
        policy = self._life.policy
        if (policy.min_confidence, policy.min_in_prose) != (min_confidence, min_in_prose):
            self._life.policy = replace(policy, min_confidence=min_confidence, min_in_prose=min_in_prose)

    def use(self, engine: Engine) -> None:
        """Ask another engine from now on."""
        self._engine = engine
        self._life.lost()

    async def complete(
        self,
        document: str,
        window: Window,
        *,
        invoked: bool,
        on_text: Callable[[str], None] | None = None,
        candidates: int = 1,
        patience: float | None = None,
        surroundings: Surroundings = NOWHERE,
    ) -> Outcome:
        """Complete at the cursor. Cancelling this call stops the model.

        A newer call for the same document ends this one as superseded, and starts when this one's reply is out.
        `patience`: seconds after which it is answered with what is there; the model goes on for the next call.
        """
        self._last += 1
        number = self._last
        caller = self._callers[number] = _Caller(on_text)
        self._feed(Asked(number, Ask(document, window, invoked, candidates, patience, surroundings)))
        try:
            await caller.answered.wait()
        except asyncio.CancelledError:
            self._feed(Cancelled(number))
            raise
        finally:
            del self._callers[number]
            # The reply is written when this call's task ends: in the next turn of the loop, as this event comes. What
            # follows from the event needs one more turn.
            asyncio.get_running_loop().call_soon(self._feed, Replied(number))
        if caller.error is not None:
            raise caller.error
        assert caller.outcome is not None  # noqa: S101
        return caller.outcome if caller.waited is None else replace(caller.outcome, waited=caller.waited)

    def edited(self, document: str, typed: tuple[Typed, ...] | None = None) -> None:
        """The text changed: a completion for the older one must not be shown. Streams go on that agree with `typed`, the
        edits in their order if all were just where the author writes.
        """
        self._feed(Edited(document, typed))

    def pasted(self, document: str, window: Window) -> None:
        """Much was put in at once where the author writes; `window` is what stands around its end."""
        self._feed(Pasted(document, window))

    def forget(self, document: str) -> None:
        """The document was closed."""
        self._feed(Closed(document))
        self._wire.forget(document)

    def shown_at(self, document: str, window: Window) -> bool:
        """Whether the last completion was shown at this very place, so that asking again asks for others."""
        return self._life.shown_at(document, window)

    @property
    def at_rest(self) -> bool:
        """Whether nothing is under way."""
        return self._life.at_rest and not self._tasks

    def counts(self) -> dict[str, int]:
        """How requests were served, since the start."""
        life = self._life.counts
        return {
            "asked": life.asked,
            "reused": life.reused,
            "attached": life.attached,
            "completed": life.completed,
            "sampled": life.sampled,
            "primed": life.primed + self._life.ahead.primed,
            "speculated": self._life.ahead.completed,
            "generated": life.generated,
            "sent": self._wire.requests,
            "bytes": self._wire.bytes,
        }

    async def aclose(self) -> None:
        """Stop all that is under way, and answer it."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for caller in self._callers.values():  # a reply for each, also at the end
            caller.outcome = caller.outcome or Outcome(reason=Reason.CANCELLED)
            caller.answered.set()

    def _feed(self, event: Event, born: int | None = None) -> None:
        """`born`: for which life the event is, if not for any. Never raises: somebody waits for what it leads to."""
        if self._closed or (born is not None and born != self._lives):
            return
        try:
            for effect in self._life.handle(event, self._clock()):
                self._carry_out(effect)
        except Exception as error:  # noqa: BLE001 (whatever it is, all that wait get their reply)
            self._start_over(error)

    def _start_over(self, error: Exception) -> None:
        """Our own failure: nothing that is known of requests and streams can be trusted any more. Answer all, forget all."""
        log.error("a completion failed: %s", type(error).__name__)
        self._lives += 1
        former, self._store = self._life, ReuseStore(self._store.scope)
        self._life = Life(former.policy, self._store, Debounce())
        self._life.counts = former.counts
        for name in list(self._tasks):
            self._stop(name)
        for caller in self._callers.values():
            if not caller.answered.is_set():
                caller.outcome = Outcome(reason=Reason.FAILED)
                caller.answered.set()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Answer(request, outcome):
                if (caller := self._callers.get(request)) is not None:
                    caller.outcome = outcome
                    caller.answered.set()
                if outcome.reason is not None and outcome.answer is not None:
                    self._engine.not_shown(outcome.answer, outcome.reason)
            case Fail(request, error):
                if (caller := self._callers.get(request)) is not None:
                    caller.error = error
                    caller.answered.set()
            case Show(request, text, waited):
                if (caller := self._callers.get(request)) is not None and caller.on_text is not None:
                    caller.waited = waited if caller.waited is None else caller.waited
                    caller.on_text(text)
            case Prepare(request, invoked):
                self._start((self._lives, "prepare", request), self._prepare(request, invoked, self._lives))
            case Release(request):
                self._stop((self._lives, "prepare", request))
            case Open(stream, call):
                born = self._lives
                task = self._start((born, "stream", stream), self._stream(stream, call, born))
                task.add_done_callback(lambda done: self._over(stream, done, born))
            case Close(stream):
                self._stop((self._lives, "stream", stream))
            case Wake(at, alarm):
                self._wake(max(0.0, at - self._clock()), alarm)

    def _wake(self, delay: float, alarm: Alarm) -> None:
        later = self._later or asyncio.get_running_loop().call_later
        born = self._lives
        later(delay, lambda: self._feed(alarm, born))

    async def _prepare(self, request: RequestId, invoked: bool, born: int) -> None:
        error: Exception | None = None
        try:
            await self._engine.ready(invoked=invoked, progress=self._progress)
        except Exception as failure:  # noqa: BLE001 (whatever it is, the request that waits for it gets to know)
            error = failure
        self._recognise()
        self._feed(Ready(request, error), born)

    async def _stream(self, stream: StreamId, call: Call, born: int) -> None:
        async with self._engine.complete(self._wire.encode(call)) as chunks:
            async for chunk in chunks:
                self._feed(Arrived(stream, chunk), born)
            self._tasks.pop((born, "stream", stream), None)  # it closes its connection by itself now

    def _over(self, stream: StreamId, task: asyncio.Task[None], born: int) -> None:
        error = None if task.cancelled() else task.exception()
        self._recognise()
        self._feed(Over(stream, error if isinstance(error, Exception) else None), born)

    def _recognise(self) -> None:
        """Go by what the engine has shown that it can do."""
        if self._life.policy.prime != self._engine.primes:
            self._life.policy = replace(self._life.policy, prime=self._engine.primes)

    def _start(self, name: _TaskName, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))
        return task

    def _stop(self, name: _TaskName) -> None:
        if (task := self._tasks.get(name)) is None:
            return
        by_itself = task is asyncio.current_task()
        if by_itself:
            task.cancel()
        else:
            # It may wait for its connection. The HTTP library sets the future that it waits with as soon as there is
            # something to read, cancelled or not, and fails in the latter case; a turn of the loop does that before timers.
            asyncio.get_running_loop().call_later(0, task.cancel)
