"""One engine process: bind the socket, load the model behind it, serve, leave nothing behind."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from engine import __version__, registry
from engine.errors import StarfillError
from engine.guard import SameUserProtocol, TcpGuard
from engine.intake import Intake
from engine.kv_slots import KvSlots
from engine.metrics import Metrics
from engine.scheduler import Scheduler
from engine.service import EngineState, Service
from engine.step import Runner
from engine.worker import Worker

log = logging.getLogger(__name__)

DRAIN_SECONDS = 5
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to run."""

    intake: Intake
    runner: Runner
    dtype: str
    device: str
    max_batch: int | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen: a Unix socket, or a TCP port with a token."""

    path: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    token: str = ""

    def bind(self) -> socket.socket:
        """A listening socket; the Unix one is mode 0600 from its first moment."""
        if self.path is None:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((self.host, self.port))
            except OSError as error:
                raise StarfillError(f"--host {self.host} --port {self.port}: {error.strerror}") from error
        else:
            _clear_stale(self.path)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            before = os.umask(0o177)
            try:
                listener.bind(str(self.path))
            except OSError as error:
                raise StarfillError(f"--socket {self.path}: {error.strerror or error}") from error
            finally:
                os.umask(before)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        return listener


def serve(model_id: str, load: Callable[[], Loaded], endpoint: Endpoint, idle_exit: float | None) -> int:
    """Run until told to stop, or idle for `idle_exit` seconds -> the process' exit code."""
    # Until the event loop takes the signal over, it must not end us between binding and cleaning up.
    signal.signal(signal.SIGTERM, _leave_at_once)
    listener = endpoint.bind()
    identity = _identity(endpoint.path)
    try:
        return _serve_on(listener, model_id, load, endpoint, idle_exit)
    finally:
        listener.close()
        if endpoint.path is not None and identity == _identity(endpoint.path):
            registry.remove(endpoint.path)


def _leave_at_once(*_: object) -> None:
    raise SystemExit(0)


def _serve_on(
    listener: socket.socket, model_id: str, load: Callable[[], Loaded], endpoint: Endpoint, idle_exit: float | None
) -> int:
    state = EngineState(model_id, facts={"pid": os.getpid(), "model": model_id})
    metrics = Metrics()
    service = Service(state, metrics)
    app: ASGIApp = service.app
    if endpoint.path is None:
        app = TcpGuard(app, endpoint.token, endpoint.host, listener.getsockname()[1])
    server = _Server(
        uvicorn.Config(
            app,
            http=SameUserProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )
    engine = _Engine(state, metrics, server, endpoint)
    try:
        asyncio.run(engine.run(listener, load, idle_exit))
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

    def __init__(self, state: EngineState, metrics: Metrics, server: uvicorn.Server, endpoint: Endpoint) -> None:
        self._state = state
        self._metrics = metrics
        self._server = server
        self._endpoint = endpoint

    async def run(self, listener: socket.socket, load: Callable[[], Loaded], idle_exit: float | None) -> None:
        self._publish("", "")
        threading.Thread(target=self._load, args=(load,), name="starfill-load", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._leave)
        housekeeping = asyncio.create_task(self._housekeeping(idle_exit))
        try:
            await self._server.serve(sockets=[listener])
        finally:
            housekeeping.cancel()

    def stop(self) -> None:
        if self._state.worker is not None:
            self._state.worker.stop()

    def _load(self, load: Callable[[], Loaded]) -> None:
        try:
            loaded = load()
        except StarfillError as error:
            self._fail(str(error))
            return
        except Exception as error:
            log.exception("the model could not be loaded")
            self._fail(f"the model could not be loaded: {type(error).__name__}")
            return
        scheduler = Scheduler(KvSlots(loaded.runner.slots, loaded.runner.window), max_running=loaded.max_batch)
        worker = Worker(scheduler, loaded.runner, time.perf_counter, on_death=lambda: self._fail("the engine broke"))
        worker.start()
        self._metrics.watch(worker)
        self._state.facts |= {"dtype": loaded.dtype, "device": loaded.device}
        self._state.intake = loaded.intake
        self._state.worker = worker
        self._publish(loaded.dtype, loaded.device)
        log.info("ready: %s, %s on %s", self._state.model_id, loaded.dtype, loaded.device)

    def _fail(self, reason: str) -> None:
        log.error("%s", reason)
        self._state.failure = reason

    def _publish(self, dtype: str, device: str) -> None:
        if self._endpoint.path is None:
            return
        registry.write_record(
            registry.EngineRecord(
                os.getpid(), str(self._endpoint.path), self._state.model_id, dtype, device, __version__
            )
        )

    def _leave(self) -> None:
        """Take nothing new, let what is streaming end, and go; told twice, go at once."""
        self._server.force_exit = self._state.draining
        self._state.draining = True
        self._server.should_exit = True

    async def _housekeeping(self, idle_exit: float | None) -> None:
        """Leave when idle, and when the model failed: a moment later, so that whoever waits reads the reason."""
        while not self._server.should_exit:
            await asyncio.sleep(min(1.0, idle_exit / 4) if idle_exit else 1.0)
            if self._state.failure is not None:
                await asyncio.sleep(1.0)
                self._server.should_exit = True
            elif idle_exit and self._state.worker and self._state.idle_seconds() > idle_exit:
                log.info("idle for %.0f s: leaving", idle_exit)
                self._leave()


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; refuse one that somebody does, and anything that is no socket."""
    try:
        if not path.is_socket():
            if path.exists() or path.is_symlink():
                raise StarfillError(f"--socket {path}: exists and is not a socket; remove it or choose another path")
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StarfillError(f"--socket {path}: {error.strerror or error}") from error
    else:
        raise StarfillError(f"--socket {path}: another engine listens there; stop it or choose another path")


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Device and inode, so that only our own socket is removed in the end."""
    try:
        found = path.lstat() if path is not None else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found is not None else None
