"""The engine hears why nothing was shown of what it said, and nothing when something was."""

from __future__ import annotations

from engine.client import Chunk
from tests.harness.aio import async_test
from tests.unit.scripted_engine import Caller, ScriptedEngine


@async_test()
async def test_the_engine_is_told_why_nothing_was_shown() -> None:
    engine = ScriptedEngine(Chunk(0, "\n\n", "stop", (-0.1,), id="cmpl-7"))
    outcome = await Caller(engine).request()
    assert outcome.reason is not None
    assert engine.told == [("cmpl-7", outcome.reason)]


@async_test()
async def test_it_is_told_nothing_when_text_was_shown() -> None:
    engine = ScriptedEngine(Chunk(0, "foo(bar)", "stop", (-0.1,), id="cmpl-8"))
    outcome = await Caller(engine).request()
    assert outcome.items
    assert engine.told == []
