"""What a CPU runs is what the reference says, whichever spans a pass has; rows that fill up touch nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine import device
from engine.checkpoint import loader
from engine.checkpoint.config import read_config
from engine.checkpoint.loader import load_model
from engine.cpu_ops import CpuOps
from engine.errors import DeviceError
from engine.gpt_bigcode import GPTBigCode
from engine.ops import Head, Ops, TorchOps
from engine.precision import NAMES, choose
from engine.step import Span
from tests.harness.checkpoints import assert_same_greedy, make_checkpoint, oracle_logits
from tests.harness.inprocess import InProcessEngine

WINDOW, SLOTS = 200, 5
GUARD = 7.5

PASSES = [
    [Span(0, 0, 1)],
    [Span(0, 0, 90)],
    [Span(1, 0, 64), Span(3, 0, 65)],
    [Span(0, 90, 1), Span(1, 64, 1), Span(3, 65, 1), Span(4, 0, 1)],
    [Span(0, 91, 3), Span(3, 66, 1)],
    [Span(1, 65, 130)],
]


def _model(directory: Path, ops: Ops | None = None) -> GPTBigCode:
    config = read_config(directory)
    precision = choose("float32", torch.device("cpu"), config.shape(), None)
    return load_model(directory, config, ops or precision.ops, precision)


def _run(model: GPTBigCode, kv: Tensor, spans: list[Span], seed: int) -> Head:
    ids = torch.randint(20, 700, (sum(s.length for s in spans),), generator=torch.Generator().manual_seed(seed))
    positions = torch.cat([torch.arange(s.start, s.start + s.length) for s in spans])
    ends = torch.tensor([s.length for s in spans]).cumsum(0) - 1
    head = model.forward(ids, positions, tuple(spans), kv, ends, None, 6, logits=True)
    assert head is not None
    return head


@pytest.mark.parametrize("multi_query", [True, False])
@pytest.mark.parametrize("least_rows", [1, 4])
def test_passes_of_every_form_are_those_of_the_reference(tmp_path: Path, multi_query: bool, least_rows: int) -> None:
    directory = make_checkpoint(tmp_path / "m", multi_query=multi_query)
    ours, reference = _model(directory, CpuOps(least_rows)), _model(directory, TorchOps())
    kv, expected_kv = (model.new_kv(SLOTS, WINDOW).fill_(GUARD) for model in (ours, reference))
    for number, spans in enumerate(PASSES):
        got, expected = (_run(m, k, spans, number) for m, k in ((ours, kv), (reference, expected_kv)))
        torch.testing.assert_close(got.logits, expected.logits, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(got.logprobs, expected.logprobs, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(got.top_logprobs, expected.top_logprobs, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(kv, expected_kv, atol=1e-4, rtol=1e-4)
        assert torch.equal(kv == GUARD, expected_kv == GUARD)


def test_a_mask_restricts_the_choice_and_not_the_log_probabilities(tmp_path: Path) -> None:
    model = _model(make_checkpoint(tmp_path / "m"))
    assert isinstance(model.ops, CpuOps)
    ids, rows = torch.arange(30, 50), torch.tensor([19])
    allow = torch.zeros(1, model.shape.vocab_size, dtype=torch.bool)
    allow[0, [40, 41]] = True
    kv = model.new_kv(1, 64)
    free = model.forward(ids, torch.arange(20), (Span(0, 0, 20),), kv, rows, None, 0, logits=True)
    bound = model.forward(ids, torch.arange(20), (Span(0, 0, 20),), kv, rows, allow, 0)
    assert free is not None and bound is not None
    token = int(bound.ids[0])
    assert token == max((40, 41), key=lambda one: float(free.logits[0, one]))
    assert float(bound.logprobs[0]) == pytest.approx(float(torch.log_softmax(free.logits[0], 0)[token]), abs=1e-5)
    assert bound.logits.shape == (1, 0)


def test_in_one_thread_a_token_has_the_same_logits_alone_and_in_company(tmp_path: Path) -> None:
    model = _model(make_checkpoint(tmp_path / "m", n_head=6, head_dim=64))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        kv = model.new_kv(SLOTS, WINDOW)
        _run(model, kv, [Span(0, 0, 50)], 1)
        kv[1:] = kv[0]
        alone = _run(model, kv.clone(), [Span(0, 50, 1)], 2).logits
        ids = torch.randint(20, 700, (1,), generator=torch.Generator().manual_seed(2)).repeat(SLOTS)
        spans = tuple(Span(slot, 50, 1) for slot in range(SLOTS))
        together = model.forward(ids, torch.full((SLOTS,), 50), spans, kv, torch.arange(SLOTS), logits=True)
    finally:
        torch.set_num_threads(before)
    assert together is not None
    assert torch.equal(together.logits, alone.expand(SLOTS, -1))


@pytest.mark.parametrize("name", NAMES)
def test_every_precision_follows_the_oracle_as_closely_as_its_bits_allow(tmp_path: Path, name: str) -> None:
    """The lead of the oracle's best token over ours, in logits whose spread is 3."""
    directory = make_checkpoint(tmp_path / "m", n_head=4, head_dim=32)
    engine = InProcessEngine.of(directory, dtype=name)
    prompt = torch.randint(20, 700, (80,), generator=torch.Generator().manual_seed(4)).tolist()
    done = engine.complete(prompt=prompt, max_tokens=24)
    assert len(done.ids) == 24
    leads = {"float32": 1e-4, "float16": 0.03, "bfloat16": 0.25, "int8": 0.35, "int4": 2.5}
    assert_same_greedy(done.ids, directory, prompt, tolerance=leads[name])
    logits = oracle_logits(directory, [*prompt, *done.ids])
    assert float(logits.std()) > 1.0


def test_a_model_that_cannot_fit_is_refused_before_a_weight_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_checkpoint(tmp_path / "m")
    monkeypatch.setattr(device, "free_memory", lambda of: 600 * 2**20)
    monkeypatch.setattr(loader, "load_model", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(DeviceError, match="even int4 needs"):
        InProcessEngine.of(directory, kv_memory=512 * 2**20)
