"""Who may talk to the engine: the peer's uid on the Unix socket; a token, Host and Origin on TCP."""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
import struct

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from engine.errors import RequestError


class SameUserProtocol(H11Protocol):
    """HTTP/1.1 that hangs up on every Unix-socket peer of another user (root may look)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Check the peer before the first byte is read."""
        peer = peer_uid(transport.get_extra_info("socket"))
        if peer is not None and peer not in (os.getuid(), 0):
            transport.abort()
            return
        super().connection_made(transport)


def peer_uid(connection: socket.socket | None) -> int | None:
    """Uid of the process at the other end of a Unix socket; None where the system cannot tell, and on TCP."""
    if connection is None or connection.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return None
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)


class TcpGuard:
    """ASGI middleware for the TCP port: bearer token, and Host and Origin lists against DNS rebinding."""

    def __init__(self, app: ASGIApp, token: str, host: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        names = {host, "localhost", "127.0.0.1", "[::1]"}
        self._hosts = {f"{name}:{port}" for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse with 403 or 401, or pass on."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        refusal = None
        if headers.get("host", "") not in self._hosts:
            refusal = RequestError("this Host is not served", code="host_not_allowed", status=403)
        elif origin is not None and origin.partition("://")[2] not in self._hosts:
            refusal = RequestError("requests from web pages are not served", code="origin_not_allowed", status=403)
        elif not hmac.compare_digest(headers.get("authorization", "").encode(), b"Bearer " + self._token):
            refusal = RequestError("send the token of --token-file as a bearer token", code="invalid_token", status=401)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await JSONResponse(refusal.body(), refusal.status)(scope, receive, send)
