"""Watching the process that started us: its end is told once, and one that cannot be seen is not watched."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lsp_server import parent
from lsp_server.parent import Parent
from tests.harness.aio import async_test

IDLE = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]


async def told_of_its_end() -> int:
    """How often the end of a child was told."""
    told: list[int] = []
    with subprocess.Popen(IDLE, stdin=subprocess.PIPE) as child:  # noqa: ASYNC220 - starting one blocks for a moment
        watch = Parent(child.pid, lambda: told.append(1))
        await asyncio.sleep(0.05)
        assert not told
        child.communicate()
    for _ in range(400):
        if told:
            break
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    watch.close()
    return len(told)


@async_test()
async def test_the_end_of_the_process_is_told_once() -> None:
    assert await told_of_its_end() == 1


@async_test()
async def test_it_is_told_too_where_processes_have_no_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    monkeypatch.setattr(parent, "_POLL_SECONDS", 0.01)
    assert await told_of_its_end() == 1


@pytest.mark.parametrize("handles", [True, False])
@pytest.mark.parametrize("pid", [None, 0, -1, 2**31 - 1, 2**31, 2**64, True, 1.0, "1", [1]])
def test_what_is_no_process_that_can_be_seen_is_not_watched(
    pid: Any, handles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not handles:
        monkeypatch.delattr(os, "pidfd_open", raising=False)

    @async_test()
    async def run() -> None:
        watch = Parent(pid, lambda: pytest.fail("it cannot have ended"))
        await asyncio.sleep(0.01)
        assert watch._handle is None
        assert watch._poll is None
        watch.close()

    run()


@async_test()
async def test_closing_ends_the_watch() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with subprocess.Popen(IDLE, stdin=subprocess.PIPE) as child:  # noqa: ASYNC220 - starting one blocks for a moment
        watch = Parent(child.pid, lambda: pytest.fail("nobody watches"))
        watch.close()
        watch.close()
        child.communicate()
    await asyncio.sleep(0.02)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
