"""Short passes by captured graphs: which are alike, when one is captured, what is begun ahead, and what goes the old way.

The device is a pretended one: a graph is the work itself, done again into the same outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from engine.cuda.buckets import ROWS, Bucket, bucket_of, drawn_of, expected, reach_of
from engine.cuda.graph_runner import GraphRunner
from engine.cuda.graphs import HostDevice, Outputs, Work
from engine.cuda.places import Place
from engine.errors import DeviceMemoryExhausted, EngineFault
from engine.runner import TorchRunner
from engine.sampling import Sampling
from engine.step import Copy, Sample, Span, Step

VOCABULARY, WINDOW, SLOTS = 50, 3000, 3


class PretendedDevice(HostDevice):
    """A log of what was asked of it; `broken` makes captures fail."""

    def __init__(self) -> None:
        self.broken = False
        self.log: list[str] = []

    def record(self, work: Work) -> tuple[Callable[[], None], Outputs]:
        self.log.append("record")
        if self.broken:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        again, outputs = super().record(work)

        def replay() -> None:
            self.log.append("replay")
            again()

        return replay, outputs

    def fetch(self, sources: Sequence[Tensor], targets: Sequence[Tensor]) -> Callable[[], None]:
        super().fetch(sources, targets)
        self.log.append("fetch")
        return lambda: self.log.append("wait")


class Ordinary:
    """The runner behind: it remembers the steps that it was left."""

    def __init__(self) -> None:
        self.kv = torch.zeros(SLOTS, 1, 2, 1, WINDOW, 1)
        self.steps: list[Step] = []
        self.device = torch.device("cpu")
        self.free_rows = 16

    @property
    def slots(self) -> int:
        return self.kv.shape[0]

    @property
    def window(self) -> int:
        return self.kv.shape[4]

    def run(self, step: Step) -> list[Sample]:
        self.steps.append(step)
        return [Sample(1, -0.5)] * step.samples

    def keep_slots(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        assert len(slots) == len(lengths)
        self.kv = self.kv[list(slots)].clone()


def arithmetic(place: Place, kv: Tensor) -> Outputs:
    """A model whose next token is the sum of all tokens so far, so that a wrong place or a stale one shows."""
    rows = place.bucket.rows
    answers = torch.full((rows,), -1, dtype=torch.int64)
    for slot, start, length, first in place.spans.spans.T.tolist():
        for row in range(first, first + length):
            at = start + row - first
            kv[slot, 0, 0, 0, at] = float(place.tokens[row])
            assert place.spans.rows[:, row].tolist() == [slot, at]
            answers[row] = int(kv[slot, 0, 0, 0, : at + 1].sum()) % VOCABULARY
    if place.allow is not None:
        for row in range(rows):
            permitted = place.allow[row].nonzero().flatten()
            if len(permitted) < VOCABULARY:
                answers[row] = permitted[int(answers[row]) % len(permitted)]
    if place.bucket.drawn:  # seeds and positions are looked at, so that those of another draw would show
        seeds, positions = place.draws[1].long(), place.draws[4].long()
        answers = (answers[place.draws[0].long()] + seeds * positions) % VOCABULARY
    if place.following is not None:
        live = place.spans.spans[2] > 0
        place.tokens[live] = answers[live].int()
        place.spans.spans[1][live] += 1
        place.spans.rows[1][live] += 1
        place.draws[4][live] += 1
    return answers, -answers.float()


class World:
    """A runner of graphs over the pretended device, beside one that never captures, to compare with."""

    def __init__(self) -> None:
        self.device, self.behind = PretendedDevice(), Ordinary()
        self.runner = self._runner(self.behind, self.device)
        plain = PretendedDevice()
        plain.broken = True
        self.plain = self._runner(Ordinary(), plain)

    def run(self, step: Step) -> list[Sample]:
        found = self.runner.run(step)
        assert found == self.plain.run(step)
        return found

    def decode(self, start: int, count: int, slot: int = 0, sampling: Sampling | None = None) -> list[int]:
        """One token after the other -> all that were answered."""
        ids = [7]
        for at in range(start, start + count):
            (sample,) = self.run(Step.of(Span(slot, at, 1), ids[-1:], sampling=sampling))
            ids.append(sample.id)
        return ids[1:]

    @staticmethod
    def _runner(behind: Ordinary, device: PretendedDevice) -> GraphRunner:
        return GraphRunner(cast("TorchRunner", behind), arithmetic, VOCABULARY, device)


@pytest.fixture
def world() -> World:
    return World()


def several(*spans: Span, **changes: object) -> Step:
    """A pass over several sequences, one answer for each."""
    each = len(spans)
    ids = tuple(range(3, 3 + sum(span.length for span in spans)))
    step = Step(spans, ids, (True,) * each, (None,) * each, (None,) * each, ((),) * each, (1,) * each, (0,) * each)
    return replace(step, **changes)  # type: ignore[arg-type]


def test_a_bucket_holds_what_a_graph_has_fixed() -> None:
    one = Span(0, 100, 1)
    assert bucket_of(Step.of(one, [5]), WINDOW) == Bucket(1, 1024, follows=True)
    assert bucket_of(Step.of(Span(0, 1022, 1), [5]), WINDOW) == Bucket(1, 1024, follows=True)
    assert bucket_of(Step.of(Span(0, 1023, 1), [5]), WINDOW) == Bucket(1, 2048, follows=True)
    assert bucket_of(Step.of(Span(0, 2999, 1), [5]), WINDOW) == Bucket(1, 3000, follows=True)
    assert bucket_of(Step.of(one, [5], allowed=[1]), WINDOW) == Bucket(1, 1024, masked=True)
    hot = Sampling(seed=1)
    assert bucket_of(Step.of(one, [5], sampling=hot), WINDOW) == Bucket(1, 1024, drawn=True, follows=True)
    narrow = Bucket(1, 1024, drawn=True, narrowed=True, follows=True)
    assert bucket_of(Step.of(one, [5], sampling=replace(hot, top_p=0.9)), WINDOW) == narrow
    assert bucket_of(Step.of(one, [5], sampling=replace(hot, min_p=0.1)), WINDOW) == replace(narrow, narrowed=False)
    assert bucket_of(Step.of(Span(0, 4, 6), range(6), guesses=5), WINDOW) == Bucket(8, 1024)
    assert bucket_of(several(Span(0, 5, 1), Span(1, 9, 1), Span(2, 2, 1)), WINDOW) == Bucket(4, 1024, follows=True)
    assert bucket_of(Step.of(one, [5], sampling=hot, draws=3), WINDOW) == Bucket(4, 1024, drawn=True)


@pytest.mark.parametrize(
    "step",
    [
        Step.of(Span(0, 0, 17), range(17)),
        Step.of(Span(0, 0, 2), range(2), sampled=False, draws=0),
        Step.of(Span(0, 0, 1), [3], top=2),
        Step.of(Span(0, 0, 1), [3], sampling=Sampling(repetition_penalty=1.2)),
        Step.of(Span(0, 0, 1), [3], sampling=Sampling(), draws=17),
    ],
    ids=["17 tokens", "no answer", "alternatives", "a penalty", "17 draws"],
)
def test_what_is_left_to_the_ordinary_way(world: World, step: Step) -> None:
    assert bucket_of(step, WINDOW) is None
    assert len(world.runner.run(step)) == step.samples
    assert world.behind.steps == [step]
    assert world.device.log == []


def test_answers_are_wanted_of_the_rows_and_positions_that_the_ordinary_runner_takes() -> None:
    sampling = Sampling(seed=3)
    step = several(
        Span(0, 5, 4), Span(1, 9, 2), Span(2, 0, 1),
        sampled=(True, False, True), sampling=(None, None, sampling), guesses=(2, 0, 0), draws=(1, 0, 2),
    )  # fmt: skip
    answers = drawn_of(step)
    assert len(answers) == step.samples
    assert [(answer.row, answer.position) for answer in answers] == [(1, 7), (2, 8), (3, 9), (6, 1), (6, 1)]
    assert [answer.sampling and answer.sampling.candidate for answer in answers] == [None, None, None, 0, 1]


def test_every_reach_and_number_of_rows_is_expected() -> None:
    found = list(expected(WINDOW))
    assert found[:3] == [Bucket(1, reach, follows=True) for reach in (1024, 2048, 3000)]
    assert {bucket.rows for bucket in found} == set(ROWS)
    assert {reach_of(end, WINDOW) for end in range(1, WINDOW + 1)} == {bucket.reach for bucket in found}
    assert [bucket.reach for bucket in expected(700)][:2] == [700, 700]


def test_decoding_says_the_same_before_and_after_its_graph_is_there(world: World) -> None:
    world.decode(0, 12)
    log = world.device.log
    assert log.count("record") == 1
    assert log.index("record") == 4, "two passes go by before a third asks for the graph"
    assert world.runner.launched == 2
    assert world.runner.captured == 1
    assert world.behind.steps == []


def test_nothing_waits_between_a_replay_and_the_next(world: World) -> None:
    world.decode(0, 12)
    steady = world.device.log[-9:]
    assert steady == ["replay", "fetch", "wait"] * 3
    ahead = world.runner.ahead
    assert ahead.used == ahead.begun - 1 >= 6
    # The replay that the last answer is waited for with is already that of the next token.
    assert world.runner.replays == 12 - world.runner.launched + 1


def test_a_drawn_continuation_is_begun_ahead_with_its_own_seed_and_position(world: World) -> None:
    drawn = world.decode(0, 10, sampling=Sampling(seed=11))
    assert world.runner.ahead.used > 0
    assert drawn != World().decode(0, 10, sampling=Sampling(seed=12))


@pytest.mark.parametrize(
    "other",
    [
        Step.of(Span(1, 40, 1), [9]),
        Step.of(Span(0, 10, 1), [9]),
        Step.of(Span(0, 8, 3), [9, 8, 7], guesses=2),
        Step.of(Span(0, 10, 1), [9], allowed=[4, 5]),
        Step.of(Span(0, 10, 1), [9], sampling=Sampling(seed=4)),
        Step.of(Span(2, 10, 1), [9], copies=(Copy(0, 2, 10),)),
        Step.of(Span(0, 10, 1), [9], top=1),
        several(Span(0, 10, 1), Span(1, 3, 1)),
    ],
    ids=["another slot", "another token", "guesses", "a mask", "a draw", "a copy", "alternatives", "company"],
)
def test_what_was_begun_ahead_is_dropped_when_something_else_comes(world: World, other: Step) -> None:
    ids = world.decode(0, 10)
    used = world.runner.ahead.used
    if other.top:
        world.runner.run(other)
        world.plain.run(other)
    else:
        world.run(other)
    assert world.runner.ahead.used == used
    world.run(Step.of(Span(0, 10, 1), ids[-1:]))
    assert world.runner.ahead.used == used
    assert len(world.decode(11, 6)) == 6


def test_several_sequences_go_on_together_and_one_of_them_alone(world: World) -> None:
    spans: list[Span] = [Span(0, 0, 1), Span(2, 5, 1)]
    ids: tuple[int, ...] = (3, 4)
    for _ in range(8):
        found = world.run(several(*spans, ids=ids))
        spans, ids = [replace(span, start=span.start + 1) for span in spans], tuple(sample.id for sample in found)
    assert world.runner.ahead.used > 0
    world.run(Step.of(spans[1], ids[1:]))


def test_guesses_are_answered_row_by_row(world: World) -> None:
    for _ in range(4):
        found = world.run(Step.of(Span(1, 3, 5), [1, 2, 3, 4, 5], guesses=4))
    assert len(found) == 5
    assert world.runner.captured == 1
    assert world.runner.ahead.begun == 0


def test_a_mask_holds_for_the_rows_of_its_sequence_alone(world: World) -> None:
    step = several(Span(0, 0, 2), Span(1, 0, 1), allowed=([7, 9], None))
    for _ in range(4):
        first, second = world.run(step)
        assert first.id in (7, 9)
        assert second.id == 5


def test_nothing_is_begun_ahead_where_the_reach_or_the_window_ends(world: World) -> None:
    world.decode(1010, 40)
    world.decode(2990, 10, slot=1)
    assert world.runner.captured >= 3


def test_idle_time_captures_what_is_expected_and_then_what_was_asked_for(world: World) -> None:
    world.run(Step.of(Span(0, 3, 1), [3], sampling=Sampling(seed=1)))
    turns = 0
    while world.runner.idle():
        turns += 1
    assert world.runner.captured == turns == len(set(expected(WINDOW))) + 1
    before = world.device.log.count("record")
    world.decode(0, 5)
    world.run(Step.of(Span(0, 5, 3), [1, 2, 3], guesses=2))
    assert world.device.log.count("record") == before
    assert world.runner.launched == 1


def test_capturing_in_the_middle_of_a_sequence_changes_nothing(world: World) -> None:
    ids = world.decode(0, 8)
    while world.runner.idle():
        pass
    world.run(Step.of(Span(0, 8, 1), ids[-1:]))


def test_a_kind_of_pass_that_cannot_be_captured_is_launched_one_by_one_for_good(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.device.broken = True
    world.decode(0, 10)
    assert world.device.log.count("record") == 1
    assert world.runner.replays == world.runner.captured == 0
    assert "no graph for passes of 1 rows, and no more graphs: operation not permitted" in caplog.text
    assert not world.runner.idle()
    world.decode(0, 3)
    world.device.broken = False  # torch would not make another in this process
    world.runner.keep_slots([0, 1], [WINDOW] * 2)
    world.plain.keep_slots([0, 1], [WINDOW] * 2)
    world.decode(0, 10)
    assert world.device.log.count("record") == 1
    assert not world.runner.idle()
    assert world.runner.captured == 0


def test_slots_that_move_take_their_graphs_with_them(world: World) -> None:
    ids = world.decode(0, 8)
    assert world.runner.captured == 1
    for runner in (world.runner, world.plain):
        runner.keep_slots([0, 2], [WINDOW] * 2)
    assert world.runner.captured == 0
    assert world.runner.slots == 2
    world.run(Step.of(Span(0, 8, 1), ids[-1:]))
    world.decode(9, 5)
    assert world.runner.captured == 1


def test_memory_that_runs_out_is_told_as_such(world: World) -> None:
    def fail(place: Place, kv: Tensor) -> Outputs:
        raise torch.OutOfMemoryError("CUDA out of memory")

    runner = GraphRunner(cast("TorchRunner", world.behind), fail, VOCABULARY, world.device)
    with pytest.raises(DeviceMemoryExhausted, match="--kv-memory"):
        runner.run(Step.of(Span(0, 0, 1), [3]))


def test_an_answer_that_is_no_number_is_a_fault_and_nothing_goes_on_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt: list[bool] = []
    fetch = Place.fetch

    def poisoned(place: Place, outputs: Outputs) -> Callable[[], tuple[list[int], list[float]]]:
        read = fetch(place, outputs)

        def again() -> tuple[list[int], list[float]]:
            ids, logprobs = read()
            return ids, [math.nan] * len(logprobs) if spoilt and spoilt.pop() else logprobs

        return again

    monkeypatch.setattr(Place, "fetch", poisoned)
    ids = world.decode(0, 10)
    used = world.runner.ahead.used
    assert used > 0
    spoilt.append(True)
    with pytest.raises(EngineFault, match="numbers overflow"):
        world.runner.run(Step.of(Span(0, 10, 1), ids[-1:]))
    world.run(Step.of(Span(0, 10, 1), ids[-1:]))
    assert world.runner.ahead.used == used + 1, "the one that was spoilt"
    world.decode(11, 6)
