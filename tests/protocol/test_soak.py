"""Typing for minutes while the engine is killed again and again: text comes back, nothing grows, nothing is left."""

from __future__ import annotations

import signal

import pytest

from tests.harness.aio import async_test
from tests.harness.soak import KILLS, Plan, soak


@async_test(timeout=150)
async def test_a_short_soak_with_the_scripted_model() -> None:
    report = await soak(Plan(seconds=8.1, round_seconds=2.7, key_seconds=0.08, scripted=True))
    assert report.problems == []
    assert set(report.kills) == {kill.name for kill in KILLS}
    assert report.restarts == report.rounds == 3
    assert report.keys > 50
    assert report.cancels > 5
    assert report.reply_p99 > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@async_test(timeout=880)
async def test_five_minutes_of_typing_with_the_built_in_model() -> None:
    report = await soak(Plan(seconds=300))
    assert report.problems == []
    assert report.kills[signal.SIGKILL.name] >= 1
    assert report.with_text > 10
