"""One engine process: bind the socket, load the model behind it, serve, leave nothing behind."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from engine import __version__, standard_error
from engine.containment import Containment
from engine.endpoint import Bound, Endpoint
from engine.errors import StarfillError
from engine.guard import MAX_HEAD, BodyBudget, GuardedProtocol, TcpGuard, drop_overdue
from engine.instruct import Following
from engine.intake import Intake
from engine.kv_slots import KvSlots
from engine.logs import log_loop_error
from engine.metrics import Metrics
from engine.scheduler import Scheduler
from engine.service import EngineState, Service
from engine.step import Runner
from engine.watchdog import Compilation, Limits, Vitals, Watchdog
from engine.worker import Worker

__all__ = ["DRAIN_SECONDS", "Endpoint", "Loaded", "serve"]

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
"""How long requests under way may take to end once the engine was told to leave; then they end with an error."""

HUNG_EXIT = 70
"""Exit code of an engine that ended itself because it hung (EX_SOFTWARE)."""

_LAST_WORDS_SECONDS = 0.5

_LEAVE = (signal.SIGTERM, signal.SIGINT)

_END_SECONDS = 5
"""Longest that an engine which hangs may take to end."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to run. `why` says, for people, why this device and dtype were chosen, `note` what to know of it."""

    intake: Intake
    runner: Runner
    dtype: str
    device: str
    max_batch: int | None = None
    why: str = ""
    backend: str = "native"
    note: str = ""
    following: Following = field(default_factory=Following)
    idle: Callable[[], bool] | None = None
    """What to do while nobody waits; see `Worker`."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How an engine is to live."""

    idle_exit: float | None = None
    """Leave after so many seconds without a request."""
    drain: float = DRAIN_SECONDS
    limits: Limits = field(default_factory=Limits)
    flags: Mapping[str, Any] = field(default_factory=dict)
    """What it was started with, for those who ask for something else later."""
    check_each_step: bool = False
    """Check the books after every forward pass, not only when idle: for tests."""


def serve(model_id: str, load: Callable[[], Loaded], endpoint: Endpoint, manner: Manner | None = None) -> int:
    """Run until told to stop, or idle for too long -> the process' exit code. Raises EndpointTaken, StarfillError."""
    standard_error.ready()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # see `_end_hung`
    # Until the event loop takes the signals over they are only noted: an exception would leave things half begun, threads
    # that wait for others among them.
    told: list[int] = []
    for number in _LEAVE:
        signal.signal(number, lambda number, _: told.append(number))
    bound = endpoint.bind()
    try:
        return _serve_on(bound, model_id, load, manner or Manner(), told)
    finally:
        bound.close()


def _serve_on(bound: Bound, model_id: str, load: Callable[[], Loaded], manner: Manner, told: Sequence[int]) -> int:
    state = EngineState(model_id, facts={"pid": os.getpid(), "model": model_id}, flags=manner.flags)
    metrics = Metrics()
    service = Service(state, metrics)
    contained = Containment(BodyBudget(service.app))
    app: ASGIApp = contained
    if bound.endpoint.path is None:
        app = TcpGuard(app, bound.endpoint.token, bound.endpoint.host, bound.port)
    server = _Server(
        uvicorn.Config(
            app,
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=MAX_HEAD,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=int(manner.drain) + 2,
        )
    )
    engine = _Engine(state, metrics, server, bound, contained, manner)
    try:
        asyncio.run(engine.run(load, told))
    finally:
        engine.stop()
        service.close()
    return 1 if state.failure else 0


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again when it is done, which would end the process before it cleans up."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Engine:
    """Ties the life of the model to the life of the server."""

    def __init__(
        self,
        state: EngineState,
        metrics: Metrics,
        server: uvicorn.Server,
        bound: Bound,
        contained: Containment,
        manner: Manner,
    ) -> None:
        self._state = state
        self._metrics = metrics
        self._server = server
        self._bound = bound
        self._contained = contained
        self._manner = manner
        self._compilation = Compilation()
        self._beats = 0
        self._loop: asyncio.AbstractEventLoop
        self._watchdog = Watchdog(manner.limits, self._vitals, self._end_hung)

    async def run(self, load: Callable[[], Loaded], told: Sequence[int]) -> None:
        """Until it is told to leave, as it may have been by signals already."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(log_loop_error)
        self._publish("", "")
        threading.Thread(target=self._load, args=(load,), name="starfill-load", daemon=True).start()
        for number in _LEAVE:
            self._loop.add_signal_handler(number, self._leave)
        for _ in told:
            self._leave()
        self._watchdog.start()
        housekeeping = asyncio.create_task(self._housekeeping())
        try:
            await self._server.serve(sockets=[self._bound.listener])
        finally:
            housekeeping.cancel()

    def stop(self) -> None:
        if self._state.worker is not None:
            self._state.worker.stop()  # still watched: the pass that it waits for may hang
        self._watchdog.stop()

    def _load(self, load: Callable[[], Loaded]) -> None:
        try:
            loaded = load()
            runner = loaded.runner
            scheduler = Scheduler(
                KvSlots(runner.slots, runner.window), max_running=loaded.max_batch, free_rows=runner.free_rows
            )
            died = partial(self._fail, "the engine broke; it is started again with the next request")
            worker = Worker(
                scheduler,
                runner,
                time.perf_counter,
                on_death=died,
                check_each_step=self._manner.check_each_step,
                idle=loaded.idle,
            )
            gc.collect()
            gc.freeze()  # what was loaded stays: no collection need walk it again
            self._compilation.listen()
            worker.start()
            self._begin(loaded, worker)
        except StarfillError as error:
            self._fail(str(error))
        except Exception as error:
            log.exception("the model could not be loaded")
            self._fail(f"the model could not be loaded: {type(error).__name__}")

    def _begin(self, loaded: Loaded, worker: Worker) -> None:
        """Let requests in."""
        self._metrics.watch(worker, loaded.device)
        self._state.facts |= {
            "dtype": loaded.dtype,
            "device": loaded.device,
            "why": loaded.why,
            "backend": loaded.backend,
            "note": loaded.note,
        }
        self._state.intake = loaded.intake
        self._state.following = loaded.following
        try:
            self._publish(loaded.dtype, loaded.device)
        except StarfillError as error:
            log.warning("the record does not name dtype and device: %s", error)  # the one from before is good enough
        self._state.last_request = time.monotonic()
        self._state.worker = worker
        log.info("ready: %s, %s on %s", self._state.model_id, loaded.dtype, loaded.device)

    def _fail(self, reason: str) -> None:
        log.error("%s", reason)
        self._state.failure = reason

    def _publish(self, dtype: str, device: str) -> None:
        self._bound.publish(self._state.model_id, dtype, device, __version__)

    def _leave(self) -> None:
        """Take nothing new, let what is under way end, and go; told twice, go at once."""
        if self._state.draining:
            self._server.force_exit = True
            return
        self._state.draining = True
        self._server.should_exit = True
        self._loop.call_later(self._manner.drain, self._contained.interrupt, "the engine is leaving; ask again")

    async def _housekeeping(self) -> None:
        """Keep the bounds; leave when idle, and when the model failed: a moment later, so that waiters read the reason."""
        idle_exit, stderr = self._manner.idle_exit, standard_error.own_file()
        while True:
            await asyncio.sleep(min(1.0, idle_exit / 4) if idle_exit else 1.0)
            self._beats += 1
            drop_overdue(list(self._server.server_state.connections), self._loop.time())
            if stderr is not None:
                standard_error.cut(stderr)
            if self._server.should_exit:
                continue
            if self._state.failure is not None:
                await asyncio.sleep(1.0)
                self._server.should_exit = True
            elif idle_exit and self._state.worker and self._state.idle_seconds() > idle_exit:
                log.info("idle for %.0f s: leaving", idle_exit)
                self._leave()

    def _vitals(self) -> Vitals:
        worker = self._state.worker
        return Vitals(
            loading=worker is None and self._state.failure is None,
            busy_since=worker.busy_since if worker is not None else None,
            passes=worker.counters.forward_calls if worker is not None else 0,
            compiling=self._compilation.running,
            beats=self._beats,
        )

    def _end_hung(self, what: str) -> None:
        """Called on the watchdog's thread. Everybody who waits is told, if the event loop can; then the process ends.

        Whatever fails on the way, and by the kernel's hand if something hangs: a log's lock, a pipe that nobody reads.
        """
        signal.alarm(_END_SECONDS)
        reason = f"the engine hung: {what}"
        steps: tuple[Callable[[], object], ...] = (
            partial(self._tell, reason),
            partial(log.critical, "%s; it ends itself", reason),
            faulthandler.dump_traceback,
            partial(standard_error.say, reason),  # the last line is what a client that started us shows
            self._bound.close,
            logging.shutdown,
        )
        try:
            for each in steps:
                with suppress(Exception):
                    each()
        finally:
            os._exit(HUNG_EXIT)

    def _tell(self, reason: str) -> None:
        self._state.failure = reason

        async def tell() -> None:
            self._contained.interrupt(f"{reason}; it is started again with the next request")
            await self._contained.settled()
            await asyncio.sleep(0.05)  # for the last bytes to leave

        asyncio.run_coroutine_threadsafe(tell(), self._loop).result(_LAST_WORDS_SECONDS)
