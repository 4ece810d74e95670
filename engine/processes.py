"""Which process a pid meant when it was written down: the pid alone may belong to a stranger by now."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_DELETED = " (deleted)"  # what Linux adds to the name of a program that was replaced while it ran


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process of this machine: no other one ever has the same pid, start and executable."""

    pid: int
    started: float
    """Clock ticks after boot where /proc says it (exact, and no clock changes it), else seconds since 1970."""
    executable: str
    """Empty if it cannot be told."""

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """Who has that pid now; None if nobody, a zombie, or somebody whom we may not look at."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            state, started = fields[0], float(fields[19])
        except FileNotFoundError:
            return None if Path("/proc/self/stat").exists() else _of_portable(pid)
        except (OSError, ValueError, IndexError):
            return None
        if state in "ZX":
            return None
        executable = ""
        with suppress(OSError):  # on its way out it has none any more, though it still holds its files and its GPU
            executable = str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(_DELETED)
        return cls(pid, started, executable)

    @classmethod
    def own(cls) -> ProcessIdentity:
        """This process."""
        found = cls.of(os.getpid())
        return found or cls(os.getpid(), 0.0, "")

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        found = ProcessIdentity.of(self.pid)
        return found is not None and found.started == self.started and found.executable in ("", self.executable)

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to this very process -> whether it was there. Without a race where the system has pidfds."""
        with suppress(OSError, AttributeError):
            handle = os.pidfd_open(self.pid)
            try:
                # The handle is bound to whoever has the pid now: if that is ours, it stays ours.
                if not self.alive:
                    return False
                signal.pidfd_send_signal(handle, number)
                return True
            finally:
                os.close(handle)
        if not self.alive:
            return False
        with suppress(OSError):
            os.kill(self.pid, number)
            return True
        return False


def _of_portable(pid: int) -> ProcessIdentity | None:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return ProcessIdentity(pid, process.create_time(), process.exe())
    except psutil.Error:
        return None
