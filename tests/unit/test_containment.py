"""Whatever happens inside, the peer gets the wire's error object: before the answer, in the middle of it, at the end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engine.containment import Containment
from engine.errors import EngineFault, Overloaded
from tests.harness.aio import async_test

CANARY = "xyzzy_canary"
SCOPE = {"type": "http", "method": "POST", "path": "/", "headers": []}

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Peer:
    """Collects what is sent to it."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.body = b""
        self.ended = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message["body"]
            self.ended = not message.get("more_body", False)


async def receive() -> Any:
    await asyncio.sleep(3_600)


async def through(work: Callable[[Send], Awaitable[None]], contained: list[Containment] | None = None) -> Peer:
    async def app(scope: Any, receive: Any, send: Send) -> None:
        await work(send)

    peer, middleware = Peer(), Containment(app)
    if contained is not None:
        contained.append(middleware)
    await middleware(SCOPE, receive, peer.send)
    return peer


async def begin(send: Send, kind: bytes = b"text/event-stream") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})


@async_test()
async def test_an_unforeseen_error_is_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(send: Send) -> None:
        raise KeyError(CANARY)

    with caplog.at_level(logging.ERROR):
        peer = await through(fail)
    assert peer.status == 500
    assert json.loads(peer.body)["error"]["code"] == "engine_fault"
    assert "KeyError" in json.loads(peer.body)["error"]["message"]
    assert CANARY.encode() not in peer.body
    assert [record.message for record in caplog.records] == ["a request failed"]


@async_test()
async def test_an_error_of_the_family_keeps_its_status() -> None:
    async def refuse(send: Send) -> None:
        raise Overloaded("later")

    peer = await through(refuse)
    assert peer.status == 429
    assert json.loads(peer.body)["error"]["message"] == "later"


@async_test()
async def test_an_error_in_mid_stream_ends_the_stream_in_form() -> None:
    async def break_off(send: Send) -> None:
        await begin(send)
        raise EngineFault("the pass failed")

    peer = await through(break_off)
    events = peer.body.decode().split("\n\n")
    assert (peer.status, peer.ended) == (200, True)
    assert json.loads(events[1].removeprefix("data: "))["error"]["message"] == "the pass failed"
    assert events[2:] == ["data: [DONE]", ""]


@async_test()
async def test_an_answer_that_is_no_stream_is_not_mended() -> None:
    async def break_off(send: Send) -> None:
        await begin(send, b"application/json")
        raise EngineFault("the pass failed")

    peer = await through(break_off)
    assert peer.body == b"data: {}\n\n"


@async_test()
async def test_who_waits_is_interrupted_with_the_reason_and_others_are_left_alone() -> None:
    async def wait(send: Send) -> None:
        await asyncio.sleep(3_600)

    async def stream(send: Send) -> None:
        await begin(send)
        await asyncio.sleep(3_600)

    found: list[Containment] = []
    waiting = [asyncio.create_task(through(work, found)) for work in (wait, stream)]
    await asyncio.sleep(0.01)
    for contained in found:
        contained.interrupt("the engine hung")
        await contained.settled()
    whole, streamed = await asyncio.gather(*waiting)
    assert whole.status == 500
    assert b"the engine hung" in whole.body
    assert b"the engine hung" in streamed.body
    assert streamed.body.endswith(b"data: [DONE]\n\n")
    found[0].interrupt("nobody is there any more")


@async_test()
async def test_a_cancel_stays_a_cancel() -> None:
    async def wait(send: Send) -> None:
        await asyncio.sleep(3_600)

    task = asyncio.create_task(through(wait))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
