"""Against simulated memory, after any sequence of events: what a slot says it holds was written to it."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from engine.generation import Generation
from engine.kv_slots import KvSlots, common_prefix
from engine.scheduler import Scheduler
from engine.step import Copy, Sample, Step
from tests.unit.vocabularies import vocabulary

WINDOW = 40
GARBAGE = -1
PROMPTS = st.tuples(st.integers(1, 3), st.integers(0, 24), st.lists(st.integers(20, 22), max_size=12)).map(
    lambda parts: ([parts[0]] * 12 + [parts[0] + 10] * 12)[: parts[1]] + parts[2] or [9]
)


class Memory:
    """Keys and values, of which only the ids are kept that they were computed from."""

    def __init__(self, slots: int) -> None:
        self.rows = [[GARBAGE] * WINDOW for _ in range(slots)]

    def copy(self, copy: Copy) -> None:
        self.rows[copy.target][: copy.length] = self.rows[copy.source][: copy.length]

    def write(self, slot: int, start: int, ids: list[int] | tuple[int, ...]) -> None:
        self.rows[slot][start : start + len(ids)] = ids

    def spoil(self, slot: int) -> None:
        self.rows[slot] = [GARBAGE] * WINDOW

    def check(self, slots: KvSlots) -> None:
        for number, row in enumerate(self.rows):
            held = list(slots.ids(number))
            assert row[: len(held)] == held, f"slot {number}"


class SlotsMachine(RuleBasedStateMachine):
    """Admit, extend, release and forget in any order."""

    @initialize(slots=st.integers(1, 4))
    def start(self, slots: int) -> None:
        self.slots, self.memory = KvSlots(slots, WINDOW), Memory(slots)
        self.running: dict[int, list[int]] = {}
        self.owners = count(1)

    @rule(prompt=PROMPTS)
    def admit(self, prompt: list[int]) -> None:
        before = [list(self.slots.ids(n)) for n in range(len(self.slots))]
        placement = self.slots.admit(next(self.owners), prompt)
        if placement is None:
            assert len(self.running) == len(self.slots)
            return
        assert placement.slot not in self.running
        assert placement.reused == min(max(common_prefix(ids, prompt) for ids in before), len(prompt) - 1)
        if placement.copy_from is not None:
            self.memory.copy(Copy(placement.copy_from, placement.slot, placement.reused))
        for number in self.running:
            assert list(self.slots.ids(number)) == before[number], "nobody touches what a running sequence holds"
        assert list(self.slots.ids(placement.slot)) == prompt[: placement.reused]
        self.running[placement.slot] = prompt[placement.reused :]

    @rule(data=st.data(), length=st.integers(1, 10))
    def extend(self, data: st.DataObject, length: int) -> None:
        if self.running:
            slot = data.draw(st.sampled_from(sorted(self.running)))
            held = len(self.slots.ids(slot))
            ids = (self.running[slot] + [33] * length)[: min(length, WINDOW - held)]
            self.running[slot] = self.running[slot][len(ids) :]
            self.memory.write(slot, held, ids)
            self.slots.extend(slot, ids)

    @rule(data=st.data(), broken=st.booleans())
    def release(self, data: st.DataObject, broken: bool) -> None:
        if self.running:
            slot = data.draw(st.sampled_from(sorted(self.running)))
            if broken:
                self.memory.spoil(slot)
                self.slots.forget(slot)
            self.slots.release(slot)
            del self.running[slot]

    @invariant()
    def the_book_is_right(self) -> None:
        if hasattr(self, "slots"):
            self.slots.check_integrity()
            self.memory.check(self.slots)
            assert self.slots.held == len(self.running)
            assert self.slots.held + self.slots.cached <= len(self.slots)


class SchedulerMachine(RuleBasedStateMachine):
    """Submit, run, fail, abort and observe in any order, with a model that reads the memory it is given."""

    @initialize(slots=st.integers(1, 4), most=st.none() | st.integers(1, 4))
    def start(self, slots: int, most: int | None) -> None:
        self.scheduler = Scheduler(KvSlots(slots, WINDOW), max_running=most, max_waiting=1_000)
        self.memory = Memory(slots)
        self.known: dict[int, Generation] = {}
        self.ended: set[int] = set()
        self.numbers = count(1)

    @rule(prompt=PROMPTS, max_tokens=st.integers(0, 6), held=st.sampled_from((b"", b"", b"re")))
    def submit(self, prompt: list[int], max_tokens: int, held: bytes) -> None:
        tokenizer = vocabulary("starcoder")
        generation = Generation(next(self.numbers), tokenizer, prompt, max_tokens, tokenizer.is_control, held=held)
        self.known[generation.id] = generation
        self.scheduler.submit(generation)

    @rule(choice=st.integers(0, 1_000), times=st.integers(1, 4))
    def run(self, choice: int, times: int) -> None:
        for _ in range(times):
            step = self.scheduler.plan()
            if step is None:
                assert self.scheduler.running == self.scheduler.waiting == 0
                return
            generation = self.read(step)
            allowed = step.allowed[0]
            ids = allowed if allowed is not None else [0, *range(200, 208)]
            samples = [Sample(ids[choice % len(ids)], 0.0)] if step.sampled[0] else []
            for progress in self.scheduler.commit(step, samples):
                assert progress.generation is generation
                if progress.delta.finish is not None:
                    self.end(generation)
            self.memory.check(self.scheduler.slots)

    @rule(copied=st.booleans())
    def fail(self, copied: bool) -> None:
        step = self.scheduler.plan()
        if step is None:
            return
        if copied:
            for copy in step.copies:
                self.memory.copy(copy)
        for slot in {copy.target for copy in step.copies} | {span.slot for span in step.spans}:
            if not copied or slot == step.spans[0].slot:
                self.memory.spoil(slot)
        (failed,) = self.scheduler.fail(step)
        self.end(failed)
        self.memory.check(self.scheduler.slots)

    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        alive = sorted(set(self.known) - self.ended)
        if alive:
            number = data.draw(st.sampled_from(alive))
            unplanned = self.scheduler.waiting
            assert self.scheduler.abort(number)
            assert self.scheduler.waiting in (unplanned, unplanned - 1)
            self.end(self.known[number])

    @rule(tokens=st.integers(0, 100), seconds=st.sampled_from((0.0, 0.001, 0.01, 0.1, 1.0)))
    def observe(self, tokens: int, seconds: float) -> None:
        self.scheduler.observe(tokens, seconds)

    @invariant()
    def everybody_is_somewhere_once(self) -> None:
        if hasattr(self, "scheduler"):
            self.scheduler.check_integrity()
            alive = [self.known[number] for number in set(self.known) - self.ended]
            slots = [generation.slot for generation in alive if generation.slot is not None]
            assert len(slots) == len(set(slots)) == self.scheduler.running
            assert len(alive) == self.scheduler.running + self.scheduler.waiting
            assert all(generation.reused < len(generation.prompt) for generation in self.known.values())

    def read(self, step: Step) -> Generation:
        """Do what a device does, after checking that it reads what was meant."""
        for copy in step.copies:
            self.memory.copy(copy)
        (span,) = step.spans
        (generation,) = (each for each in self.known.values() if each.slot == span.slot)
        assert span.length == len(step.ids) >= 1
        assert list(step.ids) == list(generation.ids_from(span.start, span.start + span.length))
        assert self.memory.rows[span.slot][: span.start] == list(generation.ids_from(0, span.start))
        self.memory.write(span.slot, span.start, step.ids)
        return generation

    def end(self, generation: Generation) -> None:
        assert generation.id not in self.ended
        assert generation.slot is None
        self.ended.add(generation.id)


MACHINES = pytest.mark.parametrize("machine", [SlotsMachine, SchedulerMachine])


@MACHINES
def test_slots_hold_what_they_say(machine: type[RuleBasedStateMachine]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=200, stateful_step_count=50, deadline=None))


@pytest.mark.slow
@MACHINES
def test_slots_hold_what_they_say_for_long(machine: type[RuleBasedStateMachine]) -> None:
    long = settings(max_examples=2_000, stateful_step_count=100, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=long)


@given(shared=st.lists(st.integers(0, 2), max_size=60), a=st.lists(st.integers(0, 2)), b=st.lists(st.integers(0, 2)))
@settings(max_examples=300, deadline=None)
def test_common_prefix_is_how_many_leading_ids_agree(shared: list[int], a: list[int], b: list[int]) -> None:
    left, right, agree = shared + a, shared + b, 0
    while agree < min(len(left), len(right)) and left[agree] == right[agree]:
        agree += 1
    assert common_prefix(left, right) == common_prefix(right, left) == agree
