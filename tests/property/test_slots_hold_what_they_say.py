"""Against simulated memory, after any sequence of events: what a slot says it holds was written to it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from engine.errors import Overloaded
from engine.generation import Finish, Generation
from engine.kv_slots import KvSlots, Placement, common_prefix
from engine.sampling import Sampling
from engine.scheduler import Scheduler
from engine.step import Copy, Sample, Span, Step
from tests.unit.vocabularies import vocabulary

WINDOW = 37
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

    def spoil(self, slot: int, start: int = 0) -> None:
        self.rows[slot][start:] = [GARBAGE] * (WINDOW - start)

    def keep(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        kept = zip(slots, lengths, strict=True)
        self.rows = [self.rows[slot][:length] + [GARBAGE] * (WINDOW - length) for slot, length in kept]

    def check(self, slots: KvSlots) -> None:
        for number, row in enumerate(self.rows):
            held = list(slots.ids(number))
            assert row[: len(held)] == held, f"slot {number}"


class SlotsMachine(RuleBasedStateMachine):
    """Admit, extend, release, forget, pin and give up in any order."""

    @initialize(slots=st.integers(1, 9))
    def start(self, slots: int) -> None:
        self.slots, self.memory = KvSlots(slots, WINDOW), Memory(slots)
        self.running: dict[int, list[int]] = {}
        self.owners = count(1)

    @rule(prompt=PROMPTS)
    def admit(self, prompt: list[int]) -> None:
        before = [list(self.slots.ids(n)) for n in range(len(self.slots))]
        pinned = self.slots.pinned
        placement = self.slots.admit(next(self.owners), prompt)
        if placement is None:
            assert len(self.running) + pinned == len(self.slots)
            return
        assert placement.slot not in self.running
        assert placement.reused == min(max(common_prefix(ids, prompt) for ids in before), len(prompt) - 1)
        self.copy(placement)
        for number in self.running:
            assert list(self.slots.ids(number)) == before[number], "nobody touches what a running sequence holds"
        assert list(self.slots.ids(placement.slot)) == prompt[: placement.reused]
        assert self.slots.pinned == pinned, "a prompt displaces no pinned head"
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

    @rule(data=st.data(), broken=st.booleans(), pin=st.booleans())
    def release(self, data: st.DataObject, broken: bool, pin: bool) -> None:
        if self.running:
            slot = data.draw(st.sampled_from(sorted(self.running)))
            if broken:
                self.memory.spoil(slot)
                self.slots.forget(slot)
            self.slots.release(slot)
            del self.running[slot]
            if pin:
                self.slots.pin_in_place(slot)

    @rule(data=st.data(), length=st.integers(1, 20))
    def pin(self, data: st.DataObject, length: int) -> None:
        if self.running:
            slot = data.draw(st.sampled_from(sorted(self.running)))
            length = min(length, len(self.slots.ids(slot)))
            head = list(self.slots.ids(slot)[:length])
            placement = self.slots.pin(slot, length)
            if placement is not None:
                assert placement.slot not in self.running
                self.copy(placement)
                assert list(self.slots.ids(placement.slot)) == head

    @rule(most=st.integers(1, 9))
    def keep(self, most: int) -> None:
        held = {slot: list(self.slots.ids(slot)) for slot in self.running}
        kept = self.slots.keep(most)
        assert len(kept) == len(self.slots) <= max(most, len(held), 1)
        assert kept == sorted(kept)
        self.memory.keep(kept, self.slots.lengths)
        self.running = {kept.index(slot): rest for slot, rest in self.running.items()}
        assert sorted(held.values()) == sorted(list(self.slots.ids(slot)) for slot in self.running)

    @invariant()
    def the_book_is_right(self) -> None:
        if hasattr(self, "slots"):
            self.slots.check_integrity()
            self.memory.check(self.slots)
            assert self.slots.all_held() == sorted(self.running)
            assert self.slots.held + self.slots.cached <= len(self.slots)
            assert self.slots.held + self.slots.pinned + self.slots.idle == len(self.slots)

    def copy(self, placement: Placement) -> None:
        if placement.copy_from is not None:
            self.memory.copy(Copy(placement.copy_from, placement.slot, placement.reused))


class SchedulerMachine(RuleBasedStateMachine):
    """Submit, run, fail, run out of memory, abort, pause in any order, with a model that reads the memory it is given.

    At the end everything that was submitted must come to an end in a bounded number of passes.
    """

    @initialize(
        slots=st.integers(1, 9),
        most=st.none() | st.integers(1, 4),
        waiting=st.integers(2, 12),
        free_rows=st.sampled_from((1, 4, 16)),
    )
    def start(self, slots: int, most: int | None, waiting: int, free_rows: int) -> None:
        self.scheduler = Scheduler(
            KvSlots(slots, WINDOW),
            max_running=most,
            max_waiting=waiting,
            max_waiting_per_document=2,
            free_rows=free_rows,
        )
        self.memory, self.free_rows = Memory(slots), free_rows
        self.known: dict[int, Generation] = {}
        self.ended: set[int] = set()
        self.paused: set[int] = set()
        self.numbers = count(1)

    @rule(
        prompt=PROMPTS,
        max_tokens=st.sampled_from((0, 0, 1, 3, 9)),
        held=st.sampled_from((b"", b"", b"re")),
        candidates=st.sampled_from((1, 1, 2, 5)),
        pin=st.integers(0, 12),
        client=st.sampled_from("aab"),
        document=st.sampled_from(("x", "x", None, "y")),
    )
    def submit(
        self,
        prompt: list[int],
        max_tokens: int,
        held: bytes,
        candidates: int,
        pin: int,
        client: str,
        document: str | None,
    ) -> None:
        tokenizer = vocabulary("starcoder")
        generation = Generation(
            next(self.numbers),
            tokenizer,
            prompt,
            max_tokens,
            tokenizer.is_control,
            held=held,
            sampling=Sampling(seed=1) if candidates > 1 and max_tokens else None,
            client=client,
            document=document,
            pin=min(pin, len(prompt)),
        )
        if generation.sampling is not None:
            generation.add_followers([next(self.numbers) for _ in range(candidates - 1)])
        older = [each for each in self.alive() if (each.client, each.document) == (client, document)]
        try:
            submitted = self.scheduler.submit(generation)
        except Overloaded:
            assert self.scheduler.waiting >= 2
            return
        for each in (generation, *generation.followers):
            self.known[each.id] = each
        for refused in submitted.refused:
            for each in (refused, *refused.followers):
                self.end(each)
        for ended in submitted.ended:
            assert ended.delta.finish is Finish.LENGTH
            self.end(ended.generation)
        if document is not None:
            assert not any(each.primes_only for each in older if each.id not in self.ended)

    @rule(choice=st.integers(0, 1_000), times=st.integers(1, 4))
    def run(self, choice: int, times: int) -> None:
        for _ in range(times):
            if not self.pass_(choice):
                return

    @rule(copied=st.booleans(), exhausted=st.booleans(), moved=st.booleans())
    def fail(self, copied: bool, exhausted: bool, moved: bool) -> None:
        step = self.scheduler.plan()
        if step is None:
            return
        for copy in step.copies:
            self.memory.copy(copy) if copied else self.memory.spoil(copy.target)
        for span in step.spans:
            self.memory.spoil(span.slot, span.start)
        if exhausted:
            relief = self.scheduler.relieve(step)
            failed = relief.refused
            if relief.keep is not None:
                self.memory.keep(relief.keep, self.scheduler.slots.lengths)
                if not moved:
                    self.scheduler.forget()
                    for slot in range(len(self.scheduler.slots)):
                        self.memory.spoil(slot)
        else:
            if len(step.spans) == 1:
                self.memory.spoil(step.spans[0].slot)
            failed = tuple(self.scheduler.fail(step))
        for each in {one.request for one in failed}:
            self.abort_all(each)
        self.memory.check(self.scheduler.slots)

    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        alive = sorted({each.request for each in self.alive()})
        if alive:
            self.abort_all(data.draw(st.sampled_from(alive)))

    @rule(data=st.data(), paused=st.booleans())
    def pause(self, data: st.DataObject, paused: bool) -> None:
        alive = sorted({each.request for each in self.alive() if each.slot is not None})
        if alive:
            request = data.draw(st.sampled_from(alive))
            self.scheduler.pause(request, paused)
            (self.paused.add if paused else self.paused.discard)(request)

    @rule(tokens=st.integers(1, 100), seconds=st.sampled_from((0.0, 0.001, 0.01, 0.1, 1.0)))
    def observe(self, tokens: int, seconds: float) -> None:
        self.scheduler.observe(Step.of(Span(0, 0, tokens), [7] * tokens), seconds)

    @invariant()
    def everybody_is_somewhere_once(self) -> None:
        if hasattr(self, "scheduler"):
            self.scheduler.check_integrity()
            alive = self.alive()
            slots = [generation.slot for generation in alive if generation.slot is not None]
            assert len(slots) == len(set(slots)) == self.scheduler.running
            begun = [each for each in alive if each.id == each.request or each.generated]
            assert len(begun) == self.scheduler.running + self.scheduler.waiting
            assert all(each.reused < len(each.prompt) for each in begun if not each.generated)

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for request in self.paused:
            self.scheduler.pause(request, False)
        self.paused.clear()
        # Each pass gives each running generation a token, and each has at most WINDOW of them.
        passes = (len(self.alive()) + 1) * WINDOW
        while self.pass_(3):
            passes -= 1
            assert passes > 0, "somebody never ends"
        assert not self.alive()
        assert self.scheduler.slots.held == self.scheduler.running == self.scheduler.waiting == 0

    def pass_(self, choice: int) -> bool:
        step = self.scheduler.plan()
        if step is None:
            running = [each for each in self.alive() if each.slot is not None]
            assert all(each.request in self.paused for each in running)
            assert running or not self.scheduler.waiting
            return False
        generations = self.read(step)
        samples = []
        row = 0
        for number, (span, draws, guesses) in enumerate(zip(step.spans, step.draws, step.guesses, strict=True)):
            ids = step.allowed[number] or [0, *range(200, 208)]
            row += span.length
            guessed = step.ids[row - guesses : row]
            # Some guesses are right: as many as `choice` says, of those that went along.
            right = guessed[: choice % (guesses + 1)] if guesses else ()
            samples += [Sample(each, 0.0) for each in right]
            more = draws + guesses - len(right)
            samples += [Sample(ids[(choice + number + draw) % len(ids)], 0.0) for draw in range(more)]
        served = set()
        for progress in self.scheduler.commit(step, samples):
            served.add(progress.generation.request)
            if progress.delta.finish is not None:
                self.end(progress.generation)
        assert served <= {each.request for each in generations}
        self.memory.check(self.scheduler.slots)
        return True

    def read(self, step: Step) -> list[Generation]:
        """Do what a device does, after checking that it reads what was meant."""
        for copy in step.copies:
            self.memory.copy(copy)
        by_slot = {each.slot: each for each in self.alive() if each.slot is not None}
        assert len({span.slot for span in step.spans}) == len(step.spans)
        row = 0
        for span, sampled, draws, guesses in zip(step.spans, step.sampled, step.draws, step.guesses, strict=True):
            generation, ids = by_slot[span.slot], list(step.ids[row : row + span.length])
            row += span.length
            end = span.start + span.length - guesses
            assert generation.request not in self.paused
            assert end > span.start
            assert span.start + span.length <= WINDOW
            assert not guesses or (draws == 1 and not generation.held and len(step.ids) <= self.free_rows)
            assert ids[: end - span.start] == list(generation.ids_from(span.start, end))
            assert self.memory.rows[span.slot][: span.start] == list(generation.ids_from(0, span.start))
            assert sampled == (end == generation.length and not generation.primes_only) == (draws > 0)
            self.memory.write(span.slot, span.start, ids)
        assert row == len(step.ids) <= max(self.scheduler._piece, 16 + len(step.spans))
        ready = [each for each in by_slot.values() if each.request not in self.paused]
        assert len(step.spans) in (1, len(ready)), "a pass serves everybody, or one who is tried alone"
        return [by_slot[span.slot] for span in step.spans]

    def alive(self) -> list[Generation]:
        return [self.known[number] for number in sorted(set(self.known) - self.ended)]

    def abort_all(self, request: int) -> None:
        self.scheduler.abort(request)
        for each in self.alive():
            if each.request == request:
                self.end(each)

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
