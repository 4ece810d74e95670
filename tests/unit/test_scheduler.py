"""What is in the next pass: a token for everybody, a piece of prefill shared out, copies before, releases after."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import Overloaded
from engine.generation import Finish, Generation
from engine.kv_slots import KvSlots
from engine.sampling import Sampling
from engine.scheduler import PIECE_SECONDS, Progress, Scheduler
from engine.step import Copy, Sample, Span, Step
from tests.unit.vocabularies import vocabulary

TOKENIZER = vocabulary("starcoder")
WORD = TOKENIZER.encode("a")[0]
END = TOKENIZER.control.end_of_text


def generation(number: int, prompt: list[int], max_tokens: int = 4, **fields: Any) -> Generation:
    return Generation(number, TOKENIZER, prompt, max_tokens, TOKENIZER.is_control, **fields)


def scheduler(slots: int = 2, window: int = 4_096, **limits: int) -> Scheduler:
    return Scheduler(KvSlots(slots, window), **limits)


def planned(target: Scheduler) -> Step:
    step = target.plan()
    assert step is not None
    return step


def run(target: Scheduler, sample: int = WORD) -> tuple[Step, list[Progress]]:
    step = planned(target)
    progress = target.commit(step, [Sample(sample, -1.0)] * step.samples)
    target.check_integrity()
    return step, progress


def lengths(step: Step) -> list[int]:
    return [span.length for span in step.spans]


def cost(tokens: int) -> Step:
    """A pass over one span."""
    return Step.of(Span(0, 0, tokens), [7] * tokens)


def test_nothing_to_do_is_no_step() -> None:
    assert scheduler().plan() is None


def test_a_prompt_is_computed_then_sampled_then_one_token_a_step() -> None:
    target = scheduler()
    target.submit(generation(1, [10, 11, 12], max_tokens=2))
    assert (target.waiting, target.running) == (1, 0)
    step, progress = run(target)
    assert (target.waiting, target.running) == (0, 1)
    assert step == Step.of(Span(0, 0, 3), (10, 11, 12))
    assert [(each.generation.id, each.delta.text, each.delta.finish) for each in progress] == [(1, "a", None)]
    step, progress = run(target)
    assert step == Step.of(Span(0, 3, 1), (WORD,))
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
    target.observe(cost(64), 0.001)
    assert piece() == 128
    target.observe(cost(128), PIECE_SECONDS * 2)
    assert piece() == 64
    target.observe(cost(64), 10.0)
    assert piece() == 16
    for _ in range(20):
        target.observe(cost(1_000), 0.001)
    assert piece() == 2_048
    target.observe(cost(8), 10.0)
    target.observe(cost(64), 0.0)
    assert piece() > 1_000, "a decode step says nothing about prefill"


@pytest.mark.parametrize("rate", [100.0, 1_000.0, 20_000.0])
def test_a_piece_takes_no_longer_than_it_may_once_the_rate_is_known(rate: float) -> None:
    target = scheduler(window=100_000)
    target.submit(generation(1, [7] * 60_000))
    for number in range(30):
        step, _ = run(target)
        seconds = len(step.ids) / rate
        target.observe(step, seconds)
        if number:
            assert seconds <= max(PIECE_SECONDS, 16 / rate) * 1.001


def test_one_pass_serves_everybody_and_a_long_prompt_gets_the_rest_of_the_piece() -> None:
    target = scheduler(slots=3)
    target.submit(generation(1, [1], max_tokens=50))
    target.submit(generation(2, [2], max_tokens=50))
    run(target)
    target.submit(generation(3, [3] * 200, max_tokens=50))
    steps = [run(target)[0] for _ in range(5)]
    assert [lengths(step) for step in steps] == [[1, 1, 62]] * 3 + [[1, 1, 14], [1, 1, 1]]
    assert [step.sampled for step in steps[2:4]] == [(True, True, False), (True, True, True)]
    assert [step.samples for step in steps] == [2, 2, 2, 3, 3]


def test_a_newcomer_with_little_to_compute_gets_it_done_in_the_next_pass() -> None:
    target = scheduler(slots=4)
    for number in (1, 2, 3):
        target.submit(generation(number, [number] * 500, max_tokens=50, client=str(number)))
    run(target)
    target.submit(generation(4, [4] * 9, max_tokens=50, client="4"))
    step, progress = run(target)
    assert lengths(step)[3] == 9
    assert [each.generation.id for each in progress] == [4]


def test_the_newest_of_a_document_prefills_first_and_nobody_stands_still() -> None:
    target = scheduler(slots=4)
    target.submit(generation(1, [1] * 500, document="a"))
    target.submit(generation(2, [2] * 500, document="a"))
    target.submit(generation(3, [3] * 500, document="b"))
    by_slot = {span.slot: span.length for span in run(target)[0].spans}
    by_id = {each.id: by_slot[each.slot or 0] for each in target._running}
    assert by_id[1] == 1
    assert abs(by_id[2] - by_id[3]) <= 1
    assert sum(by_id.values()) == 64


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


def test_a_full_document_gives_up_its_oldest_request_for_the_newest() -> None:
    target = scheduler(slots=1, max_waiting_per_document=2)
    target.submit(generation(1, [1], document="a"))
    run(target)
    assert target.submit(generation(2, [2], document="a")).refused == ()
    assert target.submit(generation(3, [3], document="a")).refused == ()
    (left,) = target.submit(generation(4, [4], document="a")).refused
    assert left.id == 2
    assert target.submit(generation(5, [5], document="b")).refused == ()
    assert target.waiting == 3


def test_a_newer_request_ends_primings_of_its_document_and_goes_on_from_them() -> None:
    target = scheduler(slots=1)
    prompt = list(range(100, 300))
    target.submit(generation(1, prompt, max_tokens=0, document="a"))
    run(target)
    target.submit(generation(2, prompt, max_tokens=0, document="b"))
    target.submit(generation(3, [9], max_tokens=0))
    assert target.submit(generation(4, prompt, client="other", document="a")).ended == ()
    (ended,) = target.submit(generation(5, [*prompt, 7], document="a")).ended
    assert (ended.generation.id, ended.generation.skipped, ended.delta.finish) == (1, 136, Finish.LENGTH)
    assert (target.running, target.waiting) == (0, 4)
    target.abort(2)
    target.abort(3)
    target.abort(4)
    assert planned(target).spans == (Span(0, 64, 64),)


def test_a_priming_that_still_waits_ends_too() -> None:
    target = scheduler(slots=1)
    target.submit(generation(1, [1], max_tokens=9))
    run(target)
    target.submit(generation(2, [2] * 9, max_tokens=0, document="a"))
    (ended,) = target.submit(generation(3, [2] * 9, document="a")).ended
    assert (ended.generation.id, ended.generation.skipped, target.waiting) == (2, 9, 1)


def test_candidates_fork_off_one_prefill() -> None:
    target, lead = scheduler(slots=4), generation(1, [5, 6, 7], max_tokens=3, sampling=Sampling(seed=9))
    lead.add_followers([2, 3])
    target.submit(lead)
    step = planned(target)
    assert (step.draws, step.samples) == ((3,), 3)
    words = [TOKENIZER.encode(text)[0] for text in ("a", "b", "c")]
    progress = target.commit(step, [Sample(word, -1.0) for word in words])
    assert [(each.generation.candidate, each.delta.text) for each in progress] == [(0, "a"), (1, "b"), (2, "c")]
    assert (target.running, target.waiting) == (1, 2)
    step, _ = run(target)
    assert [(copy.target, copy.length) for copy in step.copies] == [(1, 3), (2, 3)]
    assert (step.ids, step.draws) == (tuple(words), (1, 1, 1))
    assert [each.candidate for each in step.sampling if each] == [0, 1, 2]
    assert (target.prompt_tokens_computed, target.prompt_tokens_cached) == (3, 0)
    _, progress = run(target)
    assert [each.delta.finish for each in progress] == [Finish.LENGTH] * 3
    assert target.running == 0


def test_candidates_without_a_slot_follow_later_and_an_abort_ends_them_all() -> None:
    target, lead = scheduler(slots=1), generation(1, [5, 6, 7], max_tokens=2, sampling=Sampling(seed=9))
    lead.add_followers([2, 3])
    target.submit(lead)
    ended = [each.generation.id for _ in range(4) for each in run(target)[1] if each.delta.finish]
    assert ended == [1, 2, 3]
    assert target.prompt_tokens_computed == 3
    lead = generation(4, [5, 6, 8], max_tokens=9, sampling=Sampling(seed=9))
    lead.add_followers([5, 6])
    target.submit(lead)
    run(target)
    assert target.abort(4)
    assert (target.running, target.waiting, target.plan()) == (0, 0, None)


def test_a_paused_request_keeps_its_slot_and_is_in_no_pass() -> None:
    target = scheduler()
    target.submit(generation(1, [1, 2], max_tokens=9))
    target.submit(generation(2, [3, 4], max_tokens=9))
    run(target)
    target.pause(1, True)
    assert [span.slot for span in run(target)[0].spans] == [1]
    target.pause(2, True)
    assert target.plan() is None
    assert target.running == 2
    target.pause(1, False)
    assert [span.slot for span in run(target)[0].spans] == [0]


def test_a_pinned_head_is_copied_once_computed_and_outlives_everybody() -> None:
    target = scheduler(slots=4)
    head, rest = list(range(100, 120)), [9] * 100
    target.submit(generation(1, head + rest, max_tokens=1, pin=20))
    steps = [run(target)[0] for _ in range(3)]
    assert [(lengths(step), step.copies) for step in steps] == [([20], ()), ([64], (Copy(0, 1, 20),)), ([36], ())]
    assert (target.slots.pinned, list(target.slots.ids(1))) == (1, head)
    for number in range(2, 9):
        target.submit(generation(number, [number] * 30, max_tokens=1))
        run(target)
    assert list(target.slots.ids(1)) == head
    target.submit(generation(9, [*head, 5], max_tokens=1))
    (copy,) = planned(target).copies
    assert (copy.source, copy.length) == (1, 20)


def test_a_prompt_that_is_all_head_is_pinned_where_it_is() -> None:
    target = scheduler(slots=4)
    target.submit(generation(1, [5] * 10, max_tokens=0, pin=10))
    step, _ = run(target)
    assert (step.copies, target.slots.pinned, target.slots.idle) == ((), 1, 3)
    target.submit(generation(2, [5] * 10, max_tokens=0, pin=10))
    run(target)
    assert target.slots.pinned == 1


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


def test_a_failed_pass_ends_a_generation_only_if_it_was_alone_in_it() -> None:
    target = scheduler()
    target.submit(generation(1, [1] * 10))
    target.submit(generation(2, [2] * 10))
    run(target)
    assert target.fail(planned(target)) == []
    assert [span.slot for span in run(target)[0].spans] == [0]
    assert [each.id for each in target.fail(planned(target))] == [2]
    target.check_integrity()
    assert (list(target.slots.ids(0)), list(target.slots.ids(1))) == ([1] * 10 + [WORD], [])
    step, _ = run(target)
    assert step.spans == (Span(0, 11, 1),)


def test_a_copy_that_failed_is_computed_instead() -> None:
    target = scheduler(slots=3)
    target.submit(generation(1, [5, 6, 7, 8]))
    run(target)
    target.submit(generation(2, [5, 6, 7, 9]))
    step = planned(target)
    assert step.copies
    assert target.fail(step) == []
    assert run(target)[0].spans == (Span(0, 4, 1),)
    step, _ = run(target)
    assert (step.spans, step.ids) == ((Span(1, 0, 4),), (5, 6, 7, 9))
    assert list(target.slots.ids(1)) == [5, 6, 7, 9]
    assert target.prompt_tokens_cached == 0


def test_a_pass_that_finds_no_memory_is_made_smaller_before_anybody_is_refused() -> None:
    target = scheduler(slots=8)
    target.submit(generation(1, [7] * 2_000))
    sizes = []
    for _ in range(2):
        step = planned(target)
        sizes.append(len(step.ids))
        relief = target.relieve(step)
        assert (relief.refused, relief.keep) == ((), None)
    assert sizes == [64, 32]
    relief = target.relieve(planned(target))
    assert (relief.refused, relief.keep, len(target.slots)) == ((), (0, 1, 2, 3), 4)
    for _ in range(20):
        step, _ = run(target)
        target.observe(step, 0.001)
        assert len(step.ids) <= 16


def test_when_slots_are_all_held_the_later_half_is_refused_and_the_rest_finishes() -> None:
    target = scheduler(slots=4)
    for number in range(1, 6):
        target.submit(generation(number, [number] * 3, max_tokens=5))
    run(target)
    relief = target.relieve(planned(target))
    assert [each.id for each in relief.refused] == [3, 4]
    assert relief.keep == (0, 1)
    assert (len(target.slots), target.running, target.waiting) == (2, 2, 1)
    target.check_integrity()
    ended = {each.generation.id for _ in range(9) for each in run(target)[1] if each.delta.finish}
    assert ended == {1, 2, 5}


def test_one_that_does_not_fit_alone_is_refused_and_the_engine_goes_on() -> None:
    target = scheduler(slots=1)
    target.submit(generation(1, [1]))
    target.submit(generation(2, [2]))
    relief = target.relieve(planned(target))
    assert ([each.id for each in relief.refused], relief.keep) == ([1], None)
    assert run(target)[0].ids == (2,)


def test_kept_slots_are_numbered_anew() -> None:
    target = scheduler(slots=4)
    for number in (1, 2, 3, 4):
        target.submit(generation(number, [number] * 3, max_tokens=9))
    run(target)
    target.abort(1)
    target.abort(3)
    relief = target.relieve(planned(target))
    assert (relief.refused, relief.keep) == ((), (1, 3))
    assert [span.slot for span in run(target)[0].spans] == [0, 1]
    assert [target.slots.ids(slot)[0] for slot in (0, 1)] == [2, 4]
