"""Tasks that somebody has to end: none is lost, and none is cancelled that ends by itself."""

from __future__ import annotations

import asyncio

import pytest

from lsp_server.tasks import Tasks
from tests.harness.aio import async_test


async def waits(reached: list[str], name: str) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        reached.append(name)


@async_test()
async def test_all_that_run_are_ended_and_waited_for() -> None:
    tasks, ended = Tasks(), list[str]()
    for name in "ab":
        tasks.start(waits(ended, name))
    await asyncio.sleep(0)
    assert len(tasks) == 2
    await tasks.aclose()
    assert sorted(ended) == ["a", "b"]
    assert len(tasks) == 0


@async_test()
async def test_one_that_fails_hinders_no_other() -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    tasks, ended = Tasks(), list[str]()
    failing = tasks.start(fails())
    tasks.start(waits(ended, "a"))
    await asyncio.wait({failing})
    assert isinstance(failing.exception(), ZeroDivisionError)
    assert len(tasks) == 1
    await tasks.aclose()
    assert ended == ["a"]


@async_test()
async def test_a_task_is_stopped_after_this_turn_of_the_loop() -> None:
    tasks, ended = Tasks(), list[str]()
    task = tasks.start(waits(ended, "a"))
    await asyncio.sleep(0)
    tasks.stop(task)
    assert not task.cancelling(), "what is to be read in this turn is read first"
    await asyncio.wait({task})
    assert task.cancelled()


@async_test()
async def test_a_task_may_stop_itself() -> None:
    tasks, own = Tasks(), list[asyncio.Task[None]]()

    async def stops() -> None:
        tasks.stop(own[0])
        await asyncio.sleep(60)

    own.append(tasks.start(stops()))
    with pytest.raises(asyncio.CancelledError):
        await own[0]


@async_test()
async def test_one_that_was_let_go_ends_by_itself() -> None:
    tasks, go_on = Tasks(), asyncio.Event()

    async def ends() -> None:
        await go_on.wait()

    task = tasks.start(ends())
    tasks.let_go(task)
    await tasks.aclose()
    go_on.set()
    await task
    assert not task.cancelled()
