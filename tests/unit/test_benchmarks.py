"""The GPU kit, rehearsed on the CPU at toy sizes, and what its rows, shapes and judgements promise."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import probes, reference, report, rows, timing, weights
from benchmarks.gpu import bench as gpu_bench
from benchmarks.gpu import decoding, kernels, runner
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.subject import Subject
from benchmarks.rows import Row, RowWriter, Run, read_rows
from benchmarks.shapes import FAMILY, decode_bytes, floor_seconds, kv_bytes_per_token, prefill_flops
from engine.ops import Linear, TorchOps
from lsp_server.evaluation.scores import Estimate

ROOT = Path(__file__).parents[2]
REQUIRED = ("question", "model", "dtype", "device", "measured", "value", "unit", "command")
CPU = torch.device("cpu")

PUBLISHED = {
    # model: parameters, decode GB (bfloat16, int8, int4), KV bytes a token, TFLOP of 2,048 tokens
    "tiny": (164_144_128, (0.316, 0.158, 0.102), 5_120, 0.62),
    "santacoder": (1_124_886_528, (2.241, 1.122, 0.644), 12_288, 4.59),
    "1b": (1_137_207_296, (2.241, 1.122, 0.643), 12_288, 4.59),
    "3b": (3_043_311_104, (6.040, 3.023, 1.671), 18_432, 12.65),
    "7b": (7_327_263_232, (14.587, 7.298, 3.972), 21_504, 30.49),
    "15.5b": (15_517_456_384, (30.934, 15.473, 8.363), 20_480, 64.17),
}


def a_row(**changes: Any) -> Row:
    given: dict[str, Any] = {
        "question": "decode",
        "model": "toy",
        "dtype": "bfloat16",
        "device": "cpu",
        "measured": True,
        "value": 12.5,
        "unit": "tokens/s",
        "command": "python -m benchmarks.gpu",
    }
    return Row(**(given | changes))


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    """Rows of a whole rehearsal in a process of its own, by part."""
    out = tmp_path_factory.mktemp("rehearsal") / "out"
    parts = ("--part", "kernels", "--part", "models", "--part", "runner", "--part", "peers")
    command = [sys.executable, "-m", "benchmarks.gpu", *parts, "--toy", "--out", str(out), "--device", "cpu"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "correctness rows passed, 0 questions raised an error" in done.stdout
    return {path.stem: read_rows([path]) for path in sorted(out.glob("*.jsonl"))}


def test_every_part_writes_its_file_and_every_row_has_its_fields(rehearsal: dict[str, list[Row]]) -> None:
    assert set(rehearsal) == {"ceilings", "kernels", "models", "runner", "peers"}
    for part in rehearsal.values():
        for row in part:
            written = json.loads(row.to_json())
            assert set(REQUIRED) <= set(written)
            assert not row.error
            assert row.torch == torch.__version__
            assert row.started
            assert row.command.startswith("python -m benchmarks.gpu --part kernels --part models --part runner")
            assert "/" not in row.command
            assert row.value is not None or row.skipped


def test_the_rehearsal_asks_every_question_and_every_check_passes(rehearsal: dict[str, list[Row]]) -> None:
    everything = [row for part in rehearsal.values() for row in part]
    questions = {row.question for row in everything if row.value is not None}
    assert questions >= {
        "read probe",
        "read bandwidth",
        "matrix rate",
        "error against float64",
        "operation time",
        "logprobs",
        "greedy",
        "decode",
        "extension",
        "prefill",
        "tokens per second",
        "ours over peer",
        "first token",
    }
    checks = [row for row in everything if row.passed is not None]
    assert len(checks) >= 60
    assert all(row.passed for row in checks)
    operations = {row.detail["operation"] for row in rehearsal["kernels"] if row.question == "error against float64"}
    assert operations == set(kernels.OPERATIONS)
    timed = [row for row in everything if row.question in ("decode", "prefill") and row.measured and row.value]
    assert all(row.n >= timing.LEAST and row.p10 <= row.median <= row.p90 for row in timed)  # type: ignore[operator]
    assert any(not row.measured for row in rehearsal["models"])


def test_what_cannot_run_on_a_cpu_is_skipped_with_its_reason(rehearsal: dict[str, list[Row]]) -> None:
    skipped = {(row.question, row.backend): row.skipped for part in rehearsal.values() for row in part if row.skipped}
    assert "CUDA" in skipped["backend", "triton"]
    assert "CUDA" in skipped["decode", "torch"]
    assert "GPU" in skipped["tokens per second", "transformers compiled"]


def test_the_report_puts_measured_beside_predicted(rehearsal: dict[str, list[Row]]) -> None:
    text = report.markdown([row for part in rehearsal.values() for row in part])
    decode = [line for line in text.splitlines() if line.startswith("| decode | toy") and "mode eager" in line]
    assert decode
    assert all("(floor)" in line for line in decode)
    assert "python -m benchmarks.gpu" in text


@pytest.mark.slow
def test_graphs_draws_and_guesses_are_rehearsed_in_the_interpreter(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", "runner", "--toy", "--models", "speck"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path), "--device", "cpu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    found = read_rows([tmp_path / "runner.jsonl"])
    assert not [row for row in found if row.error or row.skipped]
    assert {row.question for row in found} == set(runner.QUESTIONS)
    assert {row.question for row in found if row.passed} == set(runner.QUESTIONS[:3])


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_count_what_is_published(name: str) -> None:
    parameters, gigabytes, kv, tera = PUBLISHED[name]
    shape = FAMILY[name]
    assert shape.parameters == parameters
    for dtype, size in zip(("bfloat16", "int8", "int4"), gigabytes, strict=True):
        assert round(decode_bytes(shape, dtype) / 1e9, 3) == pytest.approx(size, abs=1e-9)
    assert kv_bytes_per_token(shape) == kv
    assert decode_bytes(shape, "bfloat16", 2048) - decode_bytes(shape, "bfloat16") == 2048 * kv
    assert round(prefill_flops(shape, 2048) / 1e12, 2) == tera
    assert shape.kv_bytes(8192, torch.bfloat16) == 8192 * kv


def test_a_prefill_in_two_steps_computes_as_much_as_in_one() -> None:
    shape = FAMILY["1b"]
    head = 2 * shape.vocab_size * shape.n_embd
    assert prefill_flops(shape, 100) + prefill_flops(shape, 50, 100) - head == prefill_flops(shape, 150)
    assert floor_seconds(shape, "bfloat16", 1, 0, 4.3e12, 790e12) == pytest.approx(521e-6, rel=1e-3)
    assert floor_seconds(shape, "bfloat16", 2048, 0, 4.3e12, 790e12) == pytest.approx(5.8e-3, rel=1e-2)


@pytest.mark.parametrize("name", ["toy", "toy-mha"])
def test_ours_and_theirs_are_the_same_model_over_the_same_memory(name: str) -> None:
    subject = Subject.random(name, FAMILY[name], torch.float32, CPU, seed=1)
    theirs = subject.theirs()
    assert sum(p.numel() for p in theirs.parameters()) == FAMILY[name].parameters
    wte = subject.tensors["transformer.wte.weight"]
    assert theirs.transformer.wte.weight.data_ptr() == theirs.lm_head.weight.data_ptr() == wte.data_ptr()
    ours = subject.ours(TorchOps()).weights.wte
    assert isinstance(ours, Tensor)
    assert ours.data_ptr() == wte.data_ptr()
    assert weights.tensor_bytes(subject.tensors) == 4 * FAMILY[name].parameters
    with torch.inference_mode():
        logits = theirs(subject.prompt(100, 0)[None]).logits[0]
    assert 1 < float(logits.std()) < 9  # sane: neither flat nor one-sided
    assert len(set(decoding.greedy(subject.ours(TorchOps()), subject.prompt(20, 0), 24).tolist())) > 4


@pytest.mark.parametrize("field", ["question", "model", "dtype", "device", "unit", "command"])
def test_a_row_without_a_required_field_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        a_row(**{field: " "})


def test_rows_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="says why"):
        a_row(value=None)
    with pytest.raises(ValueError, match="finite"):
        a_row(value=math.inf)
    with pytest.raises(ValueError, match="finite"):
        a_row(p90=math.nan)
    with pytest.raises(ValueError, match="without a value"):
        a_row(value=None, error="it broke", passed=True)
    with pytest.raises(ValueError, match="measured"):
        a_row(measured=None)
    assert a_row(value=None, error="it broke", passed=False).failed


def test_rows_are_appended_and_read_back(tmp_path: Path) -> None:
    first, second = a_row(detail={"context": 128}), a_row(value=None, skipped="no device")
    for row in (first, second):
        RowWriter(tmp_path / "out", "models").write(row)
    path = tmp_path / "out" / "models.jsonl"
    assert read_rows([path]) == [first, second]
    assert json.loads(path.read_text().splitlines()[1])["value"] is None
    path.write_text('{"question": "decode"}\n')
    with pytest.raises(ValueError, match=r"models\.jsonl:1"):
        read_rows([path])


def test_rows_of_a_run_say_what_it_shares_and_shares_are_per_cent() -> None:
    run = Run("python -m benchmarks.x", "a machine", 3, "abc", "today", triton="9")
    row = Row(question="q", model="m", dtype="d", measured=True, value=1.0, unit="%", **run.shared())
    assert (row.command, row.device, row.seed, row.commit, row.started) == (
        run.command, run.device, run.seed, run.commit, run.started,
    )  # fmt: skip
    assert (row.torch, row.triton) == ("", ""), "a library that took no part in it"
    found = Estimate(0.5, 0.25, 0.123456, 9)
    assert rows.per_cent(found) == {"low": 25.0, "high": 12.35}
    assert rows.per_cent(found, "gain") == {"gain": 50.0, "gain_low": 25.0, "gain_high": 12.35}


def test_rows_name_no_folder_of_the_machine() -> None:
    run = Run.of(["--part", "kernels", "--out", "/home/someone/deep/out", "--out=/x/y"], "cpu", 0)
    assert run.command == "python -m benchmarks.gpu --part kernels --out out --out=y"
    assert rows.without_folders("No such file: /a/b/c.py, see https://x.org/a/b") == (
        "No such file: c.py, see https://x.org/a/b"
    )


def test_a_slow_probe_is_refused_and_a_good_one_is_not() -> None:
    sheet = probes.DATASHEETS["NVIDIA H200"]
    assert "busy" in probes.refusal(4.0e12, sheet.read, probes.LEAST_BANDWIDTH)
    assert not probes.refusal(4.3e12, sheet.read, probes.LEAST_BANDWIDTH)
    assert not probes.refusal(790e12, sheet.rate, probes.LEAST_RATE)
    assert not probes.refusal(1.0, None, probes.LEAST_BANDWIDTH)


def test_timings_are_quantiles_of_single_calls() -> None:
    timed = timing.Timing.of([0.2, 0.1, 0.4, 0.3, 0.5], calls=10)
    assert (timed.median, timed.p10, timed.p90, timed.n) == pytest.approx((0.03, 0.01, 0.05, 5))
    calls: list[str] = []
    works = [lambda: calls.append("a"), lambda: calls.append("b")]
    assert timing.measure(works, CPU, seconds=0.01).n >= timing.LEAST
    assert calls.count("b") > 1
    assert timing.capture(works, CPU).replay is None


class SlightlyWrong(TorchOps):
    """Off by far more than rounding, by far less than would be seen in text."""

    def proj_residual(self, x: Tensor, y: Tensor, proj: Linear) -> Tensor:
        return super().proj_residual(x, y, proj) * 1.001


class Broken(TorchOps):
    def attend(self, *args: object, **kwargs: object) -> Tensor:
        raise RuntimeError("no such luck in /home/somebody/secret/place.py")


@pytest.mark.parametrize(("ops", "operation"), [(SlightlyWrong(), "proj_residual"), (Broken(), "attend")])
def test_a_wrong_operation_fails_its_rows_and_the_exit_code(
    ops: TorchOps, operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "backends", lambda bench: {"torch": ops})
    monkeypatch.setattr(kernels, "DTYPES", (torch.float32,))
    only = ["--only", "error against float64", "--models", "toy"]
    before = torch.get_num_threads()
    try:
        code = main(["--part", "kernels", "--toy", "--device", "cpu", "--out", str(tmp_path), *only])
    finally:
        torch.set_num_threads(before)
    found = read_rows([tmp_path / "kernels.jsonl"])
    assert code == 1
    assert {row.detail["operation"] for row in found if row.failed} == {operation}
    errors = [row.error for row in found if row.error]
    assert errors == ([] if operation == "proj_residual" else ["RuntimeError in attend: no such luck in place.py"])


def test_the_two_times_rule_compares_with_torch() -> None:
    assert reference.two_times(1.9e-3, 1e-3, torch.float16)[0]
    assert not reference.two_times(2.3e-3, 1e-3, torch.float16)[0]
    assert reference.relative_error(torch.tensor([math.nan]), torch.ones(1)) == 1e30


def test_a_spent_budget_stops_cleanly_and_says_what_was_left_out(tmp_path: Path) -> None:
    bench = gpu_bench.Bench(
        Run.of([], "cpu", 0), CPU, True, RowWriter(tmp_path, "kernels"), gpu_bench.Ceilings(), budget=0.0
    )
    assert not bench.ask(gpu_bench.About("decode", "tokens/s", "toy"), lambda: gpu_bench.Answer(1.0))
    bench.close()
    (row,) = bench.writer.rows
    assert row.question == "budget"
    assert "decode toy" in row.skipped


@pytest.mark.parametrize(
    "arguments", [["--models", "huge", "--toy"], [], ["--toy", "--device", "cuda"]], ids=["shape", "real", "cuda"]
)
def test_what_cannot_run_is_refused_at_once(arguments: Sequence[str], tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    assert main(["--part", "models", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert not (tmp_path / "out").exists()


def test_the_kit_imports_only_what_a_gpu_machine_has() -> None:
    code = (
        "import sys, benchmarks.gpu.__main__, benchmarks.report; "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'pydantic', 'typer', 'starlette', 'cachetools', 'platformdirs', 'uvicorn', 'pygls', 'prometheus_client'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
