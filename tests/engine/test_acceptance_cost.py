"""What the key after an accepted completion costs, with the model that ships, through the completer."""

from __future__ import annotations

import asyncio
import inspect
import json
import shlex
import statistics
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.client import Chunk
from engine.models import STARTER
from lsp_server.completer import Completer
from lsp_server.state.policy import Policy
from lsp_server.window import Window
from tests.harness.aio import async_test
from tests.harness.inprocess import InProcessEngine


class Inside:
    """A `engines.Engine` without process and wire. `computed` has the prompt tokens that each call computed."""

    primes = True
    window: int | None = None

    def __init__(self, engine: InProcessEngine) -> None:
        self.computed: list[int] = []
        self._engine = engine

    async def ready(self, *, invoked: bool, progress: Callable[[str], None] | None) -> None:
        """Always."""

    @asynccontextmanager
    async def complete(self, request: Any) -> AsyncIterator[AsyncIterator[Chunk]]:
        fields = json.loads(request)
        for ours in ("stream", "stream_options"):
            del fields[ours]
        yield self._chunks(fields)

    def not_shown(self, answer: str, reason: str) -> None:
        """Not asked."""

    async def aclose(self) -> None:
        """Nothing to close."""

    async def _chunks(self, fields: dict[str, Any]) -> AsyncIterator[Chunk]:
        done = self._engine.complete(**fields)
        self.computed.append(done.computed)
        yield Chunk(text=done.text, finish_reason="stop", extension={"computed": done.computed, "cached": 0})


class Timers:
    """Alarms that go off when the test says so."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def later(self, _: float, callback: Callable[[], None]) -> None:
        self._waiting.append(callback)

    async def all_go_off(self) -> None:
        """Until no new one is set."""
        for _ in range(4):
            waiting, self._waiting = self._waiting, []
            for callback in waiting:
                callback()
            for _ in range(20):
                await asyncio.sleep(0)


@pytest.fixture(scope="module")
def places() -> list[Window]:
    """Ends of statements' beginnings, in a file that the model has not seen."""
    source = inspect.getsource(shlex)
    found = []
    for line in range(40, 240, 11):
        at = sum(map(len, source.splitlines(keepends=True)[:line]))
        rest = source[at:].partition("\n")[0]
        if len(rest.strip()) > 12:
            cut = at + len(rest) - len(rest.lstrip()) + 6
            found.append(Window(source[:cut], source[at + len(rest) :]))
    assert len(found) >= 9
    return found[:9]


@async_test(timeout=250)
async def test_after_an_acceptance_at_most_three_prompt_tokens_are_computed(places: list[Window]) -> None:
    costs: list[int] = []
    unprepared: list[int] = []
    for speculate, into in ((True, costs), (False, unprepared)):
        loaded = InProcessEngine.of(STARTER)
        for number, window in enumerate(places):
            engine, timers = Inside(loaded), Timers()
            policy = Policy(debounce=False, speculate=speculate)
            completer = Completer(engine, 12, lambda: 0.0, policy=policy, later=timers.later)
            shown = await completer.complete(f"d{number}", window, invoked=True)
            if not shown.items:
                continue
            await timers.all_go_off()
            accepted = Window(window.prefix + shown.items[0].text, window.suffix)
            calls = len(engine.computed)
            completer.edited(f"d{number}")
            assert speculate or not completer.counts()["speculated"]
            after = loaded.complete(prompt=accepted.prefix, suffix=accepted.suffix, max_tokens=4)
            into.append(after.computed)
            await completer.complete(f"d{number}", accepted, invoked=True)
            assert len(engine.computed) <= calls + 1
            await completer.aclose()
    assert len(costs) >= 6
    assert statistics.median(costs) <= 3, costs
    assert max(costs) <= 3, costs
    assert statistics.mean(costs) <= statistics.mean(unprepared), (costs, unprepared)
