"""Who waits for an engine that says nothing is told in time; who waits for one that is busy is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from engine.client import Chunk
from engine.errors import EngineAbsent, EngineHung, EngineSilent, EngineUnavailable
from engine.liveness import Liveness, Patience
from tests.harness.aio import async_test

PATIENCE = Patience(ask=0.02, give_up=0.1, leave=0.4)


class Engine:
    """Answers probes, or does not."""

    def __init__(self, *answers: type[Exception] | None) -> None:
        self.answers = list(answers)
        self.probes: list[float] = []
        self.hung = 0

    async def probe(self, timeout: float) -> object:
        self.probes.append(timeout)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer("said by the test")
        return {}

    async def on_hang(self) -> None:
        self.hung += 1

    def liveness(self) -> Liveness:
        return Liveness(self.probe, self.on_hang, PATIENCE)


async def wait(liveness: Liveness, seconds: float) -> str:
    async with liveness.watched():
        await asyncio.sleep(seconds)
    return "done"


@async_test()
async def test_nobody_is_asked_about_an_engine_that_talks() -> None:
    engine = Engine()
    liveness = engine.liveness()

    async def talk() -> AsyncIterator[Chunk]:
        for _ in range(30):
            await asyncio.sleep(0.002)
            yield Chunk()

    async with liveness.watched():
        assert len([chunk async for chunk in liveness.listening(talk())]) == 30
    assert len(engine.probes) <= 1
    await liveness.aclose()


@async_test()
async def test_a_busy_engine_that_answers_is_left_alone() -> None:
    engine = Engine()
    liveness = engine.liveness()
    assert await wait(liveness, 0.3) == "done"
    assert len(engine.probes) >= 3
    assert all(0.05 <= timeout <= 0.1 for timeout in engine.probes)
    assert engine.hung == 0
    await liveness.aclose()


@async_test()
async def test_everybody_who_waits_for_a_silent_engine_is_told_and_it_is_ended_once() -> None:
    engine = Engine(None, EngineSilent)
    liveness = engine.liveness()
    found = await asyncio.gather(*(wait(liveness, 60) for _ in range(5)), return_exceptions=True)
    assert [type(each) for each in found] == [EngineHung] * 5
    assert engine.hung == 1
    assert await wait(liveness, 0.05) == "done", "the next one is watched anew"
    await liveness.aclose()


@async_test()
async def test_one_that_died_is_left_to_the_connections_to_report() -> None:
    engine = Engine(EngineAbsent)
    liveness = engine.liveness()
    assert await wait(liveness, 0.2) == "done"
    assert engine.hung == 0
    await liveness.aclose()


@async_test()
async def test_a_question_that_is_broken_off_is_asked_again() -> None:
    engine = Engine(EngineUnavailable, EngineAbsent, None, EngineSilent)
    liveness = engine.liveness()
    with pytest.raises(EngineHung):
        await wait(liveness, 60)
    assert (len(engine.probes), engine.hung) == (4, 1)
    await liveness.aclose()


@async_test()
async def test_one_that_is_gone_for_longer_than_leaving_takes_leaves_nobody_waiting() -> None:
    engine = Engine(*[EngineAbsent] * 1_000)
    liveness = engine.liveness()
    began = asyncio.get_running_loop().time()
    with pytest.raises(EngineHung):
        await wait(liveness, 60)
    assert asyncio.get_running_loop().time() - began >= PATIENCE.leave
    await liveness.aclose()


@async_test()
async def test_a_timeout_or_a_cancel_of_the_callers_own_stays_what_it_is() -> None:
    liveness = Engine().liveness()
    with pytest.raises(TimeoutError):
        async with liveness.watched():
            raise TimeoutError
    task = asyncio.create_task(wait(liveness, 60))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await liveness.aclose()


@async_test()
async def test_nothing_runs_when_nobody_waits() -> None:
    liveness = Engine().liveness()
    await wait(liveness, 0.01)
    await asyncio.sleep(0.1)
    assert len(asyncio.all_tasks()) == 1
    await liveness.aclose()
