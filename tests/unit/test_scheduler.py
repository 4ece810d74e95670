"""Whose turn it is: one pass for each in turn, prefill in pieces that fit the time, copies before, releases after."""

from __future__ import annotations

import pytest

from engine.errors import Overloaded
from engine.generation import Finish, Generation
from engine.kv_slots import KvSlots
from engine.scheduler import PIECE_SECONDS, Progress, Scheduler
from engine.step import Copy, Sample, Span, Step
from tests.unit.vocabularies import vocabulary

TOKENIZER = vocabulary("starcoder")
WORD = TOKENIZER.encode("a")[0]
END = TOKENIZER.control.end_of_text


def generation(number: int, prompt: list[int], max_tokens: int = 4, held: bytes = b"") -> Generation:
    return Generation(number, TOKENIZER, prompt, max_tokens, TOKENIZER.is_control, held=held)


def scheduler(slots: int = 2, window: int = 4_096, **limits: int) -> Scheduler:
    return Scheduler(KvSlots(slots, window), **limits)


def run(target: Scheduler, sample: int = WORD) -> tuple[Step, list[Progress]]:
    step = target.plan()
    assert step is not None
    progress = target.commit(step, [Sample(sample, -1.0)] * sum(step.sampled))
    target.check_integrity()
    return step, progress


def test_nothing_to_do_is_no_step() -> None:
    assert scheduler().plan() is None


def test_a_prompt_is_computed_then_sampled_then_one_token_a_step() -> None:
    target = scheduler()
    target.submit(generation(1, [10, 11, 12], max_tokens=2))
    assert (target.waiting, target.running) == (1, 0)
    step, progress = run(target)
    assert (target.waiting, target.running) == (0, 1)
    assert step == Step((Span(0, 0, 3),), (10, 11, 12), (True,), (None,))
    assert [(each.generation.id, each.delta.text, each.delta.finish) for each in progress] == [(1, "a", None)]
    step, progress = run(target)
    assert step == Step((Span(0, 3, 1),), (WORD,), (True,), (None,))
    assert progress[0].delta.finish is Finish.LENGTH
    assert (target.running, target.slots.held, target.slots.cached) == (0, 0, 1)
    assert target.plan() is None


def test_a_long_prompt_comes_in_pieces_and_only_the_last_is_sampled() -> None:
    target, prompt = scheduler(), list(range(100, 300))
    target.submit(generation(1, prompt))
    steps = [run(target)[0] for _ in range(4)]
    assert [step.spans[0] for step in steps] == [Span(0, 0, 64), Span(0, 64, 64), Span(0, 128, 64), Span(0, 192, 8)]
    assert [step.sampled for step in steps] == [(False,), (False,), (False,), (True,)]
    assert [token for step in steps for token in step.ids] == prompt
    assert (target.prompt_tokens_computed, target.prompt_tokens_cached) == (200, 0)


def test_pieces_follow_what_passes_cost_but_grow_no_faster_than_twofold() -> None:
    target = scheduler()
    target.submit(generation(1, [7] * 4_000))

    def piece() -> int:
        return len(run(target)[0].ids)

    assert piece() == 64
    target.observe(64, 0.001)
    assert piece() == 128
    target.observe(128, PIECE_SECONDS * 2)
    assert piece() == 64
    target.observe(64, 10.0)
    assert piece() == 16
    for _ in range(20):
        target.observe(1_000, 0.001)
    assert piece() == 2_048
    target.observe(8, 10.0)
    target.observe(64, 0.0)
    assert piece() > 1_000, "a decode step says nothing about prefill"


@pytest.mark.parametrize("rate", [100.0, 1_000.0, 20_000.0])
def test_a_piece_takes_no_longer_than_it_may_once_the_rate_is_known(rate: float) -> None:
    target = scheduler(window=100_000)
    target.submit(generation(1, [7] * 60_000))
    for number in range(30):
        step, _ = run(target)
        seconds = len(step.ids) / rate
        target.observe(len(step.ids), seconds)
        if number:
            assert seconds <= max(PIECE_SECONDS, 16 / rate) * 1.001


def test_two_take_turns_whatever_the_length_of_their_prompts() -> None:
    target = scheduler()
    target.submit(generation(1, [1] * 640, max_tokens=50))
    target.submit(generation(2, [2] * 3, max_tokens=50))
    turns = [run(target)[0].spans[0].slot for _ in range(40)]
    assert turns == [0, 1] * 20


def test_a_newcomer_is_served_within_one_round() -> None:
    target = scheduler(slots=4)
    for number in (1, 2, 3):
        target.submit(generation(number, [number] * 500, max_tokens=50))
    run(target)
    target.submit(generation(4, [4], max_tokens=50))
    slots = [run(target)[0].spans[0].slot for _ in range(4)]
    assert sorted(slots) == [0, 1, 2, 3]


def test_no_more_run_than_there_are_slots_or_than_was_allowed() -> None:
    for limits, most in (({}, 3), ({"max_running": 2}, 2), ({"max_running": 9}, 3)):
        target = scheduler(slots=3, **limits)
        for number in range(5):
            target.submit(generation(number, [number + 1], max_tokens=2))
        run(target)
        assert (target.running, target.waiting) == (most, 5 - most)
        served = {each.generation.id for _ in range(12) if target.running or target.waiting for each in run(target)[1]}
        assert served == set(range(5))


def test_a_full_queue_refuses() -> None:
    target = scheduler(slots=1, max_waiting=2)
    target.submit(generation(1, [1]))
    target.submit(generation(2, [2]))
    with pytest.raises(Overloaded, match="2 requests are waiting"):
        target.submit(generation(3, [3]))
    run(target)
    target.submit(generation(3, [3]))


def test_priming_computes_the_prompt_and_samples_nothing() -> None:
    target = scheduler()
    target.submit(generation(1, [7] * 100, max_tokens=0, held=b"re"))
    steps = [run(target), run(target)]
    assert [step.sampled for step, _ in steps] == [(False,), (False,)]
    assert steps[0][1] == []
    assert [each.delta.finish for each in steps[1][1]] == [Finish.LENGTH]
    assert list(target.slots.ids(0)) == [7] * 100


def test_regrowing_steps_carry_what_is_allowed() -> None:
    target = scheduler()
    target.submit(generation(1, [7] * 70, held=b"re"))
    first, second = run(target)[0], run(target, TOKENIZER.tokens_along(b"r")[0])[0]
    assert first.allowed == (None,)
    assert second.allowed == (TOKENIZER.tokens_along(b"re"),)


def test_a_shared_beginning_is_copied_before_the_pass_and_counted_as_cached() -> None:
    target = scheduler()
    target.submit(generation(1, [5, 6, 7, 8], max_tokens=50))
    run(target)
    target.submit(generation(2, [5, 6, 7, 9], max_tokens=50))
    step = target.plan()
    assert step is not None
    assert step.copies == (Copy(0, 1, 3),)
    assert (target.prompt_tokens_cached, target.prompt_tokens_computed) == (3, 4)


def test_an_end_token_releases_the_slot_at_once() -> None:
    target = scheduler(slots=1)
    target.submit(generation(1, [5, 6]))
    target.submit(generation(2, [5, 6, 7]))
    _, progress = run(target, END)
    assert progress[0].delta.finish is Finish.STOP
    step, _ = run(target)
    assert (step.spans[0], step.copies) == (Span(0, 2, 1), ())


def test_a_full_slot_ends_the_text() -> None:
    target = scheduler(slots=1, window=6)
    target.submit(generation(1, [5, 6, 7], max_tokens=50))
    deltas = [run(target)[1][0].delta for _ in range(4)]
    assert [delta.finish for delta in deltas] == [None, None, None, Finish.LENGTH]
    assert (len(target.slots.ids(0)), target.running) == (6, 0)


def test_aborting_forgets_a_generation_wherever_it_stands() -> None:
    target = scheduler(slots=1)
    target.submit(generation(1, [1] * 100))
    target.submit(generation(2, [2]))
    run(target)
    assert target.abort(2)
    assert target.abort(1)
    assert not target.abort(1)
    assert (target.waiting, target.running, target.slots.held, target.slots.cached) == (0, 0, 0, 1)
    assert target.plan() is None
    target.check_integrity()


def test_a_failed_pass_ends_its_generation_and_empties_its_slot_only() -> None:
    target = scheduler()
    target.submit(generation(1, [1] * 10))
    target.submit(generation(2, [2] * 10))
    run(target)
    run(target)
    step = target.plan()
    assert step is not None
    assert [each.id for each in target.fail(step)] == [1]
    target.check_integrity()
    assert (list(target.slots.ids(0)), list(target.slots.ids(1))) == ([], [2] * 10)
    step, _ = run(target)
    assert step.spans == (Span(1, 10, 1),)


def test_a_copy_that_failed_is_computed_instead() -> None:
    target = scheduler(slots=3)
    target.submit(generation(1, [5, 6, 7, 8]))
    run(target)
    target.submit(generation(2, [5, 6, 7, 9]))
    step = target.plan()
    assert step is not None
    assert step.copies
    assert [each.id for each in target.fail(step)] == [1]
    step, _ = run(target)
    assert (step.spans, step.ids) == ((Span(1, 0, 4),), (5, 6, 7, 9))
    assert list(target.slots.ids(1)) == [5, 6, 7, 9]
