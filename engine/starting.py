"""The process behind a shared engine: the command that starts it, its log, and how it is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine import paths, registry
from engine.errors import EngineUnavailable, StarfillError
from engine.logs import LOG_BYTES
from engine.models import STARTER_ID, ModelSource

_POLL_SECONDS = 0.02
_STRIPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which model, and how it is wanted: the first to start an engine decides, for the others see `notice`."""

    source: ModelSource
    device: str = "auto"
    dtype: str = "auto"
    idle_exit: str = "30m"
    window: int | None = None
    kv_memory: str | None = None
    max_batch: int | None = None

    @property
    def flags(self) -> dict[str, str | int]:
        """What makes a difference to what is served, without what is left to the engine."""
        wanted = {
            "device": self.device,
            "dtype": self.dtype,
            "window": self.window,
            "kv_memory": self.kv_memory,
            "max_batch": self.max_batch,
        }
        return {name: value for name, value in wanted.items() if value not in (None, "auto")}


Command = Callable[[EngineOptions, Path, Path], list[str]]
"""(options, socket, log file) -> the command line of an engine."""


def engine_command(options: EngineOptions, socket: Path, log_file: Path) -> list[str]:
    """`starfill serve` by the Python that runs us; `-P` and `/` keep a repository's folders out of its imports."""
    model = [] if options.source.id == STARTER_ID else ["--model", str(options.source.directory)]
    wanted = [word for name, value in options.flags.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return [
        sys.executable, "-P", "-m", "engine.cli", "serve", "--socket", str(socket), *model, *wanted,
        "--idle-exit", options.idle_exit, "--log-file", str(log_file),
    ]  # fmt: skip


class EngineProcess:
    """An engine process that we have started. It outlives us; while we live, it leaves no zombie."""

    def __init__(self, command: list[str], errors: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in _STRIPPED}
        self._errors = errors
        fd = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            self._process = subprocess.Popen(
                command, cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=fd, stderr=fd,
                start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(fd)
        threading.Thread(target=self._process.wait, name="starfill-reap", daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._process.poll() is not None

    def ended_within(self, seconds: float) -> bool:
        """Wait so long at most for its end -> whether it came."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_words(self) -> str:
        """How it ended: the signal, or the last line that it wrote to standard error."""
        code = self._process.poll()
        if code is not None and code < 0:
            return f"it was ended by {signal.Signals(-code).name} (see {self._errors})"
        return last_words(self._errors)


def not_started(why: str | OSError | StarfillError) -> EngineUnavailable:
    """Why there is no process, or none any more: a Python that is gone, no memory for a process, a folder that is closed."""
    if isinstance(why, OSError):
        why = (why.strerror or type(why).__name__) + (f": {why.filename}" if why.filename else "")
    return EngineUnavailable(f"the engine could not be started: {why}")


def log_files(key: str) -> tuple[Path, Path]:
    """(log, standard error) of the engine with that key."""
    folder = paths.private_dir(paths.log_dir())
    return folder / f"engine-{key}.log", folder / f"engine-{key}.err"


def last_words(file: Path) -> str:
    """The end of what a process wrote there, for an error message."""
    with suppress(OSError):
        with file.open("rb") as opened:
            opened.seek(-min(LOG_BYTES, opened.seek(0, os.SEEK_END)), os.SEEK_END)
            lines = opened.read().decode("utf-8", "replace").strip().splitlines()
        if lines:
            return f"{lines[-1][:500]} (see {file})"
    return f"it said nothing (see {file.with_suffix('.log')})"


def stop(record: registry.EngineRecord, timeout: float = 15.0) -> bool:
    """Ask an engine to drain and leave; after `timeout` it is killed. -> whether it went by itself."""
    process = record.process
    process.send(signal.SIGTERM)
    process.send(signal.SIGCONT)  # one that is stopped could not hear it
    went = _gone(record, timeout)
    if not went:
        kill(record)
    registry.remove(Path(record.socket), process)
    return went


def kill(record: registry.EngineRecord) -> bool:
    """End an engine that does not answer -> whether it is gone. Never a process that merely has its pid now."""
    record.process.send(signal.SIGKILL)
    gone = _gone(record, 5.0)
    if gone:
        registry.remove(Path(record.socket), record.process)
    return gone


def _gone(record: registry.EngineRecord, timeout: float) -> bool:
    until = time.monotonic() + timeout
    while record.alive:
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_SECONDS)
    return True
