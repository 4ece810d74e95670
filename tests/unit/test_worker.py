"""The decode thread: what is taken in between two passes, what is delivered, and what a failed pass costs whom."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from engine.errors import DeviceMemoryExhausted, EngineFault, Overloaded, StarfillError
from engine.generation import Delta, Finish, Generation
from engine.kv_slots import KvSlots
from engine.sampling import Sampling
from engine.scheduler import Scheduler
from engine.step import Sample, Step
from engine.worker import Worker
from tests.harness.scripted import ScriptedRunner
from tests.unit.vocabularies import vocabulary

TOKENIZER = vocabulary("starter")
SCRIPT = TOKENIZER.encode("one two three four five six seven eight nine ten")


def said(tokens: int) -> tuple[str, Finish]:
    """How a request for so many tokens ends."""
    return TOKENIZER.decode(SCRIPT[:tokens]), Finish.LENGTH


SECONDS = 20.0
"""Patience of these tests; nothing in them takes long."""


class GatedRunner(ScriptedRunner):
    """A scripted model whose passes begin when the test says so. `steps` has those that began."""

    def __init__(self, slots: int = 4, window: int = 512) -> None:
        super().__init__(TOKENIZER, SCRIPT, slots=slots, window=window)
        self.steps: list[Step] = []
        self.began = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.faults: dict[int, Exception] = {}

    def run(self, step: Step) -> list[Sample]:
        self.steps.append(step)
        self.began.release()
        assert self.go.acquire(timeout=SECONDS)
        if len(self.steps) in self.faults:
            raise self.faults[len(self.steps)]
        return super().run(step)


@dataclass
class Reader:
    """What one request got."""

    got: queue.Queue[tuple[int, Delta | StarfillError]] = field(default_factory=queue.Queue)

    def deliver(self, candidate: int, item: Delta | StarfillError) -> None:
        self.got.put((candidate, item))

    def next(self) -> Delta | StarfillError:
        return self.got.get(timeout=SECONDS)[1]

    def rest(self) -> tuple[str, Finish | StarfillError]:
        """-> (text, how it ended)."""
        text = ""
        while True:
            item = self.next()
            if not isinstance(item, Delta):
                return text, item
            text += item.text
            if item.finish is not None:
                return text, item.finish


class Bench:
    def __init__(self, runner: GatedRunner, idle: Callable[[], bool] | None = None, **limits: int) -> None:
        self.runner = runner
        self.ticks = itertools.count(1.0)
        scheduler = Scheduler(KvSlots(runner.slots, runner.window), **limits)
        self.dead = threading.Event()
        self.worker = Worker(
            scheduler, runner, lambda: next(self.ticks), self.dead.set, check_each_step=True, idle=idle
        )
        self.numbers = itertools.count(1)

    def ask(
        self, prompt: str = "x", max_tokens: int = 9, document: str | None = None, n: int = 1, client: str = ""
    ) -> tuple[int, Reader]:
        generation = Generation(
            next(self.numbers),
            TOKENIZER,
            TOKENIZER.encode(prompt),
            max_tokens,
            TOKENIZER.is_control,
            document=document,
            client=client,
            sampling=Sampling() if n > 1 else None,
        )
        if n > 1:
            generation.add_followers([next(self.numbers) for _ in range(n - 1)])
        reader = Reader()
        self.worker.submit(generation, reader.deliver)
        return generation.id, reader

    def begins(self) -> Step:
        """Wait until a pass has begun."""
        assert self.runner.began.acquire(timeout=SECONDS)
        return self.runner.steps[-1]

    def ends(self, passes: int = 1) -> None:
        """Let passes end, each after it has begun."""
        self.runner.go.release(passes)

    def freely(self) -> None:
        """Let all passes run from now on."""
        self.runner.go.release(10_000)


@contextmanager
def bench(slots: int = 4, window: int = 512, idle: Callable[[], bool] | None = None, **limits: int) -> Iterator[Bench]:
    made = Bench(GatedRunner(slots, window), idle, **limits)
    made.worker.start()
    try:
        yield made
    finally:
        made.freely()
        made.worker.stop()
        assert not made.dead.is_set()


def test_text_is_delivered_up_to_its_end_and_the_worker_says_when_it_is_busy() -> None:
    with bench() as b:
        seen = [b.worker.busy_since]
        _, reader = b.ask(max_tokens=3)
        b.begins()
        seen.append(b.worker.busy_since)
        assert b.worker.active == 1
        b.freely()
        assert reader.rest() == said(3)
    seen.append(b.worker.busy_since)
    assert [each is not None for each in seen] == [False, True, False]
    assert b.worker.active == 0
    assert (b.worker.counters.forward_calls, b.worker.counters.tokens_generated) == (3, 3)


def test_idle_time_prepares_bit_by_bit_until_somebody_comes(caplog: pytest.LogCaptureFixture) -> None:
    turns, go, made = threading.Semaphore(0), threading.Semaphore(0), threading.Event()
    asked: list[float | None] = []

    def idle() -> bool:
        assert made.wait(SECONDS)
        asked.append(b.worker.busy_since)
        turns.release()
        assert go.acquire(timeout=SECONDS)
        if len(asked) == 4:
            raise RuntimeError("no memory for it")
        return len(asked) != 3

    with bench(idle=idle) as b:
        made.set()
        assert turns.acquire(timeout=SECONDS)
        _, reader = b.ask(max_tokens=1)
        go.release()
        b.begins()  # and not the second bit, though there is one
        assert len(asked) == 1
        b.freely()
        assert reader.rest() == said(1)
        go.release(2)
        for _ in range(2):
            assert turns.acquire(timeout=SECONDS)
        # The third said that there is no more; the next request ends with another look.
        _, reader = b.ask(max_tokens=1)
        go.release()
        assert reader.rest() == said(1)
        assert turns.acquire(timeout=SECONDS)
        _, reader = b.ask(max_tokens=2)
        assert reader.rest() == said(2)
    assert len(asked) == 4
    assert None not in asked, "the watchdog must see it as work"
    assert "nothing more is prepared" in caplog.text


@pytest.mark.parametrize("stage", ["prefilling", "decoding"])
def test_after_an_abort_the_next_request_starts_with_the_next_forward_call(stage: str) -> None:
    with bench(slots=1) as b:
        number, reader = b.ask("word " * 200 if stage == "prefilling" else "x", max_tokens=200)
        first = b.begins()
        assert first.samples == (stage == "decoding")
        _, next_one = b.ask("other", max_tokens=1)
        b.worker.abort(number)
        b.ends()
        step = b.begins()
        assert step.ids == tuple(TOKENIZER.encode("other"))
        b.freely()
        assert next_one.rest() == said(1)
        assert reader.got.qsize() == (stage == "decoding"), "nothing after the pass that ran"
        assert b.worker.counters.aborted == 1


def test_an_abort_in_the_queue_costs_nobody_anything() -> None:
    with bench(slots=1) as b:
        _, running = b.ask(max_tokens=3)
        b.begins()
        number, queued = b.ask("other")
        b.worker.abort(number)
        b.worker.abort(12_345)
        b.freely()
        assert running.rest() == said(3)
        assert queued.got.empty()
    assert b.worker.counters.forward_calls == 3


def test_an_abort_ends_all_candidates() -> None:
    with bench(slots=2) as b:
        number, reader = b.ask(n=4, max_tokens=9)
        b.begins()
        b.ends()
        b.begins()
        b.worker.abort(number)
        _, other = b.ask("other", max_tokens=1)
        b.freely()
        assert other.rest() == said(1)
        assert b.worker.active == 0
    assert reader.got.qsize() == 4 + 2


def test_candidates_end_one_by_one_and_each_is_delivered_under_its_number() -> None:
    with bench(slots=2) as b:
        _, reader = b.ask(n=3, max_tokens=2)
        b.freely()
        got = [reader.got.get(timeout=SECONDS) for _ in range(6)]
        ended = [candidate for candidate, item in got if isinstance(item, Delta) and item.finish]
        assert sorted(ended) == [0, 1, 2]
    assert b.worker.active == 0


def test_a_full_queue_refuses_and_a_newer_cursor_displaces_an_older() -> None:
    with bench(slots=1, max_waiting=3, max_waiting_per_document=1) as b:
        _, running = b.ask(max_tokens=3)
        b.begins()
        readers = [b.ask("a", document="d")[1], b.ask("b", document="d")[1]]
        floods = [b.ask(f"{n}", max_tokens=1)[1] for n in range(3)]
        b.freely()
        assert running.rest() == said(3)
        displaced, refused = readers[0].next(), floods[2].next()
        assert isinstance(displaced, Overloaded)
        assert isinstance(refused, Overloaded)
        assert readers[1].rest()[1] is not None
        assert [each.rest() for each in floods[:2]] == [said(1)] * 2
    assert b.worker.counters.refused == 2


def test_a_priming_hands_its_half_done_prompt_to_the_completion_that_follows() -> None:
    text = "word " * 100
    with bench() as b:
        _, priming = b.ask(text, max_tokens=0, document="d")
        first = b.begins()
        assert (len(first.ids), first.samples) == (64, 0)
        _, completion = b.ask(text + "more", max_tokens=1, document="d")
        b.ends()
        second = b.begins()
        assert second.spans[0].start == 64
        assert priming.rest() == ("", Finish.LENGTH)
        b.freely()
        assert completion.rest() == said(1)


def test_a_raised_pass_ends_whom_it_served_alone() -> None:
    with bench() as b:
        b.runner.faults[1] = RuntimeError("broken")
        _, reader = b.ask()
        b.freely()
        text, error = reader.rest()
        assert isinstance(error, EngineFault)
        assert (text, str(error)) == ("", "a forward pass failed: RuntimeError")
        assert b.ask(max_tokens=1)[1].rest() == said(1)
    assert b.worker.counters.failed == 1


def test_a_raised_pass_with_company_is_tried_apart_and_only_the_culprit_ends() -> None:
    with bench() as b:
        _, good = b.ask("good", max_tokens=5)
        b.begins()
        _, bad = b.ask("bad", max_tokens=5)
        b.ends()
        step = b.begins()
        assert len(step.spans) == 2
        b.runner.faults[2] = b.runner.faults[4] = RuntimeError("broken")
        b.freely()
        assert good.rest() == said(5)
        assert isinstance(bad.rest()[1], EngineFault)
        assert [len(step.spans) for step in b.runner.steps[1:4]] == [2, 1, 1]


def test_without_memory_for_all_the_earlier_half_finishes_and_the_rest_hears_why() -> None:
    with bench() as b:
        b.runner.fits = lambda step: len(step.spans) <= 2
        early = [b.ask(f"early {n}", max_tokens=4)[1] for n in range(2)]
        b.begins()
        b.ends()
        b.begins()
        late = [b.ask(f"late {n}", max_tokens=4)[1] for n in range(2)]
        b.freely()
        assert [each.rest() for each in early] == [said(4)] * 2
        for reader in late:
            text, error = reader.rest()
            assert (text, type(error)) == ("", DeviceMemoryExhausted)
            assert "no memory" in str(error)
        assert len(b.worker.scheduler.slots) == b.runner.slots == 2
        assert b.ask("after", max_tokens=1)[1].rest() == said(1)
    assert b.worker.counters.memory_exhausted >= 1


def test_without_memory_for_a_long_pass_it_is_made_shorter_and_nobody_notices() -> None:
    with bench() as b:
        b.runner.fits = lambda step: len(step.ids) <= 20
        _, reader = b.ask("word " * 100, max_tokens=2)
        b.freely()
        assert reader.rest() == said(2)
    assert (b.worker.counters.memory_exhausted, b.runner.slots) == (2, 4)


def test_without_memory_for_anything_each_request_is_told_so_and_the_worker_lives() -> None:
    with bench() as b:
        b.runner.fits = lambda step: False
        readers = [b.ask(f"{n} word word", max_tokens=2)[1] for n in range(6)]
        b.freely()
        for reader in readers:
            assert isinstance(reader.rest()[1], DeviceMemoryExhausted)
        b.runner.fits = None
        assert b.ask(max_tokens=1)[1].rest() == said(1)
    assert b.runner.slots == 1


def test_slots_that_cannot_be_moved_are_computed_again_and_nobody_notices() -> None:
    with bench() as b:
        keep = b.runner.keep_slots

        def fail(slots: Sequence[int], lengths: Sequence[int]) -> None:
            keep(slots, [0] * len(slots))  # what they hold is lost
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

        b.runner.keep_slots = fail  # type: ignore[method-assign]
        b.runner.fits = lambda step: len(b.runner.steps) != 3
        readers = [b.ask(f"early {n}", max_tokens=6)[1] for n in range(2)]
        b.freely()
        assert [each.rest() for each in readers] == [said(6)] * 2
        assert b.ask("after", max_tokens=2)[1].rest() == said(2)
        assert not b.dead.is_set()
        assert len(b.worker.scheduler.slots) == b.runner.slots == 2


def test_an_engine_without_slots_to_go_on_in_ends_and_everybody_is_told() -> None:
    made = Bench(GatedRunner())

    def fail(slots: Sequence[int], lengths: Sequence[int]) -> None:
        made.runner.slots = 0
        raise RuntimeError("CUDA out of memory")

    made.runner.keep_slots = fail  # type: ignore[method-assign]
    made.runner.fits = lambda step: False
    made.worker.start()
    readers = [made.ask(f"early {n}")[1] for n in range(6)]
    made.freely()
    for reader in readers:
        assert isinstance(reader.rest()[1], EngineFault)
    assert made.dead.wait(SECONDS)


def test_a_paused_request_waits_without_a_pass_and_goes_on_when_told() -> None:
    with bench() as b:
        number, reader = b.ask(max_tokens=3)
        b.begins()
        b.worker.pause(number, True)
        b.ends()
        _, other = b.ask("other", max_tokens=2)
        b.begins()
        b.freely()
        assert other.rest() == said(2)
        assert b.worker.counters.forward_calls == 3
        assert b.worker.active == 1
        b.worker.pause(number, False)
        assert reader.rest() == said(3)


def test_stopping_tells_everybody_in_whatever_state() -> None:
    with bench(slots=1) as b:
        readers = [b.ask(max_tokens=200)[1], b.ask("queued")[1]]
        b.begins()
        stopping = threading.Thread(target=b.worker.stop)
        stopping.start()
        while not b.worker._inbox.stopping:
            pass
        readers.append(b.ask("late")[1])
        b.freely()
        for reader in readers:
            assert isinstance(reader.rest()[1], EngineFault)
        stopping.join(SECONDS)


def test_a_thread_that_dies_says_so_and_leaves_nobody_waiting() -> None:
    made = Bench(GatedRunner(slots=1))
    made.worker.start()
    _, first = made.ask()
    made.begins()
    _, second = made.ask("other")
    made.worker._scheduler.commit = None  # type: ignore[assignment, method-assign]
    made.freely()
    for reader in (first, second):
        assert isinstance(reader.rest()[1], EngineFault)
    assert made.dead.wait(SECONDS)
