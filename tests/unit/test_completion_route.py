"""The completion route against ASGI itself: readers who are slow, stop reading or vanish, and refusals in full."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import Message

from engine.accounts import Ledger
from engine.api import CompletionRequest, parse_completion
from engine.completions import MAX_UNREAD, Completions
from engine.errors import DeviceMemoryExhausted, EngineFault, Overloaded, RequestError
from engine.intake import Admitted
from engine.kv_slots import KvSlots
from engine.scheduler import Scheduler
from engine.worker import Worker
from tests.harness.aio import async_test
from tests.harness.scripted import ScriptedRunner, scripted_intake
from tests.unit.vocabularies import vocabulary

TOKENIZER = vocabulary("starter")
SCRIPT = TOKENIZER.encode("value = compute(value, other)\n" * 60)


class Front:
    """A service with nothing but the route's needs."""

    model_id = "scripted"

    def __init__(self, **limits: int) -> None:
        self.runner = ScriptedRunner(TOKENIZER, SCRIPT, slots=2)
        self.intake = scripted_intake(TOKENIZER)
        scheduler = Scheduler(KvSlots(2, self.runner.window), **limits)
        self.worker = Worker(scheduler, self.runner, time.perf_counter, lambda: None, check_each_step=True)
        self.ledger = Ledger()
        self.outcomes: list[str] = []
        self.clients: list[str] = []
        self.refusal: RequestError | None = None

    async def complete(self, body: bytes, client: str) -> tuple[CompletionRequest, Admitted, Worker]:
        self.clients.append(client)
        if self.refusal is not None:
            raise self.refusal
        request = parse_completion(body)
        return request, self.intake.take(request, client), self.worker

    def ended(self, outcome: str) -> None:
        self.outcomes.append(outcome)

    def first_text(self, seconds: float) -> None:
        assert seconds >= 0


class Peer:
    """One request and its reader, who takes what is sent until told to stop reading."""

    def __init__(self, front: Front, **fields: Any) -> None:
        self._body = json.dumps({"prompt": "x = ", "temperature": 0} | fields).encode()
        self._gone = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self.sent: list[Message] = []
        scope = {"type": "http", "client": ("4711", 0)}
        self.task = asyncio.create_task(Completions(front)(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        body, self._body = self._body, b""
        if body:
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.reading.wait()
        self.sent.append(message)

    def vanish(self) -> None:
        self._gone.set()
        self.reading.set()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def text(self) -> str:
        lines = [line.removeprefix("data: ") for line in self.body.decode().split("\n\n") if line]
        assert lines[-1] == "[DONE]"
        return "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1])


@asynccontextmanager
async def serving(**limits: int) -> AsyncIterator[Front]:
    front = Front(**limits)
    front.worker.start()
    try:
        yield front
    finally:
        await asyncio.to_thread(front.worker.stop)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  (what is waited for happens on another thread)
        await asyncio.sleep(0.002)


async def still(value: Callable[[], int]) -> int:
    """Wait until a count stands still, and return it."""
    while True:
        before = value()
        await asyncio.sleep(0.05)
        if value() == before:
            return before


@async_test()
async def test_a_reader_who_stops_reading_stops_the_model_until_it_reads_on() -> None:
    async with serving() as front:
        peer = Peer(front, max_tokens=500, stream=True)
        await until(lambda: len(peer.sent) > 3)
        peer.reading.clear()
        calls = await still(lambda: front.worker.counters.forward_calls)
        # The head is a message, one more is being sent, and the pass that filled the last place may have had a follower.
        assert calls <= len(peer.sent) + MAX_UNREAD + 2 < 500
        assert front.worker.scheduler.running == 1
        other = Peer(front, prompt="y = ", max_tokens=5, stream=True)
        await other.task
        assert other.text == TOKENIZER.decode(SCRIPT[:5])
        peer.reading.set()
        await peer.task
        assert peer.text == TOKENIZER.decode(SCRIPT[:500])
        assert front.outcomes == ["served", "served"]


@async_test()
async def test_a_reader_who_stopped_reading_and_vanishes_gives_its_slot_back() -> None:
    async with serving() as front:
        peer = Peer(front, max_tokens=500, stream=True)
        await until(lambda: len(peer.sent) > 3)
        peer.reading.clear()
        calls = await still(lambda: front.worker.counters.forward_calls)
        peer._gone.set()
        await until(lambda: front.worker.scheduler.running == 0)
        peer.reading.set()
        await peer.task
        assert front.outcomes == ["aborted"]
        assert front.worker.counters.forward_calls <= calls + 1


@async_test()
async def test_a_reader_who_vanishes_at_any_moment_leaves_nothing() -> None:
    async with serving() as front:
        for stream in (True, False):
            for moment in range(0, 40, 3):
                peer = Peer(front, max_tokens=400, stream=stream)
                for _ in range(moment):
                    await asyncio.sleep(0)
                peer.vanish()
                await peer.task
        await until(lambda: front.worker.active == 0)
        assert front.worker.scheduler.slots.held == 0
        assert set(front.outcomes) == {"aborted"}


@async_test()
async def test_a_full_queue_is_429_and_says_when_to_come_back() -> None:
    async with serving(max_waiting=1, max_running=1) as front:
        running = Peer(front, max_tokens=1_500, stream=True)
        await until(lambda: front.worker.scheduler.running == 1)
        running.reading.clear()
        await still(lambda: front.worker.counters.forward_calls)
        waiting = Peer(front, max_tokens=1)
        await until(lambda: front.worker.scheduler.waiting == 1)
        refused = Peer(front, max_tokens=1, stream=True)
        await refused.task
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        error = json.loads(refused.body)["error"]
        assert (error["type"], error["code"]) == ("overloaded_error", "overloaded")
        running.vanish()
        await asyncio.gather(running.task, waiting.task)
        assert waiting.status == 200
        assert sorted(front.outcomes) == ["aborted", "refused", "served"]


@async_test()
async def test_errors_of_the_engine_reach_whole_and_streamed_answers() -> None:
    async with serving() as front:
        front.runner.fits = lambda step: False
        whole, streamed = Peer(front, max_tokens=2), Peer(front, max_tokens=2, stream=True)
        await asyncio.gather(whole.task, streamed.task)
        for peer in (whole, streamed):
            assert peer.status == 503
            error = json.loads(peer.body)["error"]
            assert (error["code"], error["type"]) == ("out_of_memory", "engine_error")
        front.runner.fits = lambda step: step.spans[0].start < 10
        midway = Peer(front, max_tokens=50, stream=True)
        await midway.task
        assert midway.status == 200
        assert b'{"error":' in midway.body
        assert midway.body.endswith(b"data: [DONE]\n\n")
        assert front.outcomes == ["failed"] * 3
        ended = [account["ended"] for account in front.ledger.page()]
        assert ended == [DeviceMemoryExhausted.__name__] * 3


@async_test()
async def test_what_the_front_refuses_is_answered_and_whom_it_is_from_is_told() -> None:
    async with serving() as front:
        front.refusal = Overloaded("too much", retry_after=7)
        peer = Peer(front)
        await peer.task
        assert (peer.status, peer.headers["retry-after"], front.clients) == (429, "7", ["4711"])
        assert front.outcomes == ["refused"]


@async_test()
async def test_candidates_are_streamed_side_by_side_and_counted_once() -> None:
    async with serving() as front:
        peer = Peer(
            front, n=3, temperature=1.0, seed=1, max_tokens=4, stream=True, stream_options={"include_usage": True}
        )
        await peer.task
        lines = [line.removeprefix("data: ") for line in peer.body.decode().split("\n\n") if line]
        chunks = [json.loads(line) for line in lines[:-1]]
        assert chunks[-1]["usage"]["completion_tokens"] == 12
        for index in range(3):
            own = [chunk["choices"][0] for chunk in chunks[:-1] if chunk["choices"][0]["index"] == index]
            assert "".join(choice["text"] for choice in own) == TOKENIZER.decode(SCRIPT[:4])
            assert [choice["finish_reason"] for choice in own] == [None, None, None, "length"]


@async_test()
async def test_a_stopped_worker_is_an_error_and_no_hang() -> None:
    front = Front()
    front.worker.start()
    await asyncio.to_thread(front.worker.stop)
    peer = Peer(front)
    await peer.task
    assert peer.status == 500
    assert [account["ended"] for account in front.ledger.page()] == [EngineFault.__name__]
