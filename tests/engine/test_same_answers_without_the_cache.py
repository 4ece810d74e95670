"""Invariant 3 over editing traces: what is computed anew, all of it, at every key gives the ids that the KV slots give."""

from __future__ import annotations

import inspect
import shlex
import tarfile
import textwrap
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path

import pytest

from engine.models import STARTER
from tests.harness.checkpoints import make_checkpoint
from tests.harness.inprocess import Completed, InProcessEngine
from tests.harness.traces import TRACES, Event, two_files_trace

CLOSE = 1e-4
"""Between the best two log-probabilities: rounding may choose there."""


def _events(seed: int) -> Iterator[Event]:
    """Every kind of trace, one after the other, without end."""
    first, second = inspect.getsource(shlex), inspect.getsource(textwrap)
    for number in count(seed):
        yield from chain.from_iterable(trace(first, number) for trace in TRACES.values())
        yield from two_files_trace(first, second, number)


def _ask(engine: InProcessEngine, event: Event, layout: str) -> Completed:
    return engine.complete(
        prompt=event.prefix,
        suffix=event.suffix,
        max_tokens=4,
        logprobs=2,
        starfill={"layout": layout, "document": event.document},
    )


def _empty(engine: InProcessEngine) -> None:
    slots = engine.scheduler.slots
    for slot in range(len(slots)):
        slots.forget(slot)


def _may_differ(one: Completed, other: Completed) -> bool:
    """Whether the first ids that differ were so close together that rounding may have chosen."""
    at = next(n for n, pair in enumerate(zip(one.ids, other.ids, strict=False)) if pair[0] != pair[1])
    regrown = len(one.ids) - len(one.tokens)  # they are not reported
    if at < regrown:
        return False
    best, second = (logprob for _, logprob in one.tokens[at - regrown].top[:2])
    return best - second < CLOSE


def _compare(warm: InProcessEngine, cold: InProcessEngine, events: Sequence[Event], layout: str) -> None:
    reused = differing = 0
    for number, event in enumerate(events):
        cached, anew = _ask(warm, event, layout), _ask(cold, event, layout)
        _empty(cold)
        assert anew.computed == len(anew.prompt)
        reused += cached.computed < len(cached.prompt) // 2
        if cached.ids != anew.ids:
            differing += 1
            assert _may_differ(anew, cached), f"event {number}, {event.kind}: {cached.ids} with, {anew.ids} without"
    assert reused > len(events) // 2, "the KV slots were not put to use"
    assert differing <= len(events) // 100


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose every token depends on all before."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "m", n_positions=384)


@pytest.mark.parametrize("layout", ["anchored", "spm", "psm"])
def test_two_hundred_events_on_a_tiny_checkpoint(tiny: Path, layout: str) -> None:
    warm, cold = InProcessEngine.of(tiny, slots=4), InProcessEngine.of(tiny, slots=1, piece=384)
    _compare(warm, cold, list(islice(_events(5), 200)), layout)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_ten_thousand_events_on_a_tiny_checkpoint(tiny: Path) -> None:
    warm, cold = InProcessEngine.of(tiny, slots=8), InProcessEngine.of(tiny, slots=1, piece=384)
    _compare(warm, cold, list(islice(_events(11), 10_000)), "anchored")


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_five_hundred_events_on_the_starter() -> None:
    warm = InProcessEngine.of(STARTER, dtype="float32", window=768)
    cold = InProcessEngine.of(STARTER, dtype="float32", window=768, slots=1, piece=768)
    source = inspect.getsource(tarfile)
    events = [*islice(TRACES["typing"](source, 3), 350), *islice(TRACES["walking"](source, 3), 150)]
    _compare(warm, cold, events, "anchored")
