"""Find, start and watch the engine that all language servers of this user share. No torch.

However many start at once, a lock lets one of them start the process; it outlives them all and leaves when idle.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import __version__, paths, registry
from engine.client import Chunk, EngineClient
from engine.errors import EngineLoading, EngineUnavailable
from engine.models import ModelSource

if TYPE_CHECKING:
    from engine.api import CompletionRequest

START_SECONDS = 60.0
"""How long a started process may take until its socket answers."""

LOAD_SECONDS = 120.0
"""How long an invoked request waits for a model to load."""

Progress = Callable[[str], None]

_LOG_BYTES = 2**20
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What identifies a shared engine, and how long it stays when nobody asks."""

    source: ModelSource
    device: str = "auto"
    dtype: str = "auto"
    idle_exit: str = "30m"


class SharedEngine:
    """The engine behind a language server, started when first needed. Use from one event loop."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._socket = registry.socket_path(registry.engine_key(options.source, options.dtype, options.device))
        self.client = EngineClient(f"unix:{self._socket}")
        self._starting: asyncio.Task[None] | None = None
        self._listeners: list[Progress] = []
        self._stage: str | None = None
        self._known = False
        self._failures = 0
        self._retry_at = 0.0

    async def ready(self, *, invoked: bool, progress: Progress | None = None) -> None:
        """Return once the engine can complete; at once if it could when last heard of.

        An invoked request waits while it starts and loads, whatever happened before; an automatic one raises
        EngineLoading, and after crashes waits its turn. Raises EngineUnavailable with the reason when it cannot start.
        `progress` hears of the stages, the present one first.
        """
        if self._known:
            return
        if self._starting is None or self._starting.done():
            self._known = await self._state() == "ready"
            if self._known:
                return
        if not invoked and time.monotonic() < self._retry_at:
            raise EngineUnavailable("the engine failed; it is tried again in a moment")
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(_swallow)
        if not invoked:
            raise EngineLoading("the engine is loading its model")
        if progress is not None:
            self._listeners.append(progress)
            if self._stage is not None:
                progress(self._stage)
        await asyncio.shield(self._starting)

    @asynccontextmanager
    async def complete(self, request: CompletionRequest) -> AsyncIterator[AsyncIterator[Chunk]]:
        """Stream a completion; leaving the block stops the model."""
        try:
            async with self.client.complete(request) as chunks:
                yield chunks
        except EngineUnavailable:
            self._known = False
            raise

    async def aclose(self) -> None:
        """Let go of the engine, which goes on."""
        if self._starting is not None:
            self._starting.cancel()
            with suppress(asyncio.CancelledError, EngineUnavailable):
                await self._starting
        await self.client.aclose()

    async def _state(self) -> str:
        try:
            health = await self.client.health()
        except EngineUnavailable:
            return "absent"
        return "outdated" if _older(str(health.get("version")), __version__) else str(health.get("status"))

    async def _start(self) -> None:
        try:
            async with _locked(self._socket.with_suffix(".lock")):
                state = await self._state()
                if state == "outdated":
                    await _retire(self._socket)
                    state = "absent"
                if state in ("absent", "failed", "draining"):
                    self._tell("starting")
                    await self._spawn(gone=state == "absent")
            self._tell("loading")
            await self._loaded()
        except EngineUnavailable:
            self._failures += 1
            self._retry_at = time.monotonic() + min(60.0, 2.0**self._failures)
            raise
        finally:
            self._listeners.clear()
            self._stage = None
        self._failures = 0
        self._known = True

    def _tell(self, stage: str) -> None:
        self._stage = stage
        for listener in self._listeners:
            listener(stage)

    async def _spawn(self, *, gone: bool) -> None:
        until = time.monotonic() + START_SECONDS
        while not gone and await self._state() != "absent":  # a failing or leaving engine frees the socket soon
            _check_deadline(until, self._options)
            await asyncio.sleep(_POLL_SECONDS)
        log = _log_file(self._socket.stem)
        options = self._options
        model = [] if options.source.id == "starfill-starter" else ["--model", str(options.source.directory)]
        command = [
            sys.executable, "-P", "-m", "engine.cli", "serve", "--socket", str(self._socket), *model,
            "--device", options.device, "--dtype", options.dtype, "--idle-exit", options.idle_exit,
        ]  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")}
        with log.open("ab") as sink:
            process = await asyncio.to_thread(
                subprocess.Popen, command, cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=sink,
                stderr=sink, start_new_session=True,
            )  # fmt: skip
        while await self._state() == "absent":
            if process.poll() is not None:
                raise EngineUnavailable(f"the engine could not be started: {_last_line(log)}")
            _check_deadline(until, options)
            await asyncio.sleep(_POLL_SECONDS)
        _reap(process)

    async def _loaded(self) -> None:
        until = time.monotonic() + LOAD_SECONDS
        while True:
            try:
                health = await self.client.health(timeout=5.0)
            except EngineUnavailable:
                raise EngineUnavailable(f"the engine stopped: {_last_line(_log_file(self._socket.stem))}") from None
            if health.get("status") == "ready":
                return
            if health.get("status") == "failed":
                raise EngineUnavailable(str(health.get("error")))
            _check_deadline(until, self._options)
            await asyncio.sleep(_POLL_SECONDS)


def stop(record: registry.EngineRecord, timeout: float = 10.0) -> bool:
    """Ask an engine to drain and leave; after `timeout` it is killed. -> whether it went by itself."""
    with suppress(ProcessLookupError):
        os.kill(record.pid, signal.SIGTERM)
    until = time.monotonic() + timeout
    while record.alive and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
    went = not record.alive
    if not went:
        with suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGKILL)
    registry.remove(Path(record.socket))
    return went


async def describe(record: registry.EngineRecord) -> dict[str, Any]:
    """One entry of `starfill status`."""
    client = EngineClient(f"unix:{record.socket}")
    try:
        health = await client.health()
    except EngineUnavailable:
        health = {"status": "not answering"}
    finally:
        await client.aclose()
    return {
        "pid": record.pid,
        "socket": record.socket,
        "model": record.model,
        "dtype": record.dtype,
        "device": record.device,
        "version": record.version,
        "state": health.get("status"),
        "slots": health.get("slots"),
        "uptime": health.get("uptime"),
    }


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_POLL_SECONDS)
        yield


async def _retire(socket: Path) -> None:
    record = registry.read_record(registry.record_path(socket))
    if record is not None:
        await asyncio.to_thread(stop, record)


def _older(theirs: str, ours: str) -> bool:
    def number(version: str) -> tuple[int, ...]:
        return tuple(int(part) for part in version.split(".") if part.isdecimal())

    return number(theirs) < number(ours)


def _check_deadline(until: float, options: EngineOptions) -> None:
    if time.monotonic() > until:
        raise EngineUnavailable(f"the engine for {options.source.id} took too long to start; see starfill doctor")


def _log_file(key: str) -> Path:
    folder = paths.private_dir(paths.log_dir())
    path = folder / f"engine-{key}.log"
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_suffix(".1.log"))
    return path


def _last_line(log: Path) -> str:
    with suppress(OSError):
        lines = log.read_text(errors="replace").strip().splitlines()
        if lines:
            return f"{lines[-1][:500]} (see {log})"
    return f"see {log}"


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Collect the engine's exit status whenever it ends, so that it leaves no zombie under a living server."""
    import threading

    threading.Thread(target=process.wait, name="starfill-reap", daemon=True).start()


def _swallow(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # seen here, so that asyncio does not log what the next request reports anyway
