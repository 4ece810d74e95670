"""The engines of this user: one socket and one JSON record each, in the runtime folder.

Whoever adds or removes such a pair holds its `.claim` lock, so that what a dead engine left is never confused with what a new
one has just made. `.start` is held by whoever is starting an engine. Neither outlives its holder's use of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket as sockets
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine import paths
from engine.errors import EngineUnavailable
from engine.lock import FileLock
from engine.models import ModelSource
from engine.processes import ProcessIdentity

CLAIM_SECONDS = 5.0
"""How long to wait for a lock that is only ever held for milliseconds."""

BESIDE = frozenset((".json", ".claim", ".start", ".tmp"))
"""Endings of the files that stand beside a socket: it can have none of them itself."""

_RECORD_BYTES = 65_536
_TEXTS = ("socket", "model", "dtype", "device", "version", "executable")


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """What `<key>.json` says of a running engine."""

    pid: int
    started: float
    executable: str
    socket: str
    model: str
    dtype: str
    device: str
    version: str

    @property
    def process(self) -> ProcessIdentity:
        """The very process that wrote this."""
        return ProcessIdentity(self.pid, self.started, self.executable)

    @property
    def alive(self) -> bool:
        """Whether that process still runs; another one that has its pid now does not count, nor does a zombie."""
        return self.process.alive


def engine_key(source: ModelSource) -> str:
    """Name of the engine that serves a model: whoever wants that model shares it, whatever else they asked for."""
    # A path may be no UTF-8, and stands in a string with surrogates then.
    return hashlib.sha256(f"{source.id}\0{source.directory}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def socket_path(key: str) -> Path:
    """Where the shared engine of that key listens."""
    return paths.runtime_dir() / f"{key}.sock"


def record_path(socket: Path) -> Path:
    """The record beside a socket."""
    return socket.with_suffix(".json")


def claim_lock(socket: Path) -> FileLock:
    """Held while a socket and its record come or go."""
    return FileLock(socket.with_suffix(".claim"))


def start_lock(socket: Path) -> FileLock:
    """Held while an engine is being started, replaced or ended by force."""
    return FileLock(socket.with_suffix(".start"))


def write_record(record: EngineRecord) -> None:
    """Publish, in one step, what listens on a socket. Raises EngineUnavailable, with the record before as it was."""
    path = record_path(Path(record.socket))
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        draft.unlink(missing_ok=True)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(asdict(record), file)
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise EngineUnavailable(f"{path}: {error.strerror or error}; see starfill doctor") from error


def read_record(path: Path) -> EngineRecord | None:
    """A record, or None if it is not (or no longer) one. Fields that a newer version added are passed over."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if os.fstat(fd).st_uid != os.getuid():
                return None
            text = file.read(_RECORD_BYTES + 1)
        if len(text) > _RECORD_BYTES:
            return None
        found = json.loads(text)
        record = EngineRecord(**{name: found[name] for name in EngineRecord.__dataclass_fields__})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return record if _sound(record) else None


def running_engines() -> list[EngineRecord]:
    """Every engine of this user that is alive; what dead ones left behind is removed."""
    sweep()
    records = (read_record(path) for path in sorted(paths.runtime_dir().glob("*.json")))
    return [record for record in records if record is not None and record.alive]


def sweep() -> None:
    """Remove sockets, records, drafts and locks whose process is gone. What somebody is busy with is left alone."""
    folder = paths.runtime_dir()
    for socket in {path.with_suffix(".sock") for ending in ("json", "sock") for path in folder.glob(f"*.{ending}")}:
        claim = claim_lock(socket)
        with suppress(EngineUnavailable):
            if claim.try_acquire():
                try:
                    if _abandoned(socket):
                        _unlink(socket)
                finally:
                    claim.release()
    for path in [*folder.glob("*.claim"), *folder.glob("*.start")]:
        lock = FileLock(path)
        with suppress(EngineUnavailable):
            if lock.try_acquire():
                lock.release()
    for draft in folder.glob("*.tmp"):
        writer = draft.suffixes[-2].removeprefix(".") if len(draft.suffixes) > 1 else ""
        if not writer.isdecimal() or ProcessIdentity.of(int(writer)) is None:
            draft.unlink(missing_ok=True)


def remove(socket: Path, process: ProcessIdentity) -> None:
    """Remove the socket and record of a process that has ended or is ending, unless they are another's by now."""
    with suppress(EngineUnavailable), claim_lock(socket).held(CLAIM_SECONDS):
        record = read_record(record_path(socket))
        if record is not None and record.process == process:
            _unlink(socket)


def listens(socket: Path) -> bool:
    """Whether anybody does; silent or not."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a listener whose queue is full is one
        try:
            probe.connect(str(socket))
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def _abandoned(socket: Path) -> bool:
    record = read_record(record_path(socket))
    if record is not None:
        return not record.alive
    return not listens(socket)


def _unlink(socket: Path) -> None:
    for path in (socket, record_path(socket)):
        path.unlink(missing_ok=True)


def _sound(record: EngineRecord) -> bool:
    fields: dict[str, Any] = asdict(record)
    return (
        type(record.pid) is int
        and 0 < record.pid < 2**31
        and type(record.started) in (int, float)
        and all(isinstance(fields[name], str) for name in _TEXTS)
    )
