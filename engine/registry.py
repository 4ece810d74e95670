"""The engines of this user: one socket and one JSON record each, in the runtime folder."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from engine import paths
from engine.models import ModelSource


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """What `<key>.json` says of a running engine."""

    pid: int
    socket: str
    model: str
    dtype: str
    device: str
    version: str

    @property
    def alive(self) -> bool:
        """Whether the process is there (and not a zombie)."""
        try:
            os.kill(self.pid, 0)
        except OSError:
            return False
        with suppress(OSError, IndexError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return True


def engine_key(source: ModelSource, dtype: str, device: str) -> str:
    """Name of the engine that serves a model in a way: language servers that agree on it share one process."""
    parts = "\0".join((source.id, str(source.directory), dtype, device))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def socket_path(key: str) -> Path:
    """Where the shared engine of that key listens."""
    return paths.runtime_dir() / f"{key}.sock"


def record_path(socket: Path) -> Path:
    """The record beside a socket."""
    return socket.with_suffix(".json")


def write_record(record: EngineRecord) -> None:
    """Publish, in one step, what listens on a socket."""
    path = record_path(Path(record.socket))
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(asdict(record)))
    draft.replace(path)


def read_record(path: Path) -> EngineRecord | None:
    """A record, or None if it is not (or no longer) one."""
    try:
        record = EngineRecord(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    texts = (record.socket, record.model, record.dtype, record.device, record.version)
    sound = isinstance(record.pid, int) and 0 < record.pid < 2**31 and all(isinstance(text, str) for text in texts)
    return record if sound else None


def running_engines() -> list[EngineRecord]:
    """Every engine of this user that is alive; what dead ones left behind is removed."""
    found = []
    for path in sorted(paths.runtime_dir().glob("*.json")):
        record = read_record(path)
        if record is not None and record.alive:
            found.append(record)
        else:
            remove(path.with_suffix(".sock"))
    return found


def remove(socket: Path) -> None:
    """Remove a socket and its record."""
    for path in (socket, record_path(socket)):
        path.unlink(missing_ok=True)
