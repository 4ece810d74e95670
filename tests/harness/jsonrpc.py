"""JSON-RPC as bytes and as a ledger: framing, the session log, pending requests, one reply for each."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

MessageId = int | str | None
Direction = Literal["-->", "<--", "err", "***"]

_SHOWN_LIMIT = 4_000
_HEADERS = frozenset({"content-length", "content-type"})


class ServerError(Exception):
    """The server answered a request with an error; also what a handler raises to answer the server with one."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.data = data

    def body(self) -> dict[str, Any]:
        """The error object of the wire."""
        return {"code": self.code, "message": self.message, **({} if self.data is None else {"data": self.data})}


class SessionError(AssertionError):
    """The session broke a rule of the protocol or of the test; `problem` says which, the message adds the log."""

    def __init__(self, problem: str, log: str) -> None:
        super().__init__(f"{problem}\n{log}")
        self.problem = problem


class FramingError(ValueError):
    """The server wrote something that is not a framed JSON message."""


class TruncatedError(FramingError):
    """The stream ended inside a message."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One event: `-->` sent, `<--` received, `err` a line of the server's stderr, `***` the editor's own remark."""

    at: float  # seconds since the start of the session
    direction: Direction
    text: str


@dataclass(slots=True)
class SessionLog:
    """Everything that happened in a session, in order."""

    started_at: float = field(default_factory=time.monotonic)
    entries: list[LogEntry] = field(default_factory=list)

    def now(self) -> float:
        """Seconds since the start of the session."""
        return time.monotonic() - self.started_at

    def add(self, direction: Direction, text: str) -> None:
        """Note one event as of now."""
        self.entries.append(LogEntry(self.now(), direction, text))

    def stderr(self) -> str:
        """What the server wrote to stderr so far."""
        return "\n".join(entry.text for entry in self.entries if entry.direction == "err")

    def render(self) -> str:
        """The whole log for a person; long messages are cut, with their length."""
        lines = ["--- session log (seconds, direction, message) ---"]
        for entry in self.entries:
            more = len(entry.text) - _SHOWN_LIMIT
            cut = f"… and {more} characters more" if more > 0 else ""
            lines.append(f"{entry.at:9.4f} {entry.direction} {entry.text[:_SHOWN_LIMIT]}{cut}")
        return "\n".join(lines)

    def failure(self, problem: str) -> SessionError:
        """The error to raise for `problem`, with the log so far."""
        return SessionError(problem, self.render())


def encode(message: Any) -> tuple[str, bytes]:
    """The JSON text of a message and its frame."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    try:
        body = text.encode()
    except UnicodeEncodeError:  # a lone surrogate exists in JSON only as an escape
        text = json.dumps(message, separators=(",", ":"))
        body = text.encode()
    return text, b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def _refuse_constant(name: str) -> NoReturn:
    raise FramingError(f"{name} is not JSON")


async def read_message(reader: asyncio.StreamReader) -> tuple[str, Any] | None:
    """The next message, as JSON text and decoded, or None at the end of the stream; else FramingError."""
    length: int | None = None
    first = True
    while line := await reader.readline():
        if line == b"\r\n":
            break
        first = False
        name, colon, value = line.decode("ascii", "replace").partition(":")
        if not colon or not line.endswith(b"\r\n") or name.lower() not in _HEADERS:
            raise FramingError(f"not a header line: {line!r}")
        if name.lower() == "content-length":
            length = int(value)
    else:
        if first:
            return None
        raise TruncatedError("the stream ended inside a header")
    if length is None:
        raise FramingError("a header without Content-Length")
    try:
        text = (await reader.readexactly(length)).decode()
        return text, json.loads(text, parse_constant=_refuse_constant)
    except asyncio.IncompleteReadError as error:
        raise TruncatedError(f"the stream ended after {len(error.partial)} of {length} bytes") from None
    except ValueError as error:
        raise FramingError(f"a body that is not JSON: {error}") from None


class Pending:
    """One request under way. Times are seconds of the session's log; belongs to the loop that sent it."""

    def __init__(self, message_id: MessageId, method: str, log: SessionLog, timeout: float) -> None:
        self.id = message_id
        self.method = method
        self.partials: list[Any] = []
        self.partial_times: list[float] = []
        self.sent_at = log.now()
        self.replied_at: float | None = None
        self.error: ServerError | None = None
        self._log = log
        self._timeout = timeout
        self._value: Any = None
        self._lost: str | None = None
        self._settled = asyncio.Event()
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"{self.method} (id {self.id!r})"

    @property
    def done(self) -> bool:
        """A reply has come, or can no longer come."""
        return self._settled.is_set()

    @property
    def latency(self) -> float:
        """Seconds from the request to its reply, which must have come."""
        if self.replied_at is None:
            raise self._log.failure(f"{self} has no reply yet")
        return self.replied_at - self.sent_at

    async def result(self, timeout: float | None = None) -> Any:
        """The result of the reply; raises ServerError for an error, SessionError when no reply comes in time."""
        await self._wait(self._settled, timeout)
        if self._lost is not None:
            raise self._log.failure(f"{self} has no reply: {self._lost}")
        if self.error is not None:
            raise self.error
        return self._value

    async def __aiter__(self) -> AsyncIterator[Any]:
        """The partial results, each as it comes; ends with the reply, whatever that is."""
        seen = 0
        while True:
            while seen < len(self.partials):
                yield self.partials[seen]
                seen += 1
            if self._settled.is_set():
                return
            self._news.clear()
            await self._wait(self._news, None)

    def add_partial(self, value: Any) -> None:
        """A partial result came."""
        self.partials.append(value)
        self.partial_times.append(self._log.now())
        self._news.set()

    def settle(self, value: Any, error: ServerError | None) -> None:
        """The reply came."""
        self._value, self.error = value, error
        self.replied_at = self._log.now()
        self._settled.set()
        self._news.set()

    def lose(self, why: str) -> None:
        """No reply can come any more."""
        self._lost = why
        self._settled.set()
        self._news.set()

    async def _wait(self, event: asyncio.Event, timeout: float | None) -> None:
        limit = self._timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):
                await event.wait()
        except TimeoutError:
            raise self._log.failure(f"{self}: nothing came within {limit:g} s") from None


class Ledger:
    """Which ids were sent, which were answered. Every id sent gets one reply; two sendings of an id get two.

    Tokens of progress are kept here too: they are promises of the same kind. 1 and "1" are different ids. `violations`
    collects what the server did wrong, in order.
    """

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.partial_tokens: dict[int | str, Pending] = {}
        self.progress: dict[int | str, list[Any]] = {}  # work done progress
        self._open: defaultdict[str, deque[Pending]] = defaultdict(deque)
        self._answered: set[str] = set()

    def sent(self, pending: Pending) -> None:
        """A request went out."""
        self._open[json.dumps(pending.id)].append(pending)

    def open(self) -> list[Pending]:
        """The requests that have no reply, in the order of their ids' first use."""
        return [pending for waiting in self._open.values() for pending in waiting]

    def received(self, message: dict[str, Any]) -> None:
        """A reply came in: settle the oldest request with its id."""
        key = json.dumps(message["id"])
        if not self._open[key]:
            what = "answered again" if key in self._answered else "answered but never sent"
            self.violations.append(f"id {key} was {what}")
            return
        pending = self._open[key].popleft()
        self._answered.add(key)
        fault = message.get("error")
        if ("result" in message) == ("error" in message):
            self.violations.append(f"the reply to {pending} must have either a result or an error")
        if fault is None:
            pending.settle(message.get("result"), None)
            return
        code, text = (fault.get("code"), fault.get("message")) if isinstance(fault, dict) else (None, None)
        if type(code) is not int or not isinstance(text, str):
            self.violations.append(f"the error for {pending} has no integer code and text message: {fault!r}")
            code, text = 0, repr(fault)
        pending.settle(None, ServerError(code, text, fault.get("data") if isinstance(fault, dict) else None))

    def progressed(self, token: int | str, value: Any) -> None:
        """`$/progress` came in: a partial result before its reply, or work done as begin, report…, end."""
        if pending := self.partial_tokens.get(token):
            if pending.done:
                self.violations.append(f"a partial result of {pending} came after its reply")
            pending.add_partial(value)
        elif token in self.progress:
            kinds = [each["kind"] for each in self.progress[token]]
            if (value["kind"] == "begin") != (not kinds) or "end" in kinds:
                self.violations.append(f"progress {token!r}: {value['kind']} after {kinds}")
            self.progress[token].append(value)
        else:
            self.violations.append(f"progress for token {token!r}, which nobody made")
