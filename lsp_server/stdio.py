"""The main loop: bytes from the editor through the gate to pygls, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pygls.exceptions import JsonRpcException

from lsp_server.gate import INVALID_PARAMS, Framer, Pipes, Refusal, encode
from lsp_server.server import StarfillProtocol, StarfillServer
from lsp_server.settings import Settings


async def run_stdio(settings: Settings) -> int:
    """Serve one editor over standard input and output until it says exit or goes away -> exit code."""
    pipes = Pipes()
    await pipes.open()
    server = StarfillServer(settings)
    protocol, ledger, framer = server.protocol, server.protocol.ledger, Framer()
    protocol.set_writer(pipes)

    def refuse(refusal: Refusal) -> None:
        error = {"code": refusal.code, "message": refusal.message}
        pipes.write(encode({"jsonrpc": "2.0", "id": refusal.id, "error": error}))

    try:
        while data := await pipes.read():
            for body in framer.feed(data):
                message = body if isinstance(body, Refusal) else ledger.admit(body)
                if isinstance(message, Refusal):
                    refuse(message)
                elif message is not None and message.get("method") == "exit":
                    return 0 if ledger.shut_down else 1
                elif message is not None:
                    _dispatch(protocol, message, refuse)
                    await asyncio.sleep(0)  # a handler takes its look at the text before the next edit is read
    finally:
        await server.aclose()
        await pipes.flush()
    return 0


def _dispatch(protocol: StarfillProtocol, message: dict[str, Any], refuse: Callable[[Refusal], None]) -> None:
    try:
        structured = protocol.structure_message(message)
    except JsonRpcException:
        if "method" in message and "id" in message and protocol.ledger.settle(message["id"]):
            refuse(Refusal(message["id"], INVALID_PARAMS, f"the params of {message['method']} are not as specified"))
        return
    protocol.handle_message(structured)
