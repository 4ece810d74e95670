"""A language server as a child process: its pipes, its end, what it costs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

from tests.harness.jsonrpc import FramingError, SessionLog, TruncatedError, read_message

_SUDDEN = frozenset({signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV, signal.SIGQUIT})
_LINGER_S = 2.0  # how long a pipe may stay open after the process has ended


class _Stdin(asyncio.BaseProtocol):
    """Flow control of the server's stdin."""

    def __init__(self) -> None:
        self.lost = False
        self.writable = asyncio.Event()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.writable.set()


class ServerProcess:
    """Owns the process, in a process group of its own, and its three pipes; knows bytes and frames, no protocol.

    Each message goes to `on_message`, each breach of framing to `on_violation`; `on_end` is called once, when no
    further message can come. Lines of stderr go to the log.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        log: SessionLog,
        on_message: Callable[[str, Any], Awaitable[None]],
        on_violation: Callable[[str], None],
        on_end: Callable[[], None],
    ) -> None:
        self.reading = asyncio.Event()  # cleared: the editor does not read
        self.reading.set()
        self.ended = False  # no further message can come
        self.killed = False  # by us, and with no time to finish a message
        self._process = process
        self._log = log
        self._on_message = on_message
        self._on_violation = on_violation
        self._on_end = on_end
        self._stdin_protocol = _Stdin()
        self._stdin: asyncio.WriteTransport | None = None
        self._outputs: list[asyncio.BaseTransport] = []
        self._readers: list[asyncio.Task[None]] = []

    @classmethod
    async def start(
        cls,
        argv: Sequence[str | os.PathLike[str]],
        env: Mapping[str, str] | None,
        cwd: str | Path | None,
        log: SessionLog,
        on_message: Callable[[str, Any], Awaitable[None]],
        on_violation: Callable[[str], None],
        on_end: Callable[[], None],
    ) -> Self:
        """Start the child; `env` replaces the environment, as in Popen."""
        server = cls(_spawn(argv, env, cwd), log, on_message, on_violation, on_end)
        log.add("***", f"started {[os.fspath(arg) for arg in argv]} as pid {server.pid}")
        await server._connect()
        return server

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, None while the process runs."""
        return self._process.poll()

    def rss_mib(self) -> float:
        """Resident memory."""
        return float(psutil.Process(self.pid).memory_info().rss) / 2**20

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        self._log.add("***", f"sent {number.name}")
        self.killed |= number in _SUDDEN
        self._process.send_signal(number)

    def write(self, data: bytes) -> None:
        """Queue bytes for stdin; what the pipe takes is written at once."""
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(data)

    def close_stdin(self) -> None:
        """Close stdin once what is queued has been written."""
        self._log.add("***", "closed the server's stdin")
        if self._stdin is not None:
            self._stdin.close()

    async def drain(self) -> None:
        """Wait, without a bound, until the pipe takes more."""
        await asyncio.sleep(0)
        await self._stdin_protocol.writable.wait()

    async def wait_exit(self, timeout: float) -> int | None:
        """Wait for the process to end and for what it wrote to be read; -> its exit status, None if it still runs."""
        if self._process.poll() is None and not await self._ends_within(timeout):
            return None
        stdout = self._readers[0]
        _, unfinished = await asyncio.wait(self._readers, timeout=_LINGER_S)
        if stdout in unfinished and self.reading.is_set():
            self._on_violation("the server's stdout outlived the server: a child process of it holds the pipe")
        return self._process.returncode

    async def status_at_last(self) -> int | None:
        """The exit status, None while the process runs; one that has closed its output is given a moment to end."""
        if self.ended and self._process.poll() is None:
            await self._ends_within(_LINGER_S)
        return self.returncode

    async def _ends_within(self, timeout: float) -> bool:
        loop, ended, handle = asyncio.get_running_loop(), asyncio.Event(), os.pidfd_open(self.pid)
        loop.add_reader(handle, ended.set)
        try:
            async with asyncio.timeout(timeout):
                await ended.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(handle)
            os.close(handle)
        self._process.wait()
        return True

    async def reap(self) -> None:
        """End whatever is left of the process group that started here; never fails."""
        if await self.status_at_last() is None or not all(task.done() for task in self._readers):
            self._log.add("***", "killed the server, or what it left of its process group")
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            await self.wait_exit(_LINGER_S)
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await asyncio.sleep(0)  # a transport that is closing tells its protocol in the next turn of the loop
        if self._stdin is not None and not self._stdin_protocol.lost:
            self._stdin.abort()
        for transport in self._outputs:
            transport.close()
        await asyncio.sleep(0)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        protocol = self._stdin_protocol
        self._stdin, _ = await loop.connect_write_pipe(lambda: protocol, self._process.stdin)
        stdout, stderr = await self._reader(self._process.stdout), await self._reader(self._process.stderr)
        self._readers = [
            asyncio.create_task(self._read_messages(stdout)),
            asyncio.create_task(self._read_stderr(stderr)),
        ]

    async def _reader(self, pipe: Any) -> asyncio.StreamReader:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        self._outputs.append(transport)
        return reader

    async def _read_messages(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                await self.reading.wait()
                try:
                    message = await read_message(reader)
                except FramingError as error:
                    if not (self.killed and isinstance(error, TruncatedError)):
                        self._on_violation(f"the server's output: {error}")
                    return  # there is no way to find the next frame
                if message is None:
                    return
                await self._on_message(*message)
        except Exception as error:
            self._on_violation(f"a message that the editor could not take: {error!r}")
        finally:
            self.ended = True
            self._log.add("***", "no further message will be read")
            self._on_end()

    async def _read_stderr(self, reader: asyncio.StreamReader) -> None:
        pending = b""
        while data := await reader.read(65536):
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                self._log.add("err", line.decode("utf-8", "replace"))
        if pending:
            self._log.add("err", pending.decode("utf-8", "replace"))


def _spawn(
    argv: Sequence[str | os.PathLike[str]], env: Mapping[str, str] | None, cwd: str | Path | None
) -> subprocess.Popen[bytes]:
    """Start the child, unbuffered: asyncio owns the pipes."""
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=None if env is None else dict(env),
        cwd=cwd,
        bufsize=0,
        start_new_session=True,
    )
