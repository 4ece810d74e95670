"""SIGKILL, SIGSTOP, an exception and a hang at each stage: every waiter gets a typed error soon, and service continues."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from engine import registry
from engine.api import CompletionRequest, Extension
from engine.errors import EngineUnavailable, StarfillError
from engine.launcher import EngineOptions, SharedEngine, stop
from engine.liveness import Patience
from tests.harness.aio import async_test
from tests.harness.faulty import PROMPT, SCRIPT, SOURCE, Faults, faulty_command
from tests.harness.process import engine_pids, is_alive, temporary_home, wait_until

GIVE_UP = 1.5
PASS_LIMIT, LOAD_LIMIT = 2.0, 6.0
PATIENCE = Patience(ask=0.3, give_up=GIVE_UP, loading=GIVE_UP, start=20, load=20, leave=5)
WAITERS = 3

STAGES = ["handshake", "load", "prefill", "first", "middle", "last"]


@dataclass(frozen=True, slots=True)
class World:
    """One home with an engine that fails on demand."""

    home: Path
    faults: Faults

    @asynccontextmanager
    async def client(self) -> AsyncIterator[SharedEngine]:
        command = faulty_command(self.home, "--pass-limit", str(PASS_LIMIT), "--load-limit", str(LOAD_LIMIT))
        engine = SharedEngine(EngineOptions(SOURCE), command=command, patience=PATIENCE)
        try:
            yield engine
        finally:
            await engine.aclose()

    def files(self) -> list[str]:
        return sorted(path.suffix for path in (self.home / "run").iterdir())


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with temporary_home() as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STARFILL_HOME", str(home))
        yield World(home, Faults(home))


async def answer(engine: SharedEngine, document: str = "one") -> str:
    request = CompletionRequest(
        prompt=document + PROMPT, max_tokens=32, temperature=0, starfill=Extension(document=document)
    )
    async with engine.complete(request) as chunks:
        return "".join([chunk.text async for chunk in chunks])


async def _outcomes(
    engine: SharedEngine, stage: str, name: str, waiters: int
) -> list[tuple[str | BaseException, float]]:
    """What each waiter got, and when."""

    async def wait(number: int) -> tuple[str | BaseException, float]:
        result: str | BaseException
        try:
            if stage == "load":
                await engine.ready(invoked=True)
            result = await answer(engine, f"{name} {number}")  # new to the engine: all of it is to be computed
        except StarfillError as error:
            result = error
        return result, time.monotonic()

    return list(await asyncio.gather(*(wait(number) for number in range(waiters))))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["kill", "stop", "raise", "hang"])
def test_every_waiter_gets_a_typed_error_and_service_continues(world: World, stage: str, kind: str) -> None:
    @async_test(timeout=60)
    async def run() -> None:
        async with world.client() as engine:
            if stage == "load":
                await asyncio.to_thread(_stop_all)
            else:
                await engine.ready(invoked=True)
            before = engine_pids(world.home)
            world.faults.arm(stage, kind)
            # Of several in a pass that raises, only the one that makes it raise fails: here there is but one.
            waiters = 1 if kind == "raise" and stage != "load" else WAITERS
            outcomes = await _outcomes(engine, stage, f"{kind} {stage}", waiters)
            struck = world.faults.struck()
            assert struck is not None, "the fault never struck"
            hang = LOAD_LIMIT if stage == "load" else PASS_LIMIT
            limit = {"stop": GIVE_UP + 1.0, "hang": hang + 2.0}.get(kind, 1.0)
            assert all(isinstance(result, EngineUnavailable) for result, _ in outcomes), outcomes
            assert max(at for _, at in outcomes) - struck < limit
            await engine.ready(invoked=True)
            assert await answer(engine) == SCRIPT
            (pid,) = engine_pids(world.home)
            assert (before == [pid]) == (kind == "raise" and stage != "load"), "only what must be is replaced"
            await asyncio.to_thread(_alone, world, pid)

    run()


def _alone(world: World, pid: int) -> None:
    """No other engine, no zombie, no file beyond the socket and its record."""

    def settled() -> bool:
        children = {child.pid for child in psutil.Process(os.getpid()).children(recursive=True)}
        return children <= {pid} and world.files() == [".json", ".sock"]

    wait_until(settled, f"clean runtime folder: {world.files()}", timeout=5)


def _stop_all() -> None:
    for record in registry.running_engines():
        stop(record)


def test_the_last_engine_leaves_nothing(world: World) -> None:
    pids = engine_pids(world.home)
    _stop_all()
    assert pids
    assert not any(is_alive(pid) for pid in pids)
    assert world.files() == []
    assert not list(world.home.rglob("*.tmp"))
