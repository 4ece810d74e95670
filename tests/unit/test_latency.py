"""What of the time to the first text is the server's own: with clocks that the test turns, and in a session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.client import Chunk
from lsp_server.latency import KEPT, Latency
from tests.harness.aio import async_test
from tests.harness.session_inside import InsideSession, QuickEngine

URI = "file:///project/module.py"


class Clocks:
    """Two clocks that stand still until they are turned."""

    def __init__(self) -> None:
        self.wall = self.processor = 100.0

    def turn(self, wall: float, processor: float = 0.0) -> None:
        self.wall += wall
        self.processor += processor


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def latency(clocks: Clocks) -> Latency:
    return Latency(lambda: clocks.wall, lambda: clocks.processor)


def test_the_way_from_bytes_to_the_first_text_counts_less_what_it_waited(latency: Latency, clocks: Clocks) -> None:
    latency.read()
    clocks.turn(0.001, 0.001)
    trip = latency.begin(7)
    clocks.turn(0.252, 0.002)
    latency.written()
    clocks.turn(0.005)  # the editor had the processor first
    trip.hand_over()
    clocks.turn(1.0, 0.5)  # the rest of the stream
    latency.written()
    trip.hand_over()
    trip.waited = 0.25
    latency.replied(7)
    summary = latency.summary()
    assert summary["model"] == {
        "requests": 1,
        "wall": {"median": 3.0, "p95": 3.0},
        "processor": {"median": 3.0, "p95": 3.0},
    }
    assert summary["memory"]["requests"] == 0
    assert summary["memory"]["wall"] == {"median": None, "p95": None}
    assert "1 requests, median 3.0 ms by the clock, 3.0 ms of the processor" in latency.line()


def test_a_reply_is_the_first_text_where_nothing_streams(latency: Latency, clocks: Clocks) -> None:
    latency.read()
    trip = latency.begin("a")
    trip.waited, trip.memory = 0.0, True
    clocks.turn(0.004, 0.001)
    latency.written()
    clocks.turn(0.005)
    latency.replied("a")
    assert latency.summary()["memory"]["wall"]["median"] == 4.0
    assert latency.summary()["model"]["requests"] == 0


def test_a_request_without_text_does_not_count_and_none_is_kept(latency: Latency) -> None:
    latency.begin(1)
    latency.replied(1)
    latency.replied(1)
    latency.replied(2)  # of a method that nobody measures
    assert latency.summary()["model"]["requests"] == 0
    for number in range(KEPT + 10):
        trip = latency.begin(number)
        trip.waited = 0.0
        latency.replied(number)
    assert latency.summary()["model"]["requests"] == KEPT


class SlowEngine(QuickEngine):
    """Thinks for a while before its first word."""

    THINKS_S = 0.2

    @asynccontextmanager
    async def complete(self, request: Any) -> AsyncIterator[AsyncIterator[Chunk]]:
        await asyncio.sleep(self.THINKS_S)
        async with super().complete(request) as chunks:
            yield chunks


@pytest.mark.parametrize("streaming", [True, False])
def test_what_a_session_waits_for_the_engine_is_not_its_own(streaming: bool) -> None:
    @async_test()
    async def play() -> None:
        async with InsideSession(SlowEngine("value + 1\n")) as session:
            await session.ask(1, "initialize", {"processId": None, "rootUri": None, "capabilities": {}})
            session.tell("initialized", {})
            document = {"uri": URI, "languageId": "python", "version": 0, "text": "x = "}
            session.tell("textDocument/didOpen", {"textDocument": document})
            params: dict[str, Any] = {
                "textDocument": {"uri": URI},
                "position": {"line": 0, "character": 4},
                "context": {"triggerKind": 2},
            }
            if streaming:
                params["partialResultToken"] = "t"
            begun = time.perf_counter()
            reply = await session.ask(2, "textDocument/inlineCompletion", params)
            elapsed = time.perf_counter() - begun
            assert reply["result"]["items"]
            streamed = [m for m in session.channel.sent if m.get("method") == "$/progress"]
            assert bool(streamed) == streaming
            status = await session.ask(3, "workspace/executeCommand", {"command": "starfill.status"})
            share = status["result"]["latency"]["model"]
            assert share["requests"] == 1
            assert share["processor"]["median"] > 0
            assert 0 < share["wall"]["median"] <= 1_000 * (elapsed - SlowEngine.THINKS_S)

    play()
