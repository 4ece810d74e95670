"""Two requests, an edit and a cancel, in every order and at every distance: one outcome each, one stream at a time."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from engine.client import Chunk
from lsp_server.completer import Completer
from lsp_server.reasons import Reason
from lsp_server.state.outcome import Outcome
from tests.harness.aio import async_test
from tests.unit.scripted_engine import Caller, ScriptedEngine, turns

ORDERS = sorted(set(itertools.permutations(("request", "request", "outdate", "cancel"))))
DISTANCES = (0, 1, 2, 3, 6)


class Script:
    """Plays one order of events and remembers what each of them was aimed at."""

    def __init__(self, order: tuple[str, ...], distances: tuple[int, ...], target: int, held: bool) -> None:
        self._steps = list(zip(order, (*distances, 0), strict=True))
        self._target = target
        chunks = (Chunk(text="1"), Chunk(text=" + 2", finish_reason="stop"))
        self.engine = ScriptedEngine(*chunks, held=held, turns_to_close=2)
        self.caller = Caller(self.engine, Completer(self.engine, 64, self.engine.clock))
        self.cancelled: set[int] = set()
        self.outdated: set[int] = set()

    async def play(self) -> list[Outcome | None]:
        """-> how each call ended; None for a cancelled one."""
        calls = self.caller.calls
        for event, distance in self._steps:
            events = self.engine.events
            running = {n for n, call in enumerate(calls) if not call.done()}
            if event == "request":
                self.caller.request()
            elif event == "outdate":
                self.outdated |= {n for n in running if f"start {n + 1}" in events}
                self.caller.completer.edited("a")
            elif self._target in running:
                self.cancelled.add(self._target)
                calls[self._target].cancel()
            await turns(distance)
        await turns(4)
        self.engine.release()
        done = await asyncio.gather(*calls, return_exceptions=True)
        await turns(6)
        assert all(isinstance(end, Outcome | asyncio.CancelledError) for end in done)
        return [end if isinstance(end, Outcome) else None for end in done]


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@async_test()
async def test_each_request_has_one_outcome_in_every_interleaving(order: tuple[str, ...], held: bool) -> None:
    for distances in itertools.product(DISTANCES, repeat=3):
        for target in (0, 1):
            script = Script(order, distances, target, held)
            first, second = await script.play()
            events, engine = script.engine.events, script.engine
            case = (distances, target, events)

            assert engine.open == 0, case
            assert engine.most_open <= (2 if script.cancelled else 1), case
            assert asyncio.all_tasks() == {asyncio.current_task()}, case
            assert script.caller.completer.at_rest, case

            for number, end in enumerate((first, second)):
                if end is None:
                    assert number in script.cancelled, case
                elif number in script.outdated:
                    assert not end.items, case
                    assert end.reason in (Reason.OUTDATED, Reason.SUPERSEDED), case
                else:
                    assert end.items or (number == 0 and end.reason is Reason.SUPERSEDED), case
            if first is not None and first.reason is Reason.SUPERSEDED and second is not None and second.items:
                assert events.index("return 1") < events.index(f"open {len(engine.requests)}"), case
