"""Cancelling at random points: every id answered once, at most one further forward pass, nothing left behind."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from bisect import bisect
from pathlib import Path

import pytest

from tests.harness.aio import async_test
from tests.harness.editor import FakeEditor, ServerError
from tests.harness.leakcheck import LeakCheck
from tests.harness.process import Child, isolated_env, read_metrics, temporary_home, wait_for_health

URI = "untitled:storm.py"
PASS_SECONDS = 0.015
SCRIPT = "value.first(second, third)[fourth] = fifth * sixth - seventh"


@async_test(timeout=250)
async def test_a_thousand_requests_cancelled_at_random_points(tmp_path: Path) -> None:
    await _storm(tmp_path, pairs=1_000)


@pytest.mark.slow
@async_test(timeout=280)
async def test_five_thousand_requests_cancelled_at_random_points(tmp_path: Path) -> None:
    await _storm(tmp_path, pairs=5_000)


async def _storm(tmp_path: Path, pairs: int) -> None:
    rng = random.Random(11)
    log = tmp_path / "passes"
    with temporary_home() as home:
        socket = home / "e.sock"
        argv = ("--socket", str(socket), "--script", SCRIPT, "--delay", str(PASS_SECONDS), "--log", str(log))
        with Child.module("tests.harness.scripted", *argv, home=home) as child:
            wait_for_health(socket, child=child)
            editor = await FakeEditor.start(
                [sys.executable, "-m", "lsp_server", "lsp", "--engine", f"unix:{socket}"],
                env=isolated_env(home),
            )
            async with editor:
                await editor.initialize("vscode")
                editor.open(URI, "python", "x = ")
                await editor.inline(URI, 0, 4).result()
                leaks = LeakCheck([editor.pid, child.pid])
                cancelled: list[tuple[float, float]] = []  # when it was sent, and until when no other request was
                for number in range(pairs):
                    place = f"x{number} = "  # a new one each time, or the answer would come from the store
                    editor.change(URI, None, place)
                    pending = editor.inline(URI, 0, len(place), kind=rng.choice((1, 2)))
                    await asyncio.sleep(rng.uniform(0, 2 * PASS_SECONDS))
                    at = time.monotonic()
                    editor.cancel(pending)
                    try:
                        assert (await pending.result())["items"]
                    except ServerError as error:
                        assert error.code == -32800
                        await asyncio.sleep(1.5 * PASS_SECONDS)
                        cancelled.append((at, time.monotonic()))
                assert len(cancelled) > pairs * 0.9
                await leaks.settled(timeout=10, rss_mib=16)
                metrics = read_metrics(socket)
                assert metrics.value("starfill_slots_held") == 0
                assert metrics.value("starfill_running") == 0
                assert (await editor.inline(URI, 0, 4).result())["items"]
    starts = [float(line) for line in log.read_text().split()]
    # A pass that began before the cancel may end; at most one more may begin, in the time that the cancel travels.
    further = [bisect(starts, until) - bisect(starts, at) for at, until in cancelled]
    assert max(further) <= 1, f"cancels that let so many more passes begin: {sorted(further)[-10:]}"
