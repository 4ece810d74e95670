"""A lock between processes that leaves no file behind.

The file is removed by its holder while it still holds it, so whoever opened it before that holds a lock on a file without
a name: they notice, and open the new one.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from engine.errors import EngineUnavailable

_POLL_SECONDS = 0.02


class FileLock:
    """One attempt to hold the lock at `path`, a file in a folder of ours. The system frees it when its holder dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def try_acquire(self) -> bool:
        """Take it if nobody has it -> whether it is held now. Raises EngineUnavailable."""
        while True:
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise self._unusable(error) from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._names(fd):
                    with suppress(OSError):  # the pid is for `refusal` alone: a full disk does not keep us from a lock
                        os.ftruncate(fd, 0)
                        os.write(fd, str(os.getpid()).encode())
                    self._fd = fd
                    return True
            except BlockingIOError:
                os.close(fd)
                return False
            except OSError as error:
                os.close(fd)
                raise self._unusable(error) from error
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # its last holder removed it between our opening and locking it

    def release(self) -> None:
        """Give it back, and remove the file; nothing happens if it is not held."""
        if self._fd is None:
            return
        with suppress(OSError):
            if self._names(self._fd):
                self.path.unlink()
        os.close(self._fd)
        self._fd = None

    @contextmanager
    def held(self, timeout: float) -> Iterator[None]:
        """Hold it for a block; raises EngineUnavailable after `timeout` seconds. Blocks the thread."""
        until = time.monotonic() + timeout
        while not self.try_acquire():
            if time.monotonic() > until:
                raise self.refusal(timeout)
            time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            self.release()

    @asynccontextmanager
    async def held_async(self, timeout: float) -> AsyncIterator[None]:
        """As `held`, letting the event loop run."""
        until = time.monotonic() + timeout
        while not self.try_acquire():
            if time.monotonic() > until:
                raise self.refusal(timeout)
            await asyncio.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            self.release()

    def refusal(self, waited: float) -> EngineUnavailable:
        """What to say when its holder does not come to an end."""
        holder = ""
        with suppress(OSError, ValueError):
            holder = f" (pid {int(self.path.read_text(errors='replace')[:20])})"
        return EngineUnavailable(
            f"{self.path} has been held by another starfill{holder} for {waited:.0f} s; end that process, then try again"
        )

    def _unusable(self, error: OSError) -> EngineUnavailable:
        return EngineUnavailable(f"{self.path}: {error.strerror or error}; see starfill doctor")

    def _names(self, fd: int) -> bool:
        """Whether the path still names the file that is open."""
        try:
            there = self.path.lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))
