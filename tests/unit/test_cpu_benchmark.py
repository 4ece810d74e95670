"""The comparison on a CPU: who is asked what, what a row says, what the page shows, and what the peer is given to read."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks.cpu import chart, subjects
from benchmarks.cpu.__main__ import _rows
from benchmarks.cpu.duel import Question, fight
from benchmarks.cpu.servers import Answer
from benchmarks.rows import Row, Run, read_rows
from engine.checkpoint.config import read_config
from tests.harness.checkpoints import make_checkpoint


class Pretended:
    """Takes a known time for every token, and forgets nothing that it was asked."""

    def __init__(self, name: str, seconds: float, ids: Sequence[int]) -> None:
        self.name = name
        self.asked: list[tuple[list[int], int]] = []
        self._seconds, self._ids = seconds, ids

    def complete(self, ids: Sequence[int], tokens: int) -> Answer:
        self.asked.append((list(ids), tokens))
        return Answer(list(self._ids[:tokens]), self._seconds * tokens, self._seconds * tokens / 2)


def _duel(question: Question) -> tuple[Pretended, Pretended, list[Row]]:
    ours, theirs = Pretended("starfill", 0.1, range(50)), Pretended("llama.cpp", 0.05, [*range(8), *range(90, 140)])
    duel = fight(question, ours, theirs, rounds=4, seed=1)
    run = Run("python -m benchmarks.cpu", "a machine", 1, "", "")
    return ours, theirs, list(_rows(duel, "starter", "int8", run, {"starfill": "", "llama.cpp": "1.0"}))


def test_both_are_asked_the_same_and_the_ratio_is_ours_over_theirs() -> None:
    ours, theirs, rows = _duel(Question("decode", 64, 16))
    assert ours.asked == theirs.asked
    assert ours.asked[0][1] == 1  # before any time is taken, the prompt is cached
    assert {tokens for _, tokens in ours.asked[1:]} == {16}
    mine, other, ratio = rows
    assert (mine.value, other.value, ratio.value) == (10.0, 20.0, 0.5)
    assert mine.detail["a_cpu_second"] == 20.0
    assert ratio.detail == {"context": 64, "by_cpu_time": 0.5, "same_ids": 0.5}


def test_a_prefill_is_of_ids_that_nobody_has_seen() -> None:
    ours, _, rows = _duel(Question("prefill", 512, 1, fresh=True))
    prompts = [tuple(ids) for ids, _ in ours.asked]
    assert len(set(prompts)) == len(prompts) == 4
    assert rows[0].value == 5120.0


def test_the_page_and_the_plot_show_the_latest_of_each_question(tmp_path: Path) -> None:
    lines = []
    for question in (
        Question("decode", 1500, 16),
        Question("prefill", 512, 1, fresh=True),
        Question("decode", 1500, 8),
    ):
        lines += [row.to_json() for row in _duel(question)[2]]
    file = tmp_path / "cpu.jsonl"
    file.write_text("\n".join(lines), "utf-8")
    found = chart.pairs(read_rows([file]))
    assert [pair.question for pair in found] == ["decode after 1,500", "prefill of 512"]
    table = chart.table(found)
    assert "| starter | int8 | decode after 1,500 | 10 | 20 | 0.50 | 0.50 |" in table
    assert re.findall(r'<rect .* width="([\d.]+)" .* fill="(\S+)"/>', chart.plot(found)) == [("106.7", "#c63")] * 2


def test_the_page_shows_the_rows_that_are_there() -> None:
    found = chart.measured()
    page = chart.PAGE.read_text("utf-8")
    assert page.partition(chart.BEGIN)[2].partition(chart.END)[0] == chart.table(found)
    assert chart.PLOT.exists() == bool(found)
    if found:
        assert chart.PLOT.read_text("utf-8") == chart.plot(found)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_the_peer_gets_the_same_weights(tmp_path: Path, precision: str) -> None:
    gguf = pytest.importorskip("gguf", reason="the wheel gguf is there for benchmarks only")
    directory = make_checkpoint(tmp_path / "m", n_head=4, head_dim=16)
    target = subjects.gguf(directory, precision, tmp_path / "m.gguf")
    reader = gguf.GGUFReader(target)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    shape = read_config(directory).shape()
    assert len(tensors) == 4 + 12 * shape.n_layer
    for name, weight in subjects._tensors(directory):
        read = torch.tensor(gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)).view(weight.shape)
        allowed = {"float32": 0.0, "bfloat16": 2**-8, "int8": 2**-7}[precision]
        assert float((read - weight).abs().max()) <= allowed * float(weight.abs().max())


def test_random_weights_are_a_checkpoint_that_the_engine_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(subjects.SHAPES["22m"], n_layer=1, n_embd=64, n_inner=64, n_positions=32)
    monkeypatch.setitem(subjects.SHAPES, "22m", small)
    directory = subjects.checkpoint("22m", tmp_path, seed=3)
    assert read_config(directory).shape() == small
    made = (directory / "model.safetensors").stat().st_mtime_ns
    assert subjects.checkpoint("22m", tmp_path, seed=3) == directory
    assert (directory / "model.safetensors").stat().st_mtime_ns == made
    assert json.loads((directory / "config.json").read_text())["tie_word_embeddings"] is True
