"""The life of requests: a state machine. Events in, effects out; no I/O and no clock.

One request goes through these stages::

    QUEUED      Replied to all older requests of its document ─► answered from memory, or STREAMING on a stream that goes
                on for it, or PREPARING
    PREPARING   Ready ─► STREAMING if invoked, else WAITING (the prompt is sent ahead) or, without a delay, STREAMING;
                SAMPLING if what is wanted are alternatives; an error ─► DONE
    WAITING     Due ─► STREAMING
    STREAMING   enough Arrived, or Over ─► DONE, or SAMPLING if there are to be alternatives; Over, as nobody listened
                ─► PREPARING, once
    SAMPLING    enough Arrived, or Over ─► DONE
    DONE        Replied ─► gone

and from each of them `Edited`, `Closed`, `Cancelled` and a newer `Asked` lead to DONE. `Late` answers, and changes nothing
else: the stream goes on for the next request.

What holds in every order of events (`tests/unit/test_life_interleavings.py`):

- A request has exactly one answer when its reply goes out, or was cancelled. An edit, a newer request and a cancel leave
  it no other chance than to be answered empty, in the same step.
- The engine is asked for a newer request only after the replies to all older ones of its document are out.
- A stream lives on without its request while what is typed agrees with it; a request at a place that it has reached
  takes it over. Otherwise it is closed, and the next one of its document opened when it is over.
- In the background the engine has one call at most, and none while a request needs it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from engine.errors import EngineAbsent
from lsp_server.reasons import Reason
from lsp_server.reuse import ReuseStore
from lsp_server.rules.languages import by_id
from lsp_server.shaping import wanted
from lsp_server.state import effects, events
from lsp_server.state.ask import Ask, RequestId
from lsp_server.state.call import Purpose
from lsp_server.state.debounce import Debounce
from lsp_server.state.effects import Effect
from lsp_server.state.events import Event
from lsp_server.state.outcome import Outcome
from lsp_server.state.policy import Policy
from lsp_server.state.requests import Requests
from lsp_server.state.showing import Showing
from lsp_server.state.speculation import Speculation
from lsp_server.state.stages import Counts, Request, Stage
from lsp_server.state.streams import Stream, reason_of, reused, with_alternatives
from lsp_server.state.switchboard import Switchboard
from lsp_server.window import Window


class Life:
    """Requests of one language server."""

    def __init__(self, policy: Policy, store: ReuseStore, debounce: Debounce) -> None:
        self.policy = policy
        self.counts = Counts()
        self._store = store
        self._debounce = debounce
        self._requests = Requests(self._emit)
        self._board = Switchboard(store, self._emit)
        self._showing = Showing()
        self.ahead = Speculation(self._board, store, self._emit)
        self._last_ask: Ask | None = None
        self._now = 0.0
        self._effects: list[Effect] = []

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in what happened -> what is to be done, in this order."""
        self._now, self._effects = now, []
        match event:
            case events.Asked(number, ask):
                self._asked(number, ask)
            case events.Arrived(number, chunk):
                stream = self._board.find(number)
                if stream is not None and not stream.closing:
                    self._arrived(stream, stream.take(chunk, now))
            case events.Over(number, error):
                if (stream := self._board.find(number)) is not None:
                    self._over(stream, error)
            case events.Edited(document, typed):
                self._edited(document, typed)
            case events.Pasted(document, window):
                self._pasted(document, window)
            case events.Closed(document):
                self._closed(document)
            case events.Idle(serial):
                if not self._requests.at_work:
                    self.ahead.idle(serial, now, prime=self.policy.prime)
            case events.OfRequest(number):
                if (request := self._requests.find(number)) is not None:
                    self._of_request(request, event)
            case _:
                assert_never(event)
        return self._effects

    def _of_request(self, request: Request, event: events.OfRequest) -> None:
        match event, request.stage:
            case events.Ready(_, error), Stage.PREPARING:
                self._ready(request, error)
            case events.Due(), Stage.WAITING:
                request.go_on(min(self._now, request.due))  # an alarm that comes late is our own delay
                self._ask_engine(request, Purpose.COMPLETE)
            case events.Late(), _:
                self._requests.reply(request, Outcome(reason=Reason.PENDING, total=self._now - request.since))
            case events.Cancelled(), _:
                self._cancelled(request)
            case events.Replied(), _:
                self._replied(request)
            case _:
                pass  # it came too late to matter

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    @property
    def at_rest(self) -> bool:
        """Whether nothing is under way."""
        return self._requests.empty and not list(self._board)

    def shown_at(self, document: str, window: Window) -> bool:
        """Whether the last completion was shown at this very place."""
        return self.ahead.shown_at(document, window)

    def lost(self) -> None:
        """The engine is gone, or another one."""
        self._board.lost()

    # -- one request, from being asked to its reply ------------------------------------------------------------------

    def _asked(self, number: RequestId, ask: Ask) -> None:
        self.counts.asked += 1
        self.ahead.stir()
        self._last_ask = ask
        self._dismiss(ask.document, Reason.SUPERSEDED)
        self._requests.enter(Request(number, ask, self._now))
        if ask.patience is not None:
            self._emit(effects.Wake(self._now + ask.patience, events.Late(number)))
        self._begin_next(ask.document)

    def _begin_next(self, document: str) -> None:
        if (request := self._requests.next_of(document)) is not None:
            self._begin(request)

    def _begin(self, request: Request) -> None:
        """It is its turn: answer it from memory, let a stream go on for it, or get an engine ready."""
        ask = request.ask
        if not ask.invoked and (reason := wanted(ask.window, by_id(ask.surroundings.language))) is not None:
            self._answer(request, Outcome(reason=reason))
            return
        if ask.candidates == 1 and self._attach(request):
            return
        found = self._known(request)
        if found is not None and (ask.candidates == 1 or not found.items):
            self.counts.reused += 1
            self._answer(request, found)
            return
        for stream in self._board.of(ask.document):
            if stream.call.purpose is not Purpose.PRIME:  # which the engine ends by itself, and goes on from
                self._board.close(stream)
        request.first = found
        self._prepare(request)

    def _attach(self, request: Request) -> bool:
        """Let a stream that has come to the request's place go on for it -> whether there is one."""
        for stream in self._board.of(request.ask.document):
            typed = stream.agrees(request.ask.window) if stream.owner is None else None
            if typed is not None:
                self.counts.attached += 1
                request.stage, request.stream = Stage.STREAMING, stream.id
                request.wait(self._now)
                self.ahead.taken(stream)
                self._arrived(stream, stream.attach(request.id, request.ask, typed, self._now))
                return True
        return False

    def _known(self, request: Request) -> Outcome | None:
        """The answer, if there is one without the model: what is left of what is shown, unless others are wanted; else what
        the model has said already to come here, and whether that is all that is to be shown.
        """
        ask = request.ask
        found = self._store.find(ask.document, ask.window)
        rest = self._showing.rest(ask, found, request.since, self._now) if ask.candidates == 1 else None
        return rest or (None if found is None else reused(found, ask, request.since, self._now))

    def _prepare(self, request: Request) -> None:
        request.stage = Stage.PREPARING
        request.wait(self._now)
        self._emit(effects.Prepare(request.id, request.ask.invoked))

    def _ready(self, request: Request, error: Exception | None) -> None:
        if error is not None:
            self._fail(request, error)
        elif request.first is not None:
            self._ask_engine(request, Purpose.SAMPLE)
        elif request.ask.invoked or not self.policy.debounce or not (delay := self._debounce.delay(self._now)):
            self._ask_engine(request, Purpose.COMPLETE)
        else:
            request.stage, request.due = Stage.WAITING, self._now + delay
            if self.policy.prime and self._board.worth_priming(request.ask.document, request.ask.window):
                self.counts.primed += 1
                self.ahead.yield_to(request.ask.document)
                self._board.call(request.ask, Purpose.PRIME, request.id, self._now)
            self._emit(effects.Wake(request.due, events.Due(request.id)))

    def _ask_engine(self, request: Request, purpose: Purpose) -> None:
        self.ahead.yield_to(request.ask.document)
        if purpose is Purpose.SAMPLE:
            request.stage = Stage.SAMPLING
            self.counts.sampled += 1
        else:
            request.stage = Stage.STREAMING
            self.counts.completed += 1
        request.wait(self._now)
        request.stream = self._board.call(request.ask, purpose, request.id, self._now).id

    def _arrived(self, stream: Stream, news: str | None) -> None:
        request = self._requests.find(stream.owner)
        if request is not None and news is not None and self._may_show(request, stream):
            self._emit(effects.Show(request.id, news, request.waited(self._now)))
        if stream.enough and stream.call.purpose is not Purpose.PRIME:
            self._board.close(stream)
            if request is not None:
                self._said(request, stream)

    def _may_show(self, request: Request, stream: Stream) -> bool:
        # In prose most is dropped in the end; shown until then, it would flicker.
        doubted = stream.prose or self.policy.doubt(stream.logprob, prose=False) is not None
        sure = request.ask.invoked or not doubted
        return sure and request.outcome is None and request.stage is Stage.STREAMING

    def _said(self, request: Request, stream: Stream) -> None:
        """All that was asked of a stream is there."""
        if stream.call.purpose is Purpose.SAMPLE:
            self._answer(request, with_alternatives(request.first, stream, request.since, self._now))
            return
        outcome = stream.outcome(request.since, self._now)
        if not stream.attached:
            self._debounce.took(self._now - stream.opened)
        if request.ask.candidates == 1 or request.outcome is not None:
            self._answer(request, outcome)
        else:
            request.first = outcome
            self._ask_engine(request, Purpose.SAMPLE)

    def _answer(self, request: Request, outcome: Outcome) -> None:
        if outcome.items and not request.ask.invoked:
            doubt = self.policy.doubt(outcome.items[0].logprob, prose=outcome.prose)
            if doubt is not None:
                outcome = replace(outcome, items=(), reason=doubt[0], detail=doubt[1])
        self.counts.generated += outcome.generated
        self._requests.answer(request, replace(outcome, waited=request.waited(self._now)))

    def _replied(self, request: Request) -> None:
        self._requests.replied(request)
        if request.outcome is not None and request.outcome.items:
            self._showing.shown(request.ask, request.outcome)
            if self.policy.speculate:
                self.ahead.shown(request.ask, request.outcome.items[0].text, self._now)
        self._begin_next(request.ask.document)

    # -- what comes between ------------------------------------------------------------------------------------------

    def _cancelled(self, request: Request) -> None:
        if request.outcome is None:
            for stream in self._board.owned(request.ask.document, request.id):
                self._board.close(stream)
            self._let_go(request)
        request.outcome = Outcome(reason=Reason.CANCELLED)
        self._requests.end(request)

    def _edited(self, document: str, typed: tuple[events.Typed, ...] | None) -> None:
        self._debounce.key(self._now, typed=typed is not None)
        self.ahead.stir()
        self.ahead.hidden()
        self._dismiss(document, Reason.OUTDATED)
        for stream in self._board.of(document):
            if typed is None or not all(stream.follow(edit) for edit in typed):
                self._board.close(stream)

    def _pasted(self, document: str, window: Window) -> None:
        last = self._last_ask
        if last is None or document != last.document or self._requests.at_work:
            return
        if self.policy.speculate and self.policy.prime and self._board.worth_priming(document, window):
            self.ahead.prime(replace(last, window=window, candidates=1), self._now)

    def _closed(self, document: str) -> None:
        self.ahead.stir()
        self.ahead.hidden()
        self._dismiss(document, Reason.OUTDATED)
        for stream in self._board.of(document):
            self._board.close(stream)
        self._store.forget(document)
        self._showing.forget(document)

    def _dismiss(self, document: str, reason: Reason) -> None:
        """Nothing that was asked so far may be shown any more. Streams are left to what comes next."""
        for request in self._requests.of(document):
            self._requests.take_back(request, Outcome(reason=reason, total=self._now - request.since))
            self._let_go(request)
            self._requests.end(request)

    def _let_go(self, request: Request) -> None:
        """Leave what a request has under way to others."""
        if request.stage is Stage.PREPARING:
            self._emit(effects.Release(request.id))
        for stream in self._board.owned(request.ask.document, request.id):
            stream.owner = None
            if stream.call.purpose is Purpose.SAMPLE:
                self._board.close(stream)

    def _over(self, stream: Stream, error: Exception | None) -> None:
        self._board.over(stream, self._now)
        self.ahead.over(stream, error, self._now)
        if error is not None and not stream.closing:
            self._board.lost()  # it may be another engine next time, with nothing on its device
        request = self._requests.find(stream.owner)
        if request is None or request.stream != stream.id or stream.closing:
            return
        if error is None:
            self._said(request, stream)
        else:
            self._broken(request, error)

    def _broken(self, request: Request, error: Exception) -> None:
        if request.first is not None and reason_of(error) is not None:
            self._answer(request, request.first)
        elif isinstance(error, EngineAbsent) and not request.retried:
            # It left or died since it was last heard of, and was not sent anything: start it, and ask again.
            request.retried, request.stream = True, None
            self._prepare(request)
        else:
            self._fail(request, error)

    def _fail(self, request: Request, error: Exception) -> None:
        if (known := reason_of(error)) is not None:
            self._answer(request, Outcome(reason=known[0], detail=known[1], total=self._now - request.since))
        else:
            self._requests.fail(request, error)
