"""Weights that are numbers and activations that are not: told at load, or by the request that meets them."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.api import CompletionRequest
from engine.errors import CheckpointError, EngineFault, StarfillError
from engine.generation import Delta
from engine.kv_slots import KvSlots
from engine.loading import LoadOptions, load
from engine.models import ModelSource
from engine.sampling import Sampling
from engine.scheduler import Scheduler
from engine.serve import Loaded
from engine.step import Span, Step
from engine.worker import Worker
from tests.harness.checkpoints import make_checkpoint

HUGE = 3e38
LATE = 8
"""The position from which on the second model overflows."""


def altered(directory: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    make_checkpoint(directory, dtype=torch.bfloat16)
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return directory


def everywhere(tensors: dict[str, Tensor]) -> None:
    tensors["transformer.ln_f.weight"].fill_(HUGE)


def late(tensors: dict[str, Tensor]) -> None:
    tensors["transformer.wpe.weight"][LATE:] = HUGE


def loaded(directory: Path, **options: Any) -> Loaded:
    return load(LoadOptions(ModelSource(directory.name, directory), device="cpu", **options))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_model_that_overflows_is_refused_in_words(
    tmp_path: Path, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory = altered(tmp_path / "m", everywhere)
    words = "weights are damaged" if dtype == "float32" else "--dtype float32"
    with caplog.at_level(logging.INFO), pytest.raises(CheckpointError, match=f"numbers overflow.*{words}"):
        loaded(directory, dtype=dtype)
    assert "disagree" not in caplog.text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("asked", [{}, {"sampling": Sampling(0.8, seed=1)}, {"allowed": [50, 60]}, {"top": 2}])
@pytest.mark.parametrize("length", [LATE + 1, LATE + 20])
def test_no_token_is_chosen_among_what_is_no_number(
    tmp_path: Path, dtype: str, asked: dict[str, Any], length: int
) -> None:
    runner = loaded(altered(tmp_path / "m", late), dtype=dtype).runner
    ids = list(range(30, 30 + length))
    (before,) = runner.run(Step.of(Span(0, 0, LATE), ids[:LATE]))
    with pytest.raises(EngineFault, match="numbers overflow"):
        runner.run(Step.of(Span(1, 0, length), ids, **asked))
    assert runner.run(Step.of(Span(1, 0, LATE), ids[:LATE])) == [before]


def test_the_request_that_overflows_is_told_so_and_the_others_go_on(tmp_path: Path) -> None:
    ready = loaded(altered(tmp_path / "m", late), dtype="float32")
    dead: list[bool] = []
    worker = Worker(
        Scheduler(KvSlots(4, ready.runner.window)), ready.runner, time.perf_counter, lambda: dead.append(True),
        check_each_step=True,
    )  # fmt: skip
    worker.start()
    ends: queue.Queue[tuple[str, Delta | StarfillError]] = queue.Queue()
    prompts = ("a", "a long one " * 8, "b")

    def submit(prompt: str) -> None:
        def deliver(_: int, item: Delta | StarfillError) -> None:
            if not isinstance(item, Delta) or item.finish is not None:
                ends.put((prompt, item))

        request = CompletionRequest(prompt=prompt, max_tokens=3, temperature=0.8, seed=1)
        worker.submit(ready.intake.take(request).generation, deliver)

    for prompt in prompts:
        submit(prompt)
    found = dict(ends.get(timeout=20) for _ in prompts)
    worker.stop()
    error = found.pop("a long one " * 8)
    assert isinstance(error, EngineFault)
    assert "numbers overflow even in float32" in str(error)
    assert all(isinstance(each, Delta) for each in found.values())
    assert not dead
