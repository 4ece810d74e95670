"""The decode loop's own thread: takes requests in, runs one forward pass after another, hands text out."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from engine.errors import DeviceMemoryExhausted, EngineFault, Overloaded, StarfillError
from engine.generation import Delta, Generation
from engine.scheduler import Progress, Scheduler
from engine.step import Runner, Step

log = logging.getLogger(__name__)

Deliver = Callable[[int, Delta | StarfillError], None]
"""Takes the number of a candidate and what it got. Called on the worker's thread: quick, and never raising."""


@dataclass(slots=True)
class Counters:
    """What the worker has done since it started. Written by its thread, read by any."""

    forward_calls: int = 0
    tokens_generated: int = 0
    tokens_regrown: int = 0
    aborted: int = 0
    failed: int = 0
    refused: int = 0
    memory_exhausted: int = 0


@dataclass(slots=True)
class _Inbox:
    submitted: deque[tuple[Generation, Deliver]] = field(default_factory=deque)
    aborted: deque[int] = field(default_factory=deque)
    paused: deque[tuple[int, bool]] = field(default_factory=deque)
    stopping: bool = False

    def __bool__(self) -> bool:
        return bool(self.submitted or self.aborted or self.paused or self.stopping)


@dataclass(slots=True)
class _Reader:
    """Who gets a request's deltas, and how many of its candidates have not ended."""

    deliver: Deliver
    candidates: int


class Worker:
    """Owns the scheduler and the runner: nobody else touches them once it has started.

    `busy_since` is the clock's value when the running forward pass began, None between passes. With `check_each_step`
    the books are checked after every pass, not only when there is nothing to do. `idle` is called then, again and again
    while it says that there is more to prepare and nobody comes.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        clock: Callable[[], float],
        on_death: Callable[[], None],
        *,
        check_each_step: bool = False,
        idle: Callable[[], bool] | None = None,
    ) -> None:
        self.counters = Counters()
        self.busy_since: float | None = None
        self._scheduler = scheduler
        self._runner = runner
        self._clock = clock
        self._on_death = on_death
        self._check_each_step = check_each_step
        self._idle = idle
        self._inbox = _Inbox()
        self._wake = threading.Condition()
        self._readers: dict[int, _Reader] = {}
        self._thread = threading.Thread(target=self._live, name="starfill-decode", daemon=True)

    @property
    def scheduler(self) -> Scheduler:
        """For reading its counts."""
        return self._scheduler

    @property
    def active(self) -> int:
        """Requests that have not ended."""
        return len(self._readers) + len(self._inbox.submitted)

    def start(self) -> None:
        """Begin to serve."""
        sys.setswitchinterval(5e-4)  # the default of 5 ms would hold every token back that long
        self._thread.start()

    def stop(self) -> None:
        """End after the pass that is running; what is unfinished gets an error."""
        with self._wake:
            self._inbox.stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, generation: Generation, deliver: Deliver) -> None:
        """Queue a request by its first candidate.

        `deliver` gets the deltas of each candidate up to the one that carries `finish`, or one error for the whole request.
        """
        with self._wake:
            if not self._inbox.stopping:
                self._inbox.submitted.append((generation, deliver))
                self._wake.notify()
                return
        deliver(generation.candidate, EngineFault("the engine is shutting down; ask again"))

    def abort(self, request: int) -> None:
        """Stop a request before the next forward pass; nothing more is delivered for it. Unknown ids are ignored."""
        with self._wake:
            self._inbox.aborted.append(request)
            self._wake.notify()

    def pause(self, request: int, paused: bool) -> None:
        """Compute nothing for a request whose reader lags behind, until told to go on. Unknown ids are ignored."""
        with self._wake:
            self._inbox.paused.append((request, paused))
            self._wake.notify()

    def _live(self) -> None:
        try:
            self._loop()
        except BaseException:
            log.exception("the decode thread died")
            self._on_death()
        with self._wake:
            self._inbox.stopping = True
            unfinished = [reader.deliver for reader in self._readers.values()]
            unfinished += [deliver for _, deliver in self._inbox.submitted]
        for deliver in unfinished:
            deliver(0, EngineFault("the engine is shutting down; ask again"))

    def _loop(self) -> None:
        while True:
            with self._wake:
                if self._inbox.stopping:
                    return
                inbox, self._inbox = self._inbox, _Inbox()
                for generation, deliver in inbox.submitted:
                    self._readers[generation.request] = _Reader(deliver, 1 + len(generation.followers))
            self._take_in(inbox)
            step = self._scheduler.plan()
            for generation in self._scheduler.admitted:
                generation.admitted_at = self._clock()
            if step is not None:
                self._run(step)
                continue
            self._scheduler.check_integrity()
            if self._prepare():
                continue
            with self._wake:
                self._wake.wait_for(lambda: bool(self._inbox))

    def _prepare(self) -> bool:
        """Something useful while nobody waits; watched like a pass. -> whether there may be more."""
        if self._idle is None:
            return False
        self.busy_since = self._clock()
        try:
            return self._idle()
        except Exception:
            log.exception("preparing for passes to come failed; nothing more is prepared")
            self._idle = None
            return False
        finally:
            self.busy_since = None

    def _take_in(self, inbox: _Inbox) -> None:
        for generation, _ in inbox.submitted:
            try:
                done = self._scheduler.submit(generation)
            except Overloaded as error:
                self.counters.refused += 1
                self._refuse(generation, error)
                continue
            self._report(done.ended)
            for refused in done.refused:
                self.counters.refused += 1
                self._refuse(refused, Overloaded("newer requests took its place in the queue; ask again if it matters"))
        for request in inbox.aborted:
            if self._readers.pop(request, None) is not None:
                self._scheduler.abort(request)
                self.counters.aborted += 1
        for request, paused in inbox.paused:
            self._scheduler.pause(request, paused)

    def _run(self, step: Step) -> None:
        self.busy_since = started = self._clock()
        try:
            samples = self._runner.run(step)
        except DeviceMemoryExhausted as error:
            self._relieve(step, error)
            return
        except Exception as error:
            log.exception("a forward pass over %d tokens failed", len(step.ids))
            self.counters.failed += 1
            kind = type(error).__name__
            fault = error if isinstance(error, EngineFault) else EngineFault(f"a forward pass failed: {kind}")
            for generation in self._scheduler.fail(step):
                self._refuse(generation, fault)
            return
        finally:
            self.busy_since = None
        self.counters.forward_calls += 1
        self._scheduler.observe(step, self._clock() - started)
        self._report(self._scheduler.commit(step, samples))
        if self._check_each_step:
            self._scheduler.check_integrity()

    def _relieve(self, step: Step, error: DeviceMemoryExhausted) -> None:
        self.counters.memory_exhausted += 1
        relief = self._scheduler.relieve(step)
        if relief.keep is not None:
            self._keep_slots(relief.keep)
        log.warning(
            "no memory for a pass over %d tokens in %d sequences; refused %d, %d KV slots stay",
            len(step.ids), len(step.spans), len(relief.refused), len(self._scheduler.slots),
        )  # fmt: skip
        for generation in relief.refused:
            self._refuse(generation, error)

    def _keep_slots(self, kept: Sequence[int]) -> None:
        slots = self._scheduler.slots
        try:
            self._runner.keep_slots(kept, slots.lengths)
        except Exception:
            if self._runner.slots < len(slots):
                raise  # nothing is left to go on in: the engine ends, and is started again
            log.exception("KV slots could not be moved; what they held is computed again")
            self._scheduler.forget()

    def _refuse(self, generation: Generation, error: StarfillError) -> None:
        """End a request with an error, all its candidates together."""
        reader = self._readers.pop(generation.request, None)
        if reader is not None:
            self._scheduler.abort(generation.request)
            reader.deliver(generation.candidate, error)

    def _report(self, progress: Iterable[Progress]) -> None:
        for each in progress:
            generation, delta = each.generation, each.delta
            self.counters.tokens_generated += len(delta.tokens)
            self.counters.tokens_regrown += not delta.tokens and delta.finish is None
            reader = self._readers[generation.request]
            if delta.finish is not None:
                reader.candidates -= 1
                if reader.candidates == 0:
                    del self._readers[generation.request]
            if delta.text or delta.tokens or delta.finish is not None:
                reader.deliver(generation.candidate, delta)
