"""The engine's way to decode on a CUDA device, over the real kernels: passes on fixed buffers, and what it is tried by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from benchmarks.weights import in_fewer_bits
from engine.cuda.choosing import _pass, agrees, repeats
from engine.cuda.graph_runner import GraphRunner
from engine.cuda.graphs import CudaDevice, Device, HostDevice
from engine.cuda.passes import once
from engine.gpt_bigcode import GPTBigCode, ModelShape
from engine.ops import Head, TorchOps
from engine.runner import TorchRunner
from engine.sampling import Sampling
from engine.step import Sample, Span, Step
from tests.kernels.cases.ops_cases import WINDOW, random_model, shape_of
from tests.kernels.cases.support import DEVICE, INTERPRETED
from triton_kernels.head import Choice
from triton_kernels.launch import recorded
from triton_kernels.ops import TritonOps

VOCABULARY = 101


@pytest.fixture(autouse=True)
def _as_in_the_engine() -> Iterator[None]:
    """It sets no default device."""
    torch.set_default_device("cpu")
    yield
    torch.set_default_device(DEVICE)


def device() -> Device:
    return HostDevice() if INTERPRETED else CudaDevice(torch.device(DEVICE))


def small() -> ModelShape:
    return replace(shape_of(1, 16), n_layer=1)


class Both:
    """A runner of graphs over the kernels, and the ordinary runner over torch: every step is run by both."""

    def __init__(self) -> None:
        model = random_model(TritonOps(Head), small())
        reference = random_model(TorchOps(), small())
        self.runner = GraphRunner(TorchRunner(model, 3, WINDOW), partial(once, model), VOCABULARY, device())
        self.reference = TorchRunner(reference, 3, WINDOW)

    def run(self, step: Step) -> list[Sample]:
        found, expected = self.runner.run(step), self.reference.run(step)
        assert [sample.id for sample in found] == [sample.id for sample in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        return found


@pytest.fixture
def both() -> Both:
    torch.manual_seed(0)
    return Both()


@pytest.mark.parametrize(
    "sampling",
    [
        pytest.param(None, id="greedy"),
        pytest.param(Sampling(1.1, seed=2**40 + 5), id="drawn", marks=pytest.mark.slow),
        pytest.param(
            Sampling(0.9, top_p=0.8, top_k=20, min_p=0.01, seed=3, candidate=1), id="narrowed", marks=pytest.mark.slow
        ),
    ],
)
def test_decoding_by_graphs_says_what_torch_says(both: Both, sampling: Sampling | None) -> None:
    prompt = [7 * i % 100 for i in range(17)]
    (sample,) = both.run(Step.of(Span(1, 0, 17), prompt, sampling=sampling))
    for start in range(17, 23):
        (sample,) = both.run(Step.of(Span(1, start, 1), [sample.id], sampling=sampling))
    assert both.runner.replays >= 4
    assert both.runner.ahead.used >= 2


def test_guesses_masks_and_company(both: Both) -> None:
    prompt = [11 * i % 100 for i in range(12)]
    both.run(Step.of(Span(0, 0, 12), prompt))
    both.run(Step.of(Span(2, 0, 5), prompt[:5], guesses=2))
    both.run(Step.of(Span(0, 12, 1), [50], allowed=[3, 60, 77]))
    drawn = Sampling(1.2, seed=9)
    step = Step(
        (Span(0, 13, 2), Span(2, 5, 1), Span(1, 0, 1)), (4, 5, 6, 7), (True, True, False),
        (None, [8, 9, 10], None), (None, drawn, None), ((), (), ()), (1, 2, 0), (1, 0, 0),
    )  # fmt: skip
    assert len(both.run(step)) == 4
    assert both.runner.launched == 4


def test_the_kernels_agree_with_torch_and_replays_with_the_launches() -> None:
    model = random_model(TorchOps(), small())
    assert agrees(model, TritonOps(Head))
    model.ops = TritonOps(Head)
    assert repeats(model, device())


def in_bits(form: str, ops: TorchOps | TritonOps[Head]) -> GPTBigCode:
    return in_fewer_bits(random_model(ops, replace(shape_of(8, 16), n_layer=1)), form)


def test_a_model_in_four_bits_says_what_torch_says() -> None:
    models = [in_bits("int4", ops) for ops in (TritonOps(Head), TorchOps())]
    for span in (Span(0, 0, 18), Span(0, 18, 2), Span(0, 20, 1)):
        told = [_pass(model, model.ops, model.new_kv(1, WINDOW), span) for model in models]
        for ours, theirs in zip(*told, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["int8", "int4"])
def test_a_model_in_fewer_bits_is_tried_and_repeated_as_any_other(form: str) -> None:
    model = in_bits(form, TorchOps())
    assert agrees(model, TritonOps(Head))
    model.ops = TritonOps(Head)
    assert repeats(model, device())


class Wrong(TritonOps[Head]):
    """Kernels that are wrong in one place."""

    def proj_residual(self, x: Tensor, y: Tensor, proj: object) -> Tensor:
        return super().proj_residual(x, y * 1.3, proj)  # type: ignore[arg-type]


class Fickle(TritonOps[Head]):
    """Kernels that say something else every time."""

    turn = 0

    def choose(self, *given: object, **options: object) -> Choice:
        choice = super().choose(*given, **options)  # type: ignore[arg-type]
        self.turn += 1
        return choice._replace(logprobs=choice.logprobs + self.turn * 2**-16)


def test_kernels_that_are_wrong_are_found_out() -> None:
    assert not agrees(random_model(TorchOps(), small()), Wrong(Head))


@pytest.mark.slow
def test_replays_that_differ_are_found_out() -> None:
    assert not repeats(random_model(Fickle(Head), small()), device())


def test_a_pass_takes_five_launches_a_layer_and_three(both: Both) -> None:
    """Tokens in, tokens out: embedding, layers, head, and the step to the next token."""
    layers = small().n_layer
    for sampling, most in ((None, 3), (Sampling(seed=1), 3), (Sampling(top_k=5, seed=1), 4)):
        with recorded(dry=True) as launches:
            both.runner.run(Step.of(Span(0, 3, 1), [5], sampling=sampling))
        assert len(launches) == 5 * layers + most
