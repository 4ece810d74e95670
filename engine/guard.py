"""Who may come in, and how much of the engine one peer can take: checked before the service sees a request.

On the Unix socket the peer's uid counts, on TCP a token, Host and Origin. Connections, headers, bodies and the time they take
are bounded for everybody; all of it happens on the event loop, so that no peer can keep the decode thread waiting.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
import struct
from collections.abc import Iterable
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import h11
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from engine.api import MAX_BODY
from engine.errors import Overloaded, RequestError
from engine.sizes import human_size

MAX_HEAD = 16 * 1024
"""Bytes of one request's line and headers."""

MAX_CONNECTIONS = 512
"""Connections at a time; the oldest that has no request under way makes room for a new one."""

MAX_CONNECTIONS_OF_ONE = 128
"""Connections that one process (on TCP: one address) may have at a time."""

MAX_BODIES = 128 * 2**20
"""Bytes of all the requests that are in the engine at a time."""


class Phase(Enum):
    """What a connection is waiting for, and how many seconds it may."""

    HEAD = 10.0
    """The rest of a request's headers, from its first byte; or the first byte of all."""
    BODY = 30.0
    """The rest of a request's body."""
    READER = 60.0
    """The peer, who does not read what it asked for."""
    SERVICE = float("inf")
    """The engine."""
    IDLE = float("nan")
    """The next request; uvicorn has a timer for that."""


class GuardedProtocol(H11Protocol):
    """HTTP/1.1 for peers of this user (root may look), each with a fair share of connections and time."""

    since: float = 0.0
    phase: Phase = Phase.HEAD
    peer: object = None
    _write_paused: bool = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Check the peer before the first byte is read."""
        self.transport = transport
        connection = transport.get_extra_info("socket")
        credentials = peer_credentials(connection)
        if credentials is not None and credentials[1] not in (os.getuid(), 0):
            transport.abort()
            return
        self.peer = credentials[0] if credentials is not None else (transport.get_extra_info("peername") or ("",))[0]
        super().connection_made(transport)
        self.client = (str(self.peer), 0)  # whom the service is fair to: a process, or an address whatever its port
        self.since = self.loop.time()
        if not _make_room(self, self.connections):
            refusal = Overloaded("too many connections; close some and try again")
            transport.write(_answer(refusal))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the peer at once, also one that broke off: uvicorn would keep it until its timer rings."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Pass on; a connection that was refused says nothing that counts."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._note()

    def on_response_complete(self) -> None:
        """A new phase begins."""
        super().on_response_complete()
        self._note()

    def pause_writing(self) -> None:
        """The peer reads more slowly than the engine writes."""
        self._write_paused = True
        super().pause_writing()
        self._note()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._write_paused = False
        super().resume_writing()
        self._note()

    def send_400_response(self, msg: str) -> None:
        """In the form of all other refusals; uvicorn's own is plain text."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_answer(RequestError(f"{msg} Send HTTP/1.1.", code="invalid_http")))
        self.transport.close()

    def overdue(self, now: float) -> bool:
        """Whether its phase has lasted too long."""
        return now - self.since > self.phase.value

    def evictable(self) -> bool:
        """Whether nothing is lost by closing it: it has no request under way."""
        return self.phase in (Phase.HEAD, Phase.IDLE)

    def _note(self) -> None:
        phase = self._phase()
        if phase is not self.phase:
            self.phase, self.since = phase, self.loop.time()

    def _phase(self) -> Phase:
        theirs = self.conn.their_state
        if self._write_paused:
            return Phase.READER
        if theirs is h11.SEND_BODY:
            return Phase.BODY
        if theirs is h11.IDLE:
            begun = self.cycle is None or bool(self.conn.trailing_data[0])
            return Phase.HEAD if begun else Phase.IDLE
        return Phase.SERVICE


def drop_overdue(connections: Iterable[Any], now: float) -> int:
    """Hang up on peers that took too long -> how many. `now`: the event loop's time; call it every second or so."""
    late = [each for each in connections if isinstance(each, GuardedProtocol) and each.overdue(now)]
    for connection in late:
        connection.transport.abort()
    return len(late)


def peer_credentials(connection: socket.socket | None) -> tuple[int, int] | None:
    """(pid, uid) of the process at the other end of a Unix socket; None where the system cannot tell, and on TCP."""
    if connection is None or connection.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return None
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(pid), int(uid)


class TcpGuard:
    """ASGI middleware for the TCP port: bearer token, and Host and Origin lists against DNS rebinding. Never CORS."""

    def __init__(self, app: ASGIApp, token: str, host: str, port: int) -> None:
        self._app = app
        self._expected = b"Bearer " + token.encode()
        names = {f"[{host}]" if ":" in host else host.lower(), "localhost", "127.0.0.1", "[::1]"}
        self._hosts = {f"{name}:{port}" for name in names} | (names if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse with 403 or 401, or pass on."""
        headers = Headers(scope=scope)
        refusal = None
        if headers.get("host", "").lower() not in self._hosts:
            refusal = RequestError("this Host is not served", code="host_not_allowed", status=403)
        elif any(not self._own(origin) for origin in headers.getlist("origin")):
            refusal = RequestError("requests from web pages are not served", code="origin_not_allowed", status=403)
        elif not hmac.compare_digest(headers.get("authorization", "").encode(), self._expected):
            refusal = RequestError("send the token of --token-file as a bearer token", code="invalid_token", status=401)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await JSONResponse(refusal.body(), refusal.status)(scope, receive, send)

    def _own(self, origin: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme == "http" and parts.netloc.lower() in self._hosts and origin == f"http://{parts.netloc}"


class BodyBudget:
    """ASGI middleware: a body that is too large is refused before it is read, and so are too many at a time."""

    def __init__(self, app: ASGIApp, total: int = MAX_BODIES) -> None:
        self._app = app
        self._total = total
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what comes in until the request has been served. `receive` may raise RequestError."""
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced[:20]) > MAX_BODY:
            refusal = RequestError(f"the body is larger than {MAX_BODY >> 20} MiB", code="body_too_large", status=413)
            await JSONResponse(refusal.body(), refusal.status, {"connection": "close"})(scope, receive, send)
            return
        held = 0

        async def counted() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            held += size
            self._held += size
            if self._held > self._total:
                raise Overloaded("the requests under way are too large together; try again in a moment")
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._held -= held


async def read_body(receive: Receive, most: int = MAX_BODY) -> bytes:
    """The whole body; empty if the peer hung up before it had sent it. Raises RequestError when it is too long."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise RequestError(f"the body is larger than {human_size(most)}", code="body_too_large", status=413)
        if not message.get("more_body", False):
            return b"".join(parts)


def _make_room(new: GuardedProtocol, connections: Iterable[Any]) -> bool:
    """Keep the bounds by closing the oldest connection without a request -> False if all have one."""
    present = [each for each in connections if isinstance(each, GuardedProtocol) and not each.transport.is_closing()]
    of_one = [each for each in present if each.peer == new.peer]
    for group, bound in ((of_one, MAX_CONNECTIONS_OF_ONE), (present, MAX_CONNECTIONS)):
        if len(group) > bound:
            idle = [each for each in group if each is not new and each.evictable()]
            if not idle:
                return False
            min(idle, key=lambda each: each.since).transport.abort()
    return True


def _answer(refusal: RequestError) -> bytes:
    """A whole response, for when there is no request to answer."""
    response = JSONResponse(refusal.body(), refusal.status)
    phrase = {400: "Bad Request", 429: "Too Many Requests"}[refusal.status]
    head = f"HTTP/1.1 {refusal.status} {phrase}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(response.body)}\r\nconnection: close\r\n\r\n".encode() + bytes(response.body)
