"""The engine's runner of graphs: replays against launches, a thousand replays, draws, guesses, cancels, cold starts.

Triton's kernels need a CUDA device; at toy sizes its interpreter will do (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from benchmarks.gpu.bench import About, Answer, Bench, Skip, backends, dtype_name
from benchmarks.gpu.subject import Subject
from benchmarks.shapes import FAMILY, decode_bytes
from benchmarks.timing import Timing, synchronize
from engine.ops import Head, Ops
from engine.sampler import Draw, sample
from engine.sampling import Sampling
from engine.step import Span, Step

if TYPE_CHECKING:
    from engine.cuda.graph_runner import GraphRunner
    from engine.cuda.graphs import Device
    from engine.cuda.passes import Choosing

QUESTIONS = (
    "replays against launches", "a thousand replays", "draws against the sampler", "decode", "tokens per pass",
    "cancel to idle", "first token",
)  # fmt: skip
CONTEXT = 2048
ROOT = Path(__file__).parents[2]
LEAST_SAME = 99.0
"""Percent of draws that must be the sampler's own: where top-p cuts between two tokens, sums may be rounded otherwise."""


def run(bench: Bench, names: Sequence[str]) -> None:
    """For each shape with one key head: what must be equal first, then what takes time; cold starts last."""
    ops = _kernels(bench)
    for name in names:
        if ops is not None and FAMILY[name].multi_query and bench.wants(*QUESTIONS):
            bench.guard(About("runner", "-", name), partial(_model, bench, name, ops), check=True)
        bench.free()
    first = next((name for name in names if FAMILY[name].multi_query), None)
    if first is not None:
        _cold(bench, "1b" if "1b" in names else first)


def _kernels(bench: Bench) -> Ops | None:
    if bench.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        from triton_kernels.ops import TritonOps

        return TritonOps(Head)
    return backends(bench).get("triton")


def _model(bench: Bench, name: str, ops: Ops) -> None:
    # Triton's interpreter multiplies the bit patterns of bfloat16.
    dtype = torch.bfloat16 if bench.device.type == "cuda" else torch.float32
    needed = FAMILY[name].parameters * dtype.itemsize * 1.2 + 2e9
    if needed > bench.memory_left():
        raise Skip(f"{needed / 1e9:.0f} GB for the weights are not free")
    subject = Subject.random(name, FAMILY[name], dtype, bench.device, bench.run.seed)
    _Questions(bench, subject, ops).ask()
    subject.forget()


class _Questions:
    """One shape's."""

    def __init__(self, bench: Bench, subject: Subject, ops: Ops) -> None:
        self.bench, self.subject, self.ops = bench, subject, ops
        self.model = subject.ours(ops)
        self.context = min(CONTEXT, subject.shape.n_positions // 2)

    def ask(self) -> None:
        """All of them."""
        for dependent in (False, True) if self._dependent_launches() else (False,):
            mode = "dependent launches" if dependent else "launches"
            for question, unit, work, check in (
                ("replays against launches", "% same", self._replays, True),
                ("a thousand replays", "mismatches", self._thousand, True),
                ("decode", "tokens/s", self._decode, False),
            ):
                self._one(question, unit, partial(work, self._device(dependent=dependent)), {"mode": mode}, check=check)
        self._one("draws against the sampler", "% same", self._draws, {}, check=True)
        self._one("tokens per pass", "tokens", self._speculation, {}, check=False)
        self._one("cancel to idle", "ms", self._cancel, {}, check=False)

    def _one(self, question: str, unit: str, work: object, detail: dict[str, str], *, check: bool) -> None:
        about = About(question, unit, self.subject.name, dtype_name(self.subject.dtype), "triton", detail)
        self.bench.ask(about, work, check=check)  # type: ignore[arg-type]

    def _replays(self, device: Device) -> Answer:
        from engine.cuda.choosing import repeats

        same = repeats(self.model, device)
        return Answer(100.0 * same, passed=same, limit=100.0)

    @torch.inference_mode()
    def _thousand(self, device: Device) -> Answer:
        """Rows alone and with guesses; the comparison stays on the device, so that replays follow each other."""
        from engine.cuda.buckets import Bucket, Drawn
        from engine.cuda.passes import once
        from engine.cuda.places import Place

        window, times = self.subject.shape.n_positions, 3 if self.bench.toy else 1000
        wrong = 0
        for rows, drawn in ((1, False), (8, True)):
            bucket = Bucket(rows, window, drawn=drawn, narrowed=drawn)
            place, kv = Place(bucket, self.subject.shape.vocab_size, device), self.model.new_kv(1, window)
            kv.normal_()
            span, ids = Span(0, window - rows, rows), self.subject.prompt(rows, 0).tolist()
            replay, outputs = device.record(partial(once, self.model, place, kv))
            place.fill((span,), ids, [Drawn(r, window, Sampling(top_k=99, seed=r)) for r in range(rows)], ())
            replay()
            first = [part.clone() for part in outputs]
            off = torch.zeros((), dtype=torch.int64, device=self.bench.device)
            for _ in range(times):
                replay()
                for part, expected in zip(outputs, first, strict=True):
                    off += (part != expected).sum()
            wrong += int(off)
        return Answer(float(wrong), passed=wrong == 0, limit=0.0, detail={"replays": times})

    @torch.inference_mode()
    def _draws(self) -> Answer:
        """The same seeds over the same logits, through the kernels and through the engine's sampler."""
        from triton_kernels.draw import HostDraw, draw_table

        ops, weights = cast("Choosing", self.ops), self.model.weights
        rows, same, count = 2 if self.bench.toy else 16, 0, 0
        x = torch.randn(rows, self.subject.shape.n_embd, device=self.bench.device)
        assert isinstance(weights.wte, torch.Tensor)
        choice = ops.choose(x, weights.ln_f, weights.wte, None, logits=True)
        assert choice.logits is not None
        grid = itertools.product((0.2, 1.0), (1.0, 0.9), (0, 40), (0.0, 0.02))
        for turn, (heat, top_p, top_k, min_p) in enumerate(list(grid)[:: 5 if self.bench.toy else 1]):
            asked = [Sampling(heat, top_p, top_k, min_p, seed=turn * 977 + row) for row in range(rows)]
            theirs = sample(choice.logits, [Draw(each, 100 + row) for row, each in enumerate(asked)], None)
            draws = [
                HostDraw(row, 100 + row, heat, top_p, top_k, min_p, seed=each.seed) for row, each in enumerate(asked)
            ]
            ours, _ = ops.draw(choice, draw_table(draws).to(self.bench.device))
            same += int((ours == theirs).sum())
            count += rows
        percent = 100.0 * same / count
        return Answer(percent, passed=percent >= LEAST_SAME, limit=LEAST_SAME, detail={"draws": count})

    def _decode(self, device: Device) -> Answer:
        """Through the engine's runner, host and all: tokens after a long context, one request, greedy."""
        runner, token = self._started(device)
        few = 3 if self.bench.toy else 20
        start = self.context
        for _ in range(few):
            token = runner.run(Step.of(Span(0, start, 1), (token,)))[0].id
            start += 1
        times = []
        for _ in range(few if self.bench.toy else 400):
            began = time.perf_counter()
            token = runner.run(Step.of(Span(0, start, 1), (token,)))[0].id
            times.append(time.perf_counter() - began)
            start += 1
        timing = Timing.of(times)
        size = decode_bytes(self.subject.shape, dtype_name(self.subject.dtype), self.context)
        detail = {"context": self.context, "begun_ahead": runner.ahead.used}
        detail |= self.bench.percent_of_read(size, timing.median)  # type: ignore[arg-type]
        return Answer(timing=timing, per=lambda s: 1 / s, detail=detail)

    def _speculation(self) -> Answer:
        """Tokens that a pass brings when what stood earlier is guessed at; random weights show how, not how much."""
        from engine.speculation import Lookup

        wanted = 8 if self.bench.toy else 256
        prompt = self.subject.prompt(24, self.bench.run.seed).tolist()
        said: list[list[int]] = []
        passes = 0
        for guessing in (False, True):
            runner = self._runner(self._device(dependent=False))
            ids, lookup, computed = list(prompt), Lookup(), 0
            while len(ids) < len(prompt) + wanted:
                known = len(ids)
                lookup.know(known, lambda a, b, ids=ids: ids[a:b])  # type: ignore[misc]
                guesses = lookup.guess(min(7, 16 - (known - computed))) if guessing and computed else []
                fed = [*ids[computed:known], *guesses]
                step = Step.of(Span(0, computed, len(fed)), fed, guesses=len(guesses))
                found = [each.id for each in runner.run(step)]
                right = 0
                while right < len(guesses) and guesses[right] == found[right]:
                    right += 1
                ids += found[: right + 1]
                computed = known + right
                passes += guessing
            said.append(ids[len(prompt) : len(prompt) + wanted])
        same = sum(a == b for a, b in zip(*said, strict=True))
        return Answer(wanted / passes, detail={"tokens": wanted, "same_as_without": same})

    def _cancel(self) -> Answer:
        """From the answer after which nobody asks for more until the device has nothing left to do."""
        runner, token = self._started(self._device(dependent=False))
        start, times = self.context, []
        for _ in range(2 if self.bench.toy else 20):
            for _ in range(4):
                token = runner.run(Step.of(Span(0, start, 1), (token,)))[0].id
                start += 1
            began = time.perf_counter()
            synchronize(self.bench.device)
            times.append(time.perf_counter() - began)
        return Answer(timing=Timing.of(times), per=lambda s: s * 1e3)

    def _started(self, device: Device) -> tuple[GraphRunner, int]:
        """A runner, and the token after a random context that it computed."""
        runner = self._runner(device)
        prompt = self.subject.prompt(self.context, self.bench.run.seed).tolist()
        return runner, runner.run(Step.of(Span(0, 0, self.context), prompt))[0].id

    def _runner(self, device: Device) -> GraphRunner:
        from engine.cuda.graph_runner import GraphRunner
        from engine.cuda.passes import once
        from engine.runner import TorchRunner

        eager = TorchRunner(self.model, 1, self.subject.shape.n_positions)
        return GraphRunner(eager, partial(once, self.model), self.subject.shape.vocab_size, device)

    def _device(self, *, dependent: bool) -> Device:
        from engine.cuda.graphs import CudaDevice, HostDevice

        cuda = self.bench.device.type == "cuda"
        return CudaDevice(self.bench.device, dependent=dependent) if cuda else HostDevice()

    def _dependent_launches(self) -> bool:
        return self.bench.device.type == "cuda" and torch.cuda.get_device_capability(self.bench.device) >= (9, 0)


def _cold(bench: Bench, name: str) -> None:
    """Processes of their own: the first with an empty kernel cache, the second with what the first left there."""
    with _empty_folder() as cache:
        for state in ("empty", "warm"):

            def start() -> list[Answer]:
                command = [sys.executable, "-m", "benchmarks.gpu.cold", "--model", name, "--device", bench.device.type]
                done = subprocess.run(
                    command,
                    cwd=ROOT,
                    env=os.environ | {"TRITON_CACHE_DIR": str(cache)},
                    capture_output=True,
                    text=True,
                    timeout=max(10.0, bench.seconds_left),
                    check=False,
                )
                if done.returncode:
                    raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
                told = json.loads(done.stdout.splitlines()[-1])
                detail = {part: round(told[part], 3) for part in ("imports", "weights", "choosing")}
                return [Answer(told["first token"], detail={**detail, "note": told["note"]})]

            about = About("first token", "s", name, "-", "engine", {"kernel_cache": state})
            bench.ask(about, start, needs=20.0 if not bench.toy else 0.0)


@contextmanager
def _empty_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
