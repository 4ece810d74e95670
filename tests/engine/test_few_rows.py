"""Short spans through compiled code: what torch says, the same bits in any company, and torch where it cannot be had."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import few_rows as trial
from engine.checkpoint.config import read_config
from engine.checkpoint.loader import load_model
from engine.compiled_rows import CompiledRows
from engine.cpu_kernels.attention import PIECE
from engine.cpu_kernels.compiler import features
from engine.cpu_kernels.program import MAX_ROWS
from engine.gpt_bigcode import GPTBigCode
from engine.ops import FewRows
from engine.precision import choose
from engine.step import Span
from tests.harness.checkpoints import make_checkpoint
from tests.harness.inprocess import InProcessEngine

WINDOW, SLOTS = 2 * PIECE + 30, 3
NAN = float("nan")

HAS_BYTES = bool({"avx512vnni", "avxvnni"} & features())
PRECISIONS = [
    pytest.param("float32"),
    pytest.param("bfloat16"),
    pytest.param("int8", marks=pytest.mark.skipif(not HAS_BYTES, reason="the processor has no dot product of bytes")),
]
SIX: dict[str, Any] = {"n_head": 6, "head_dim": 64, "activation_function": "gelu"}
SHAPES = [
    pytest.param({"n_head": 4, "head_dim": 32, "vocab_size": 801}, id="4x32"),
    pytest.param(SIX, id="6x64-erf"),
    pytest.param({"n_head": 12, "head_dim": 16, "config": {"scale_attn_weights": False}}, id="12x16-unscaled"),
]
ODD = [
    pytest.param({"n_head": 3, "head_dim": 8, "vocab_size": 997}, id="3x8"),
    pytest.param({"n_head": 5, "head_dim": 24}, id="5x24"),
]


Models = Callable[..., GPTBigCode]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Models by precision and the form of their checkpoint, each loaded once."""
    found: dict[str, GPTBigCode] = {}

    def model(name: str, **form: Any) -> GPTBigCode:
        key = f"{name} {form}"
        if key not in found:
            directory = make_checkpoint(tmp_path_factory.mktemp("few") / "m", **form)
            config = read_config(directory)
            precision = choose(name, torch.device("cpu"), config.shape(), None)
            found[key] = load_model(directory, config, precision.ops, precision)
        return found[key]

    return model


def _quick(model: GPTBigCode) -> FewRows:
    assert isinstance(model.few_rows, CompiledRows)
    return model.few_rows


def _kv(model: GPTBigCode, slots: int = SLOTS) -> Tensor:
    """As if every slot had been in use, so that every position can be gone on from."""
    kv = model.new_kv(slots, WINDOW)
    return kv.copy_(torch.randn(kv.shape, generator=torch.Generator().manual_seed(0)))


def _rows(model: GPTBigCode, count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, model.shape.n_embd, generator=torch.Generator().manual_seed(seed))


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).square().mean().sqrt() / b.float().square().mean().sqrt())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Comparisons of bits with torch's own, which depend on its threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SPANS = [
    (Span(0, 0, 1),),
    (Span(1, PIECE - 1, 2),),
    (Span(0, 2 * PIECE + 3, 4), Span(2, 5, 1)),
    (Span(2, PIECE, 1), Span(0, 7, 1), Span(1, WINDOW - 3, 3)),
]


@torch.inference_mode()
@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("form", SHAPES)
def test_a_pass_is_torchs(models: Models, form: dict[str, Any], name: str) -> None:
    model = models(name, **form)
    for spans in SPANS:
        x = _rows(model, max(4, sum(span.length for span in spans)))
        count = sum(span.length for span in spans)
        ours_kv, torchs_kv = _kv(model), _kv(model)
        ours = _quick(model).blocks(x[:count].clone(), ours_kv, spans)
        torchs = model.plain_blocks(x.clone(), torchs_kv, spans)[:count]
        bound = 1e-5 if name == "float32" else 3e-2
        assert _apart(ours, torchs) < bound
        written = torch.zeros(SLOTS, WINDOW, dtype=torch.bool)
        for span in spans:
            written[span.slot, span.start : span.start + span.length] = True
        changed = (ours_kv != _kv(model)).any(dim=(1, 2, 3, 5))
        assert torch.equal(changed, written), "it wrote where no token of the pass stands"
        assert _apart(ours_kv, torchs_kv) < bound
        head = model.ops.head(torchs, model.weights.ln_f, model.weights.vocabulary, None, 0, logits=True)
        assert _apart(_quick(model).logits(torchs), head.logits) < bound


@torch.inference_mode()
@pytest.mark.parametrize("form", ODD)
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_odd_sizes_too(models: Models, form: dict[str, Any], name: str) -> None:
    model = models(name, **form)
    assert trial.agrees(model, _quick(model))


@torch.inference_mode()
@pytest.mark.parametrize("name", PRECISIONS)
def test_what_lies_past_a_row_is_never_looked_at(models: Models, name: str) -> None:
    model = models(name, **SIX)
    for start in (0, 3, PIECE - 1, PIECE, WINDOW - 2):
        clean, poisoned = _kv(model), _kv(model)
        poisoned[0, :, :, :, start:] = NAN
        poisoned[1:] = NAN
        spans, x = (Span(0, start, 2),), _rows(model, 2)
        expected = _quick(model).blocks(x, clean, spans)
        found = _quick(model).blocks(x, poisoned, spans)
        assert torch.equal(found, expected)
        assert poisoned[0, :, :, :, start + 2 :].isnan().all()
        assert poisoned[1:].isnan().all()


@torch.inference_mode()
@pytest.mark.parametrize("name", PRECISIONS)
def test_a_row_has_the_same_bits_in_any_company_and_on_any_number_of_threads(models: Models, name: str) -> None:
    model = models(name, **SIX)
    lengths = (1, 1, 1, 1, 4, 1, 3, 1, 2)
    starts = (0, 9, PIECE, 2 * PIECE + 1, 3, PIECE - 2, 2 * PIECE + 20, 40, 77)
    spans = tuple(Span(n, start, length) for n, (start, length) in enumerate(zip(starts * 3, lengths * 3, strict=True)))
    count = sum(span.length for span in spans)
    assert count > MAX_ROWS
    x, quick = _rows(model, count), _quick(model)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone, row = [], 0
        for span in spans:
            alone.append(quick.blocks(x[row : row + span.length], _kv(model, len(spans)), (span,)))
            row += span.length
        expected = torch.cat(alone)
        logits = torch.cat([quick.logits(each[None]) for each in expected])
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(quick.blocks(x, _kv(model, len(spans)), spans), expected)
            assert torch.equal(quick.blocks(x[:7], _kv(model, len(spans)), spans[:4]), expected[:4])
            assert torch.equal(quick.logits(expected), logits)
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("form", SHAPES[:2])
def test_the_greedy_pass_is_the_whole_pass(models: Models, name: str, form: dict[str, Any]) -> None:
    model = models(name, **form)
    spans = (Span(0, 0, 3), Span(1, 50, 1), Span(2, PIECE, 4))
    ids = torch.randint(20, 700, (8,), generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([at for span in spans for at in range(span.start, span.start + span.length)])
    rows = torch.tensor([2, 3, 5, 7])
    kv, other = _kv(model), _kv(model)
    quick = model.forward(ids, positions, spans, kv, rows)
    whole = model.forward(ids, positions, spans, other, rows, logits=True)
    assert quick is not None and whole is not None
    assert torch.equal(kv, other)
    assert torch.equal(quick.ids, whole.ids)
    torch.testing.assert_close(quick.logprobs, whole.logprobs, atol=1e-5, rtol=1e-5)
    assert (quick.logits.shape, quick.top_ids.shape) == ((4, 0), (4, 0))


@torch.inference_mode()
@pytest.mark.parametrize("name", PRECISIONS)
def test_in_a_pass_with_a_prompt_a_decoding_row_has_the_bits_that_it_has_alone(
    models: Models, name: str, one_thread: None
) -> None:
    model = models(name, **SIX)
    short, long = (Span(0, 60, 1), Span(2, 11, 2)), Span(1, 20, 40)
    ids = torch.randint(20, 700, (43,), generator=torch.Generator().manual_seed(1))
    spans = (short[0], long, short[1])
    positions = torch.tensor([at for span in spans for at in range(span.start, span.start + span.length)])
    kv = _kv(model)
    together = model.forward(ids, positions, spans, kv, torch.tensor([0, 40, 42]), logits=True)
    few, alone_kv = torch.tensor([0, 41, 42]), _kv(model)
    alone = model.forward(ids[few], positions[few], short, alone_kv, torch.tensor([0, 2]), logits=True)
    prompt_kv = _kv(model)
    prompt = model.forward(ids[1:41], positions[1:41], (long,), prompt_kv, torch.tensor([39]), logits=True)
    assert together is not None and alone is not None and prompt is not None
    assert torch.equal(together.logits[[0, 2]], alone.logits)
    assert torch.equal(together.logits[1:2], prompt.logits)
    assert torch.equal(kv[[0, 2]], alone_kv[[0, 2]]) and torch.equal(kv[1], prompt_kv[1])


@pytest.mark.parametrize(("form", "name"), [({"multi_query": False}, "float32"), ({}, "float16"), ({}, "int4")])
def test_what_no_code_is_written_for_is_left_to_torch(models: Models, form: dict[str, Any], name: str) -> None:
    model = models(name, **form)
    assert model.few_rows is None


@pytest.mark.parametrize("missing", ["llvmlite", "compiler", "order", "wrong"])
def test_where_compiled_code_cannot_be_had_torch_computes_everything(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory = make_checkpoint(tmp_path / "m")
    prompt = list(range(30, 90))
    expected = InProcessEngine.of(directory).complete(prompt=prompt, max_tokens=12).ids
    if missing == "llvmlite":
        monkeypatch.setitem(sys.modules, "engine.compiled_rows", None)
    elif missing == "compiler":

        def refuse(*_: object) -> None:
            raise RuntimeError("LLVM: no such processor")

        monkeypatch.setattr("engine.compiled_rows.Code", refuse)
    elif missing == "order":
        monkeypatch.setattr("engine.blocked.lanes", lambda dtype: None)
    else:
        monkeypatch.setattr(CompiledRows, "logits", lambda self, x: x.new_zeros(len(x), 768))
    with caplog.at_level(logging.INFO):
        engine = InProcessEngine.of(directory)
    assert engine.complete(prompt=prompt, max_tokens=12).ids == expected
    said = {"llvmlite": "llvmlite", "compiler": "no such processor", "order": "order", "wrong": "disagree"}[missing]
    assert any(said in record.getMessage() for record in caplog.records)
