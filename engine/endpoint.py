"""Where an engine listens: a Unix socket of this user's alone, or a TCP port with a token."""

from __future__ import annotations

import os
import re
import socket
import stat
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from engine import paths, registry
from engine.errors import EndpointTaken, EngineUnavailable, StarfillError
from engine.processes import ProcessIdentity

_BACKLOG = 128
_TOKEN_BYTES = 4_096
_TOKEN = re.compile(r"[!-~]{16,}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen."""

    path: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    token: str = ""

    def bind(self) -> Bound:
        """Listen; the Unix socket has mode 0600 from its first moment. Raises EndpointTaken, StarfillError."""
        listener = self._tcp() if self.path is None else self._unix(self.path)
        listener.setblocking(False)
        return Bound(self, listener)

    def _tcp(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self.port))
            listener.listen(_BACKLOG)
        except (OSError, OverflowError) as error:
            listener.close()
            reason = getattr(error, "strerror", None) or error
            raise StarfillError(f"--host {self.host} --port {self.port}: {reason}") from error
        return listener

    def _unix(self, path: Path) -> socket.socket:
        if path.name in ("", "..") or path.suffix.lower() in registry.BESIDE:
            endings = ", ".join(sorted(registry.BESIDE))
            raise StarfillError(f"--socket {path}: name a file that ends in none of {endings}: engine.sock, say")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StarfillError(f"--socket {path}: {error.strerror}") from error
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with registry.claim_lock(path).held(registry.CLAIM_SECONDS):
                _clear_stale(path)
                before = os.umask(0o177)
                try:
                    listener.bind(str(path))
                    listener.listen(_BACKLOG)
                finally:
                    os.umask(before)
        except OSError as error:
            listener.close()
            raise StarfillError(f"--socket {path}: {error.strerror or error}") from error
        except StarfillError:
            listener.close()
            raise
        return listener


@dataclass(slots=True)
class Bound:
    """A socket that listens. Use `close` from any thread, once or more often."""

    endpoint: Endpoint
    listener: socket.socket
    _inode: tuple[int, int] | None = field(init=False)
    _closing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._inode = _inode(self.endpoint.path)

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self.listener.getsockname()[1])

    def publish(self, model: str, dtype: str, device: str, version: str) -> None:
        """Write down what listens here; nothing on TCP. Raises EngineUnavailable."""
        path = self.endpoint.path
        if path is None:
            return
        own = ProcessIdentity.own()
        record = registry.EngineRecord(
            own.pid, own.started, own.executable, str(path), model, dtype, device, version
        )  # fmt: skip
        with self._closing:
            if self._inode is not None:
                registry.write_record(record)

    def close(self) -> None:
        """Listen no more, and remove the socket and its record if they are still ours."""
        self.listener.close()
        path = self.endpoint.path
        with self._closing:
            if path is None or self._inode is None:
                return
            with ExitStack() as claim, suppress(OSError):
                with suppress(EngineUnavailable):  # where no lock can be made, nobody else puts something there either
                    claim.enter_context(registry.claim_lock(path).held(1.0))
                self._remove(path)
            self._inode = None

    def _remove(self, path: Path) -> None:
        if self._inode == _inode(path):
            path.unlink(missing_ok=True)
            record = registry.read_record(registry.record_path(path))
            if record is not None and record.pid == os.getpid():
                registry.record_path(path).unlink(missing_ok=True)


def read_token(file: Path | None) -> str:
    """The token of `--token-file`. A file that others may read is closed to them; one that they may write is refused."""
    if file is None:
        raise StarfillError("--port needs --token-file: a file that holds the token which clients must send")
    try:
        with file.open("rb") as opened:
            found = os.fstat(opened.fileno())
            text = opened.read(_TOKEN_BYTES).decode("ascii", "replace").strip()
            if found.st_uid not in (os.getuid(), 0) or found.st_mode & 0o022:
                raise StarfillError(f"--token-file {file}: others may write to it; make it yours alone with chmod 600")
            if stat.S_ISREG(found.st_mode) and found.st_mode & 0o055 and found.st_uid == os.getuid():
                os.fchmod(opened.fileno(), 0o600)
    except OSError as error:
        raise StarfillError(f"--token-file {file}: {error.strerror}") from error
    if not _TOKEN.fullmatch(text):
        raise StarfillError(f"--token-file {file}: the token must have at least 16 characters, all printable ASCII")
    return text


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; refuse one that somebody does, and anything that is no socket."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISSOCK(found.st_mode):
            raise StarfillError(f"--socket {path}: exists and is not a socket; remove it or choose another path")
        if registry.listens(path):
            raise EndpointTaken(f"--socket {path}: another engine listens there; stop it or choose another path")
        path.unlink(missing_ok=True)
    record = registry.record_path(path)
    if os.path.lexists(record):
        known = registry.read_record(record)
        if known is not None and known.socket != str(path) and registry.listens(Path(known.socket)):
            raise StarfillError(f"--socket {path}: {record.name} beside it is another engine's; choose another name")
        if known is None and path.parent != paths.runtime_dir():
            raise StarfillError(f"--socket {path}: {record.name} beside it is not an engine's; choose another path")
        record.unlink()


def _inode(path: Path | None) -> tuple[int, int] | None:
    try:
        found = path.lstat() if path is not None else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found is not None else None
