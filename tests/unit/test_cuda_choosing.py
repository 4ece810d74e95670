"""Which runner a model gets where kernels are tried first; no kernel runs here, the trials are told what to find."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from benchmarks.shapes import FAMILY
from benchmarks.weights import our_model, random_tensors
from engine.cuda import choosing
from engine.cuda.choosing import choose
from engine.cuda.graph_runner import GraphRunner
from engine.cuda.graphs import HostDevice
from engine.errors import DeviceError
from engine.gpt_bigcode import GPTBigCode
from engine.ops import TorchOps
from engine.processes import ProcessIdentity
from engine.runner import TorchRunner

CPU = torch.device("cpu")


@pytest.fixture
def model() -> GPTBigCode:
    shape = FAMILY["speck"]
    return our_model(shape, random_tensors(shape, torch.float32, CPU, 0), TorchOps())


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say what the trials find; an exception is raised."""

    def answer(value: bool | Exception) -> bool:
        if isinstance(value, Exception):
            raise value
        return value

    def say(kernels: bool | Exception = True, graphs: list[bool | Exception] | None = None) -> None:
        turns = iter([True] if graphs is None else graphs)
        monkeypatch.setattr(choosing, "agrees", lambda *_: answer(kernels))
        monkeypatch.setattr(choosing, "repeats", lambda *_: answer(next(turns)))
        monkeypatch.setattr("engine.cuda.graphs.CudaDevice", lambda *_, **__: HostDevice())
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))

    return say


def test_kernels_and_graphs_that_pass_are_used(model: GPTBigCode, tried: Callable[..., None]) -> None:
    tried()
    chosen = choose(model, 2, 32)
    assert isinstance(chosen.runner, GraphRunner)
    assert chosen.note == ""
    assert chosen.idle == chosen.runner.idle
    assert model.ops.free_rows == chosen.runner.free_rows == 16


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (False, "the Triton kernels and torch disagree on this model"),
        (RuntimeError("out of resource: shared memory\nmore"), "RuntimeError: out of resource: shared memory"),
    ],
    ids=["wrong", "broken"],
)
def test_kernels_that_fail_leave_torchs(
    model: GPTBigCode, tried: Callable[..., None], found: bool | Exception, reason: str
) -> None:
    tried(found)
    chosen = choose(model, 2, 32)
    assert isinstance(chosen.runner, TorchRunner)
    assert chosen.note.startswith("no Triton kernels, decoding is slower: ")
    assert chosen.note.endswith(reason)
    assert isinstance(model.ops, TorchOps)
    assert chosen.idle is None


@pytest.mark.parametrize("first", [False, RuntimeError("not supported")], ids=["different", "refused"])
def test_dependent_launches_that_fail_leave_ordinary_graphs(
    model: GPTBigCode, tried: Callable[..., None], first: bool | Exception
) -> None:
    tried(graphs=[first, True])
    assert isinstance(choose(model, 2, 32).runner, GraphRunner)


def test_graphs_that_fail_leave_the_kernels(model: GPTBigCode, tried: Callable[..., None]) -> None:
    tried(graphs=[False, RuntimeError("operation not permitted")])
    chosen = choose(model, 2, 32)
    assert isinstance(chosen.runner, TorchRunner)
    assert chosen.note == (
        "no CUDA graphs, decoding is slower: a pass cannot be captured: RuntimeError: operation not permitted"
    )
    assert model.ops.free_rows == 16


def test_a_trial_that_did_not_end_is_not_tried_again(
    model: GPTBigCode, tried: Callable[..., None], tmp_path: Path
) -> None:
    marker = tmp_path / "trials" / "kernels"
    tried()
    assert isinstance(choose(model, 2, 32, marker).runner, GraphRunner)
    assert not marker.exists()
    with pytest.raises(SystemExit):
        choose_until_killed(model, marker)
    assert marker.exists()
    tried()
    model.ops = TorchOps()
    chosen = choose(model, 2, 32, marker)
    assert isinstance(chosen.runner, TorchRunner)
    assert f"remove {marker} to try again" in chosen.note


def test_what_another_engine_tries_now_is_left_to_it(
    model: GPTBigCode, tried: Callable[..., None], tmp_path: Path
) -> None:
    marker = tmp_path / "kernels"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        marker.write_text(json.dumps(astuple(ProcessIdentity.of(other.pid) or ProcessIdentity.own())))
        tried()
        assert "another engine is trying them" in choose(model, 2, 32, marker).note
        other.kill()
    assert "an earlier trial did not end" in choose(model, 2, 32, marker).note
    assert marker.exists()


def test_a_trial_that_ends_with_an_error_of_its_own_leaves_no_mark(
    model: GPTBigCode, tried: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> TorchRunner:
        raise torch.OutOfMemoryError("CUDA out of memory")

    tried()
    monkeypatch.setattr(choosing, "TorchRunner", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        choose(model, 2, 32, tmp_path / "kernels")
    assert not (tmp_path / "kernels").exists()


def test_an_ordinary_end_in_the_middle_of_a_trial_leaves_no_mark(tmp_path: Path) -> None:
    """As SIGTERM's: exit hooks run, which a fault of the device and the watchdog's end do not let happen."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from types import SimpleNamespace\n"
        "from engine.cuda import choosing\n"
        "marker = Path(sys.argv[1])\n"
        "def end(*_):\n"
        "    assert marker.exists()\n"
        "    sys.exit(3)\n"
        "choosing._tried = end\n"
        "choosing.choose(SimpleNamespace(device='cpu'), 1, 32, marker)\n"
    )
    marker = tmp_path / "kernels"
    done = subprocess.run([sys.executable, "-c", code, str(marker)], check=False)
    assert (done.returncode, marker.exists()) == (3, False)


def test_a_device_that_breaks_while_torchs_own_runner_is_made_is_named(
    model: GPTBigCode, tried: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an illegal access nothing can be allocated either."""

    def broken(*_: object) -> TorchRunner:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    tried(RuntimeError("an illegal memory access was encountered"))
    monkeypatch.setattr(choosing, "TorchRunner", broken)
    monkeypatch.setattr(choosing, "_usable", lambda _: False)
    with pytest.raises(DeviceError, match="start the engine again"):
        choose(model, 2, 32, tmp_path / "kernels")
    assert (tmp_path / "kernels").exists()


def test_dependent_launches_that_cannot_be_captured_are_not_tried_at_the_next_start(
    model: GPTBigCode, tried: Callable[..., None], tmp_path: Path
) -> None:
    marker = tmp_path / "kernels"
    tried(graphs=[RuntimeError("operation failed due to a previous error"), RuntimeError("captures_underway")])
    assert isinstance(choose(model, 2, 32, marker).runner, TorchRunner)
    model.ops = TorchOps()
    tried(graphs=[True])
    assert isinstance(choose(model, 2, 32, marker).runner, GraphRunner)


def choose_until_killed(model: GPTBigCode, marker: Path) -> None:
    def die(*_: object) -> bool:
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "agrees", die)
        choose(model, 2, 32, marker)


def test_a_trial_that_breaks_the_device_says_so_and_is_remembered(
    model: GPTBigCode, tried: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried(RuntimeError("an illegal memory access was encountered"))
    monkeypatch.setattr(choosing, "_usable", lambda _: False)
    with pytest.raises(DeviceError, match="start the engine again"):
        choose(model, 2, 32, tmp_path / "kernels")
    assert (tmp_path / "kernels").exists()


def test_a_device_that_answers_is_usable() -> None:
    assert choosing._usable(CPU)
