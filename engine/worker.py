"""The decode loop's own thread: takes requests in, runs one forward pass after another, hands text out."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.errors import EngineFault, StarfillError
from engine.generation import Delta, Generation
from engine.scheduler import Scheduler
from engine.step import Runner, Step

log = logging.getLogger(__name__)

Deliver = Callable[[Delta | StarfillError], None]
"""Called on the worker's thread: quick, and never raising."""


@dataclass(slots=True)
class Counters:
    """What the worker has done since it started. Written by its thread, read by any."""

    forward_calls: int = 0
    tokens_generated: int = 0
    aborted: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Inbox:
    submitted: deque[tuple[Generation, Deliver]] = field(default_factory=deque)
    aborted: deque[int] = field(default_factory=deque)
    stopping: bool = False


class Worker:
    """Owns the scheduler and the runner: nobody else touches them once it has started."""

    def __init__(
        self, scheduler: Scheduler, runner: Runner, clock: Callable[[], float], on_death: Callable[[], None]
    ) -> None:
        self.counters = Counters()
        self._scheduler = scheduler
        self._runner = runner
        self._clock = clock
        self._on_death = on_death
        self._inbox = _Inbox()
        self._wake = threading.Condition()
        self._deliver: dict[int, Deliver] = {}
        self._thread = threading.Thread(target=self._live, name="starfill-decode", daemon=True)

    @property
    def scheduler(self) -> Scheduler:
        """For reading its counts."""
        return self._scheduler

    @property
    def active(self) -> int:
        """Requests that have not ended."""
        return self._scheduler.running + self._scheduler.waiting + len(self._inbox.submitted)

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
        """Queue a generation. `deliver` gets its deltas up to the one that carries `finish`, or one error."""
        with self._wake:
            if not self._inbox.stopping:
                self._inbox.submitted.append((generation, deliver))
                self._wake.notify()
                return
        deliver(EngineFault("the engine is shutting down; ask again"))

    def abort(self, generation_id: int) -> None:
        """Stop a generation before the next forward pass; nothing more is delivered for it. Unknown ids are ignored."""
        with self._wake:
            self._inbox.aborted.append(generation_id)
            self._wake.notify()

    def _live(self) -> None:
        try:
            self._loop()
        except BaseException:
            log.exception("the decode thread died")
            self._on_death()
        with self._wake:
            self._inbox.stopping = True
            unfinished = [*self._deliver.values(), *(deliver for _, deliver in self._inbox.submitted)]
        for deliver in unfinished:
            deliver(EngineFault("the engine is shutting down; ask again"))

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not (self._inbox.submitted or self._inbox.aborted or self._inbox.stopping):
                    if self._scheduler.running or self._scheduler.waiting:
                        break
                    self._scheduler.check_integrity()
                    self._wake.wait()
                if self._inbox.stopping:
                    return
                self._take_in()
            step = self._scheduler.plan()
            if step is not None:
                self._run(step)

    def _take_in(self) -> None:
        while self._inbox.submitted:
            generation, deliver = self._inbox.submitted.popleft()
            try:
                self._scheduler.submit(generation)
            except StarfillError as error:
                deliver(error)
            else:
                self._deliver[generation.id] = deliver
        while self._inbox.aborted:
            generation_id = self._inbox.aborted.popleft()
            if self._scheduler.abort(generation_id):
                self.counters.aborted += 1
                del self._deliver[generation_id]

    def _run(self, step: Step) -> None:
        started = self._clock()
        try:
            samples = self._runner.run(step)
        except Exception as error:
            log.exception("a forward pass over %d tokens failed", len(step.ids))
            for generation in self._scheduler.fail(step):
                self.counters.failed += 1
                self._deliver.pop(generation.id)(EngineFault(f"a forward pass failed: {type(error).__name__}"))
            return
        self.counters.forward_calls += 1
        self._scheduler.observe(len(step.ids), self._clock() - started)
        for progress in self._scheduler.commit(step, samples):
            self._report(progress.generation, progress.delta)

    def _report(self, generation: Generation, delta: Delta) -> None:
        self.counters.tokens_generated += len(delta.tokens)
        deliver = self._deliver[generation.id]
        if delta.finish is not None:
            del self._deliver[generation.id]
        if delta.text or delta.tokens or delta.finish is not None:
            deliver(delta)
