"""What must come back to where it was: file descriptors, threads, children, asyncio tasks and, within a bound, memory.

Linux only: it reads /proc.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

_POLL_S = 0.02
_NUMBER = re.compile(r"^(socket|pipe):\[\d+\]$")


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process at one moment. Everything is counted by kind, because numbers and inodes come and go."""

    fds: Counter[str]  # by target; sockets and pipes without their inodes
    threads: Counter[str]
    children: frozenset[tuple[int, float]]  # pid and start time, all descendants
    rss_mib: float

    @classmethod
    def of(cls, pid: int) -> ProcessState:
        """The state of a process, which must be alive."""
        process = psutil.Process(pid)
        own = pid == os.getpid()
        return cls(
            fds=_fds(pid),
            # Native pools start lazily and stay: in this process only Python's own threads can leak.
            threads=Counter(thread.name for thread in threading.enumerate()) if own else _native_threads(pid),
            children=frozenset((child.pid, child.create_time()) for child in process.children(recursive=True)),
            rss_mib=process.memory_info().rss / 2**20,
        )

    def beyond(self, baseline: ProcessState) -> list[str]:
        """What is there now and was not there in the baseline, a line each; memory left out."""
        children = [f"child {pid} ({_command(pid)})" for pid, _ in sorted(self.children - baseline.children)]
        return [
            *(f"{count} fd of {target}" for target, count in (self.fds - baseline.fds).items()),
            *(f"{count} thread named {name}" for name, count in (self.threads - baseline.threads).items()),
            *children,
        ]


@dataclass(slots=True)
class LeakCheck:
    """The state of some processes at construction, to compare with later; make it after a warm-up.

    This process is watched too, unless `own=False`; of asyncio tasks, those of the loop that is running. Fewer of
    something than before is in order; a watched process that ended is not.
    """

    pids: Iterable[int] = ()
    own: bool = True
    _baseline: dict[int, ProcessState] = field(init=False)
    _tasks: set[asyncio.Task[Any]] = field(init=False)

    def __post_init__(self) -> None:
        gc.collect()
        watched = [*self.pids, *([os.getpid()] if self.own else [])]
        self._baseline = {pid: ProcessState.of(pid) for pid in watched}
        self._tasks = _tasks()

    def assert_settled(self, timeout: float = 5.0, rss_mib: float | None = None) -> None:
        """Collect garbage and poll until everything is back, at most `timeout` seconds, else name what is not.

        Then, if `rss_mib` is given, no process may have grown by more: both are AssertionErrors. Blocks: inside a loop
        use `settled`.
        """
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            raise TypeError("assert_settled would block the running loop: await settled() instead")
        gc.collect()
        deadline = time.monotonic() + timeout
        while (leaks := self._leaks()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self._judge(leaks, timeout, rss_mib)

    async def settled(self, timeout: float = 5.0, rss_mib: float | None = None) -> None:
        """As `assert_settled`, letting the loop run meanwhile, with its tasks among what must come back."""
        gc.collect()
        deadline = time.monotonic() + timeout
        while True:
            leaks = self._leaks()
            if not leaks or time.monotonic() >= deadline:
                break
            await asyncio.sleep(_POLL_S)
        self._judge(leaks, timeout, rss_mib)

    def _leaks(self) -> list[str]:
        found = [f"task {task!r}" for task in _tasks() - self._tasks]
        for pid, baseline in self._baseline.items():
            try:
                found += [f"pid {pid}: {line}" for line in ProcessState.of(pid).beyond(baseline)]
            except (psutil.NoSuchProcess, FileNotFoundError):
                found.append(f"pid {pid}: ended")
        return found

    def _judge(self, leaks: list[str], timeout: float, rss_mib: float | None) -> None:
        assert not leaks, f"left behind after {timeout:g} s:\n  " + "\n  ".join(leaks)
        if rss_mib is None:
            return
        for pid, baseline in self._baseline.items():
            grown = ProcessState.of(pid).rss_mib - baseline.rss_mib
            assert grown <= rss_mib, f"pid {pid} grew by {grown:.1f} MiB, more than {rss_mib:g}"


def _tasks() -> set[asyncio.Task[Any]]:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return set()
    return set(asyncio.all_tasks(loop)) - {asyncio.current_task(loop)}


def _fds(pid: int) -> Counter[str]:
    counted: Counter[str] = Counter()
    for descriptor in list(Path(f"/proc/{pid}/fd").iterdir()):
        with suppress(FileNotFoundError):  # the descriptor of this very listing
            counted[_NUMBER.sub(r"\1", str(descriptor.readlink()))] += 1
    return counted


def _native_threads(pid: int) -> Counter[str]:
    counted: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            counted[(task / "comm").read_text().strip()] += 1
    return counted


def _command(pid: int) -> str:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return f"{process.status()}: {' '.join(process.cmdline())}"
    return "ended"
