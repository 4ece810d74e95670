"""A strict JSON-RPC peer of one child process: what LSP's base protocol asks of a client, and no more."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness.handlers import Call, Handler, Handlers
from tests.harness.jsonrpc import Ledger, MessageId, Pending, SessionError, SessionLog, encode
from tests.harness.server_process import ServerProcess

_PAUSING = frozenset({signal.SIGSTOP, signal.SIGCONT})


class Session:
    """Owns one server, the ledger and everything that the server said; knows nothing of documents.

    Sending is synchronous and keeps the order of the calls; waiting is bounded by `timeout` (seconds) everywhere, and
    every failure carries the session log. All methods belong to the loop that ran `start`.
    """

    def __init__(self, timeout: float) -> None:
        self.session_log = SessionLog()
        self.timeout = timeout
        self.delay_messages = 0.0  # seconds to sit on each message of the server
        self._server: ServerProcess
        self._ledger = Ledger()
        self._handlers = Handlers(self._send, self._violation)
        self._ignored = {"window/logMessage", "$/cancelRequest"}
        self._unread: list[Call] = []
        self._ids = itertools.count(1)
        self._news = asyncio.Event()
        self._dismissed = False  # the editor asked the server to end, or ended it
        self._closed = False

    @classmethod
    async def start(
        cls,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        timeout: float = 30.0,
    ) -> Self:
        """Start the server as a child in a process group of its own; `env` replaces the environment, as in Popen."""
        session = cls(timeout)
        session._server = await ServerProcess.start(
            argv, env, cwd, session.session_log, session._receive, session._violation, session._lose
        )
        return session

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
            return
        self._closed = True
        await self._reap()
        if not isinstance(error, SessionError):
            error.add_note("\n".join([*self._ledger.violations, self.session_log.render()]))

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._server.pid

    @property
    def server_requests(self) -> list[Call]:
        """Every request that the server sent."""
        return self._handlers.served

    @property
    def progress(self) -> dict[int | str, list[Any]]:
        """The values of each work done progress, by the token that the server created."""
        return self._ledger.progress

    @property
    def returncode(self) -> int | None:
        """The server's exit status, None while it runs."""
        return self._server.returncode

    def rss_mib(self) -> float:
        """Resident memory of the server process."""
        return self._server.rss_mib()

    def cpu_seconds(self) -> float:
        """User and system time of the server process so far."""
        return self._server.cpu_seconds()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal. After one that ends the server any exit status is in order; after one that gives it no time
        to speak (SIGTERM does) requests may stay unanswered."""
        self._dismissed |= number not in _PAUSING
        self._server.send_signal(number)

    async def disconnect(self) -> int:
        """Close the server's stdin, as an editor that dies does, and wait for the server to end; -> its status."""
        self._dismissed = True
        self._server.close_stdin()
        return await self.wait_exit()

    async def wait_exit(self, timeout: float | None = None) -> int:
        """Wait for the process to end and for all that it wrote to be read; -> its exit status."""
        limit = self.timeout if timeout is None else timeout
        status = await self._server.wait_exit(limit)
        if status is None:
            raise self.failure(f"the server still runs after {limit:g} s")
        return status

    def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        partial: bool = False,
        message_id: int | str | None = None,
    ) -> Pending:
        """Send a request; with `partial` it carries a partialResultToken and the reply's `partials` fill up."""
        pending = Pending(next(self._ids) if message_id is None else message_id, method, self.session_log, self.timeout)
        if partial:
            token = f"partial-{pending.id}"
            self._ledger.partial_tokens[token] = pending
            params = {**(params or {}), "partialResultToken": token}
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": pending.id, "method": method}
        self._expect(pending)
        self._send(message if params is None else {**message, "params": params})
        return pending

    def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        self._send(message if params is None else {**message, "params": params})

    def cancel(self, pending: Pending) -> None:
        """Send `$/cancelRequest`; the request still gets its one reply."""
        self.notify("$/cancelRequest", {"id": pending.id})

    def send_raw(self, data: bytes, *, replies: Sequence[MessageId] = ()) -> list[Pending]:
        """Send bytes as they are; `replies` names the ids (None for null) that the server must answer for them."""
        pending = [Pending(each, "raw bytes", self.session_log, self.timeout) for each in replies]
        for each in pending:
            self._expect(each)
        self.session_log.add("-->", f"raw {data!r}")
        self._server.write(data)
        return pending

    async def drain(self) -> None:
        """Wait until the pipe takes more: for tests that send much without waiting for replies."""
        try:
            async with asyncio.timeout(self.timeout):
                await self._server.drain()
        except TimeoutError:
            raise self.failure("the server does not read its input") from None

    def ignore(self, *methods: str) -> None:
        """Notifications of these methods need not be looked at, past and future ones."""
        self._ignored.update(methods)

    def on_request(self, method: str, handler: Handler) -> None:
        """Answer the server's requests of a method with what `handler(params)` returns, awaits or raises."""
        self._handlers.by_method[method] = handler

    async def expect_notification(
        self, method: str, *, where: Callable[[Any], bool] | None = None, timeout: float | None = None
    ) -> Any:
        """The params of the first unread notification of a method (for which `where(params)` holds), now read."""

        def matches(call: Call) -> bool:
            return call.method == method and (where is None or where(call.params))

        await self.until(lambda: any(map(matches, self._unread)), f"notification {method}", timeout)
        return self._unread.pop(next(i for i, call in enumerate(self._unread) if matches(call))).params

    def take_notifications(self, method: str) -> list[Any]:
        """The params of all unread notifications of a method, now read; does not wait."""
        taken = [call.params for call in self._unread if call.method == method]
        self._unread = [call for call in self._unread if call.method != method]
        return taken

    async def until(self, ready: Callable[[], bool], what: str, timeout: float | None = None) -> None:
        """Wait until `ready()` holds, asked again after each message of the server; `what` names it in a failure."""
        limit = self.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):
                while not ready():
                    if self._server.ended:
                        raise self.failure(f"the server ended while the editor waited for {what}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise self.failure(f"no {what} within {limit:g} s") from None

    def pause_reading(self) -> None:
        """Stop reading the server's stdout (at most one message more is taken), as a hung editor does."""
        self._server.reading.clear()

    def resume_reading(self) -> None:
        """Read again."""
        self._server.reading.set()

    def failure(self, problem: str) -> SessionError:
        """The error to raise for `problem`, with the log so far."""
        return self.session_log.failure(problem)

    async def close(self) -> None:
        """End the session politely, then judge it: SessionError lists every broken rule, with the log."""
        if self._closed:
            return
        self._closed = True
        problems: list[str] = []
        self._server.reading.set()
        try:
            if (status := await self._server.status_at_last()) is not None and not self._dismissed:
                problems.append(f"the server ended by itself, with status {status}")
            await self._leave()
        except SessionError as failure:
            problems.append(failure.problem)
        finally:
            await self._reap()
        problems += self._ledger.violations
        if not self._server.killed:
            problems += [f"{pending} was never answered" for pending in self._ledger.open()]
        unread = Counter(call.method for call in self._unread if call.method not in self._ignored)
        problems += [f"{count} {method} that nobody looked at" for method, count in unread.items()]
        if problems:
            raise self.failure("the session broke the rules:\n  " + "\n  ".join(problems))

    async def _leave(self) -> None:
        await self.disconnect()

    async def _reap(self) -> None:
        self._handlers.stop()
        await self._server.reap()

    def _violation(self, problem: str) -> None:
        self.session_log.add("***", problem)
        self._ledger.violations.append(problem)
        self._news.set()

    def _lose(self) -> None:
        for pending in self._ledger.open():
            pending.lose("the server's output ended")
        self._news.set()

    def _expect(self, pending: Pending) -> None:
        self._ledger.sent(pending)
        if self._server.ended:
            pending.lose("the server had ended")

    def _send(self, message: dict[str, Any]) -> None:
        text, frame = encode(message)
        self.session_log.add("-->", text)
        self._server.write(frame)

    async def _receive(self, text: str, message: Any) -> None:
        if self.delay_messages:
            await asyncio.sleep(self.delay_messages)
        self.session_log.add("<--", text)
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            self._violation("a message that is not a JSON-RPC 2.0 object")
        elif "method" not in message:
            self._ledger.received(message)
        elif "id" in message:
            call = Call(message["method"], message.get("params"), self.session_log.now())
            if call.method == "window/workDoneProgress/create":
                self._ledger.progress.setdefault(call.params["token"], [])
            self._handlers.serve(message["id"], call)
        elif message["method"] == "$/progress":
            self._ledger.progressed(message["params"]["token"], message["params"]["value"])
        else:
            self._unread.append(Call(message["method"], message.get("params"), self.session_log.now()))
        self._news.set()
