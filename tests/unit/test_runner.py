"""The device's side of a pass: copies in order, logits only for those who draw, memory that runs out or is bounded."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch import Tensor

from engine.device import zeroed
from engine.errors import DeviceMemoryExhausted
from engine.models import STARTER
from engine.ops import Head
from engine.runner import TorchRunner
from engine.sampling import Sampling
from engine.step import Copy, Span, Step
from tests.harness.checkpoints import make_checkpoint
from tests.harness.inprocess import InProcessEngine

if TYPE_CHECKING:
    from engine.forward import Model


@pytest.fixture
def runner(tmp_path: Path) -> TorchRunner:
    made = InProcessEngine.of(make_checkpoint(tmp_path / "m")).runner
    assert isinstance(made, TorchRunner)
    return made


PROMPT = tuple(range(30, 42))


def test_copies_are_made_one_after_the_other_before_anything_is_computed(runner: TorchRunner) -> None:
    (expected,) = runner.run(Step.of(Span(0, 0, 12), PROMPT))
    step = Step.of(Span(2, 11, 1), PROMPT[11:], copies=(Copy(0, 1, 11), Copy(1, 2, 11)))
    (found,) = runner.run(step)
    assert found.id == expected.id
    assert found.logprob == pytest.approx(expected.logprob, abs=1e-4)


def test_only_a_pass_in_which_somebody_draws_asks_for_logits(
    runner: TorchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    forward = runner._model.forward

    def spy(*args: Any, logits: bool, **kwargs: Any) -> Head | None:
        asked.append(logits)
        return forward(*args, logits=logits, **kwargs)

    monkeypatch.setattr(runner._model, "forward", spy)
    for sampling in (None, Sampling(seed=3)):
        runner.run(Step.of(Span(0, 0, 12), PROMPT, sampling=sampling))
    runner.run(Step.of(Span(0, 0, 12), PROMPT, sampling=Sampling(seed=3), sampled=False, draws=0))
    assert asked == [False, True, False]


def test_greedy_rows_and_drawn_rows_in_one_pass_are_what_they_are_apart(runner: TorchRunner) -> None:
    spans = tuple(Span(slot, 0, 12) for slot in range(3))
    drawn = Sampling(1.2, seed=9)
    none: tuple[int, ...] = ()
    step = Step(
        spans, PROMPT * 3, (True,) * 3, (None, None, [50, 60]), (None, drawn, None), (none,) * 3, (1, 3, 1), (0,) * 3,
        top=2,
    )  # fmt: skip
    found = runner.run(step)
    assert len(found) == step.samples == 5
    apart = [
        *runner.run(Step.of(spans[0], PROMPT, top=2)),
        *runner.run(Step.of(spans[1], PROMPT, sampling=drawn, draws=3, top=2)),
        *runner.run(Step.of(spans[2], PROMPT, allowed=[50, 60], top=2)),
    ]
    assert [sample.id for sample in found] == [sample.id for sample in apart]
    for one, other in zip(found, apart, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert [token for token, _ in one.top] == [token for token, _ in other.top]
    assert found[4].id in (50, 60)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "mps", "host"],
)
def test_memory_that_runs_out_is_told_apart_from_faults(
    runner: TorchRunner, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(runner._model, "forward", fail)
    with pytest.raises(DeviceMemoryExhausted, match=r"12 tokens.*--kv-memory"):
        runner.run(Step.of(Span(0, 0, 12), PROMPT))
    error = RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"):
        runner.run(Step.of(Span(0, 0, 12), PROMPT))


@pytest.mark.parametrize("mebibytes", [16, 40, 512])
def test_kv_memory_is_bounded_by_its_setting(mebibytes: int) -> None:
    engine = InProcessEngine.of(STARTER, kv_memory=mebibytes * 2**20)
    assert isinstance(engine.runner, TorchRunner)
    memory = engine.runner._kv
    assert 0 < memory.nbytes <= mebibytes * 2**20
    assert memory.nbytes + memory[0].nbytes > mebibytes * 2**20 or engine.runner.slots == 32
    assert len(engine.scheduler.slots) == engine.runner.slots


class Roomy:
    """A model of which nothing is wanted but memory for keys and values."""

    device = torch.device("cpu")

    def new_kv(self, slots: int, window: int) -> Tensor:
        return zeroed((slots, 2, 2, 1, window, 128), torch.float32, self.device)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is in memory")
def test_giving_slots_back_takes_no_memory_and_frees_what_the_others_had() -> None:
    """Most of the slots were never used: what is moved is what they hold, not the room that they have."""
    runner = TorchRunner(cast("Model", Roomy()), 16, 4_096)
    slot, before = runner.kv[0].nbytes, resident()
    for number in range(6):
        runner.kv[number, ..., :2_048, :] = float(number)
    used = resident() - before
    kept = (0, 2, 4, *range(6, 16))
    lengths = (2_048, 2_048, 100, *[0] * 10)
    runner.keep_slots(kept, lengths)
    assert runner.slots == len(kept)
    for new, (old, length) in enumerate(zip(kept, lengths, strict=True)):
        assert (runner.kv[new, ..., :length, :] == float(old)).all()
    assert resident() - before < used + slot
    runner.keep_slots((1,), (2_048,))
    assert (runner.kv[0, ..., :2_048, :] == 2.0).all()
    assert resident() - before < used / 2
    assert runner.kv.nbytes == slot


def test_what_is_kept_stays_what_it_was_whatever_is_given_back() -> None:
    runner = TorchRunner(cast("Model", Roomy()), 6, 64)
    for number in range(6):
        runner.kv[number] = float(number)
    for kept in ((1, 2, 5), (0, 2), (1,)):
        expected = [float(runner.kv[slot, 0, 0, 0, 0, 0]) for slot in kept]
        runner.keep_slots(kept, [64] * len(kept))
        assert [float(each.unique()) for each in runner.kv] == expected
