"""The requests that a server sends to its client, and their answers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.harness.jsonrpc import MessageId, ServerError

Handler = Callable[[Any], Any | Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """A notification or request that the server sent."""

    method: str
    params: Any
    at: float  # seconds since the start of the session


class Handlers:
    """Answers each request once: with what its handler returns, awaits or raises as ServerError.

    A request without a handler, and a handler that fails otherwise, is a violation; it is answered all the same.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None], violation: Callable[[str], None]) -> None:
        self.by_method: dict[str, Handler] = {}
        self.served: list[Call] = []
        self._send = send
        self._violation = violation
        self._answering: set[asyncio.Task[None]] = set()

    def serve(self, message_id: MessageId, call: Call) -> None:
        """Begin to answer one request; a plain function's answer is sent in the next turn of the loop."""
        self.served.append(call)
        handler = self.by_method.get(call.method)
        if handler is None:
            self._violation(f"the server sent request {call.method}, which nobody handles")
            self._reply(message_id, None, ServerError(-32601, f"no handler for {call.method}"))
            return
        task = asyncio.create_task(self._answer(message_id, handler, call))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def stop(self) -> None:
        """Give up the answers that are under way."""
        for task in self._answering:
            task.cancel()

    async def _answer(self, message_id: MessageId, handler: Handler, call: Call) -> None:
        try:
            result = handler(call.params)
            if inspect.isawaitable(result):
                result = await result
            self._reply(message_id, result, None)
        except ServerError as error:
            self._reply(message_id, None, error)
        except Exception as error:
            self._violation(f"the test's handler of {call.method} failed: {error!r}")
            self._reply(message_id, None, ServerError(-32603, "the handler failed"))

    def _reply(self, message_id: MessageId, result: Any, error: ServerError | None) -> None:
        answer = {"result": result} if error is None else {"error": error.body()}
        self._send({"jsonrpc": "2.0", "id": message_id, **answer})
