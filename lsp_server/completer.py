"""Carries out what `life.Life` decides: an outcome for each call, timers for its alarms, calls of the engine. Use from one
loop.

Knows no protocol and no buffer: it is given a window and gives back an outcome, exactly one for each request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, assert_never

from lsp_server.engine_calls import EngineCalls
from lsp_server.reasons import Reason
from lsp_server.reuse import ReuseStore
from lsp_server.state import effects, events
from lsp_server.state.ask import NOWHERE, Ask, RequestId, Surroundings
from lsp_server.state.debounce import Debounce
from lsp_server.state.effects import Effect
from lsp_server.state.events import Event
from lsp_server.state.life import Life
from lsp_server.state.outcome import Outcome
from lsp_server.state.policy import PLAIN, Policy
from lsp_server.tasks import Tasks
from lsp_server.window import Window
from lsp_server.wire import Wire

if TYPE_CHECKING:
    from lsp_server.engines import Engine, Progress

log = logging.getLogger(__name__)

Later = Callable[[float, Callable[[], None]], object]


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
        self._clock = clock
        self._progress = progress
        self._later = later
        self._wire = Wire(max_tokens)
        self._tasks = Tasks()
        self._callers: dict[RequestId, _Caller] = {}
        self._last = 0
        self._closed = False
        self._begin(ReuseStore(), policy, engine)

    def _begin(self, store: ReuseStore, policy: Policy, engine: Engine) -> None:
        """A life in which nothing has happened yet."""
        self._store = store
        self._life = Life(policy, store, Debounce())
        feed = partial(self._feed_from, self._life)
        self._calls = EngineCalls(engine, self._wire, self._tasks, feed, self._progress)

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
        self._calls.engine = engine
        self._life.lost()

    # -- what happens ------------------------------------------------------------------------------------------------

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
        self._feed(events.Asked(number, Ask(document, window, invoked, candidates, patience, surroundings)))
        try:
            await caller.answered.wait()
        except asyncio.CancelledError:
            self._feed(events.Cancelled(number))
            raise
        finally:
            del self._callers[number]
            # The reply is written when this call's task ends: in the next turn of the loop, as this event comes. What
            # follows from the event needs one more turn.
            asyncio.get_running_loop().call_soon(self._feed, events.Replied(number))
        if caller.error is not None:
            raise caller.error
        assert caller.outcome is not None  # noqa: S101
        return caller.outcome if caller.waited is None else replace(caller.outcome, waited=caller.waited)

    def edited(self, document: str, typed: tuple[events.Typed, ...] | None = None) -> None:
        """The text changed: a completion for the older one must not be shown. Streams go on that agree with `typed`, the
        edits in their order if all were just where the author writes.
        """
        self._feed(events.Edited(document, typed))

    def pasted(self, document: str, window: Window) -> None:
        """Much was put in at once where the author writes; `window` is what stands around its end."""
        self._feed(events.Pasted(document, window))

    def forget(self, document: str) -> None:
        """The document was closed."""
        self._feed(events.Closed(document))
        self._wire.forget(document)

    def _feed(self, event: Event) -> None:
        """Never raises: somebody waits for what it leads to."""
        if self._closed:
            return
        try:
            for effect in self._life.handle(event, self._clock()):
                self._carry_out(effect)
        except Exception as error:  # noqa: BLE001 (whatever it is, all that wait get their reply)
            self._start_over(error)

    def _feed_from(self, life: Life, event: Event) -> None:
        """What has come of something that a life began: nothing, if another has taken its place."""
        if life is not self._life:
            return
        if isinstance(event, events.Ready | events.Over) and life.policy.prime != self._calls.engine.primes:
            life.policy = replace(life.policy, prime=self._calls.engine.primes)  # it has shown what it can do
        self._feed(event)

    # -- what is done about it ---------------------------------------------------------------------------------------

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case effects.Answer(request, outcome):
                if (caller := self._callers.get(request)) is not None:
                    caller.outcome = outcome
                    caller.answered.set()
                if outcome.reason is not None and outcome.answer is not None:
                    self._calls.engine.not_shown(outcome.answer, outcome.reason)
            case effects.Fail(request, error):
                if (caller := self._callers.get(request)) is not None:
                    caller.error = error
                    caller.answered.set()
            case effects.Show(request, text, waited):
                if (caller := self._callers.get(request)) is not None and caller.on_text is not None:
                    caller.waited = waited if caller.waited is None else caller.waited
                    caller.on_text(text)
            case effects.Prepare(request, invoked):
                self._calls.prepare(request, invoked=invoked)
            case effects.Release(request):
                self._calls.release(request)
            case effects.Open(stream, call):
                self._calls.open(stream, call)
            case effects.Close(stream):
                self._calls.close(stream)
            case effects.Wake(at, alarm):
                later = self._later or asyncio.get_running_loop().call_later
                later(max(0.0, at - self._clock()), partial(self._feed_from, self._life, alarm))
            case _:
                assert_never(effect)

    def _start_over(self, error: Exception) -> None:
        """Our own failure: nothing that is known of requests and streams can be trusted any more. Answer all, forget all."""
        log.error("a completion failed: %s", type(error).__name__)
        self._calls.stop()
        counts = self._life.counts
        self._begin(ReuseStore(self._store.scope), self._life.policy, self._calls.engine)
        self._life.counts = counts
        for caller in self._callers.values():
            if not caller.answered.is_set():
                caller.outcome = Outcome(reason=Reason.FAILED)
                caller.answered.set()

    # -- how it stands -----------------------------------------------------------------------------------------------

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
        await self._tasks.aclose()
        for caller in self._callers.values():  # a reply for each, also at the end
            caller.outcome = caller.outcome or Outcome(reason=Reason.CANCELLED)
            caller.answered.set()
