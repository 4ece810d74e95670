"""What only a CUDA device can show: the kit at toy sizes on it, its read kernel, and graphs that replay what was captured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.gpu import decoding
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.subject import Subject
from benchmarks.rows import read_rows
from benchmarks.shapes import FAMILY
from benchmarks.timing import capture, measure
from engine.ops import Head, TorchOps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

CUDA = torch.device("cuda")


def test_operations_pass_the_two_times_rule_on_the_device(tmp_path: Path) -> None:
    code = main(["--part", "kernels", "--toy", "--out", str(tmp_path)])
    rows = read_rows([tmp_path / "kernels.jsonl"])
    assert not [row for row in rows if row.failed or row.error]
    assert code == 0
    checked = {row.backend for row in rows if row.passed}
    assert "torch" in checked
    if "triton" not in checked:
        pytest.skip(next(row.skipped for row in rows if row.question == "backend"))


def test_models_agree_with_transformers_on_the_device(tmp_path: Path) -> None:
    code = main(["--part", "models", "--toy", "--out", str(tmp_path), "--only", "logprobs,greedy"])
    rows = read_rows([tmp_path / "models.jsonl"])
    assert [row for row in rows if row.passed]
    assert not [row for row in rows if row.failed or row.error]
    assert code == 0


def test_graphs_draws_and_guesses_on_the_device(tmp_path: Path) -> None:
    code = main(["--part", "runner", "--toy", "--out", str(tmp_path)])
    rows = read_rows([tmp_path / "runner.jsonl"])
    assert [row for row in rows if row.passed]
    assert not [row for row in rows if row.failed or row.error]
    assert code == 0


def test_the_read_kernel_reads_everything() -> None:
    triton_read = pytest.importorskip("benchmarks.triton_read")
    data = torch.randn(8192 * 1000, device=CUDA)
    expected = float(data.double().sum())
    assert triton_read.checked_sum(data) == pytest.approx(expected, abs=1.0)
    for launch in triton_read.reader(data):
        launch()
    torch.cuda.synchronize()


@pytest.mark.parametrize("tokens", [1, 5])
def test_a_captured_step_gives_what_the_eager_one_gives(tokens: int) -> None:
    subject = Subject.random("toy", FAMILY["toy"], torch.bfloat16, CUDA, seed=0)
    step = decoding.step(subject.ours(TorchOps()), tokens, 100, 256)
    captured = capture(step, CUDA)
    assert captured.replay is not None, captured.reason
    captured.replay()
    torch.cuda.synchronize()
    eager = step()
    assert isinstance(eager, Head)
    assert isinstance(captured.output, Head)
    torch.testing.assert_close(captured.output.logprobs, eager.logprobs, atol=1e-2, rtol=0.0)


def test_events_measure_the_device_and_not_the_launch() -> None:
    large = torch.randn(1 << 28, device=CUDA)
    timed = measure(lambda: large.sum(), CUDA, seconds=0.2)
    assert large.nbytes / timed.median < 20e12  # no memory reads faster: a launch alone would look as if one did
