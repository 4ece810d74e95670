"""What every part is handed: a device, a budget, the ceilings found so far, and one way to ask a question."""

from __future__ import annotations

import gc
import importlib
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

import torch

from benchmarks.rows import Detail, Row, RowWriter, Run, without_folders
from benchmarks.timing import Timing
from engine.ops import Head, Ops, TorchOps

TRITON_OPS = "triton_kernels.ops"


class Skip(Exception):
    """Raised inside a question that cannot be answered here; the reason becomes a row."""


@dataclass(frozen=True, slots=True)
class About:
    """What a question is about."""

    question: str
    unit: str
    model: str = "-"
    dtype: str = "-"
    backend: str = ""
    detail: Detail = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """One value in the question's unit; with a `timing`, `per` turns seconds into that unit and gives the spread."""

    value: float | None = None
    timing: Timing | None = None
    per: Callable[[float], float] = float
    passed: bool | None = None
    limit: float | None = None
    detail: Detail = field(default_factory=dict)
    measured: bool = True
    backend: str | None = None
    unit: str | None = None


@dataclass(slots=True)
class Ceilings:
    """What the device reaches: bytes a second read, FLOP a second in bfloat16; None until measured, or when refused."""

    read: float | None = None
    rate: float | None = None


@dataclass(slots=True)
class Bench:
    """One part's run."""

    run: Run
    device: torch.device
    toy: bool
    writer: RowWriter
    ceilings: Ceilings
    budget: float
    only: frozenset[str] = frozenset()
    _started: float = field(default_factory=time.monotonic)
    _left_out: list[str] = field(default_factory=list)

    @property
    def seconds_left(self) -> float:
        """Of this part's budget."""
        return self.budget - (time.monotonic() - self._started)

    @property
    def patience(self) -> float:
        """Seconds that one timing may take."""
        return 0.01 if self.toy else 0.5

    def wants(self, *questions: str) -> bool:
        """Whether any of these questions is to be asked at all."""
        return not self.only or not self.only.isdisjoint(questions)

    def ask(
        self,
        about: About,
        work: Callable[[], Answer | Sequence[Answer]],
        *,
        check: bool = False,
        needs: float = 0.0,
    ) -> bool:
        """Answer one question and write its rows; errors become a row and the run goes on. -> whether it was answered.

        `check` marks a correctness question, which then fails on an error; `needs` is how many seconds it takes at least.
        """
        if not self.wants(about.question):
            return False

        def answered() -> None:
            answers = work()
            for answer in [answers] if isinstance(answers, Answer) else answers:
                self._write(about, answer)

        return self.guard(about, answered, check=check, needs=needs)

    def guard(self, about: About, work: Callable[[], None], *, check: bool = False, needs: float = 0.0) -> bool:
        """Do work that may ask questions of its own; what goes wrong becomes a row. -> whether it was done."""
        if self.seconds_left <= max(needs, 0.0):
            self._left_out.append(f"{about.question} {about.model} {about.backend}".strip())
            return False
        try:
            work()
        except Skip as reason:
            self.skip(about, str(reason))
            return False
        except torch.cuda.OutOfMemoryError as error:
            self.skip(about, f"out of memory: {_short(error)}")
            return False
        except Exception as error:  # noqa: BLE001  (one question's failure must not cost the others their answers)
            where = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__} in {where.name}: {_short(error)}"
            self._write(about, Answer(passed=False if check else None), error=message)
            return False
        return True

    def skip(self, about: About, reason: str) -> None:
        """Record that a question is not answered here, and why."""
        self._write(about, Answer(), skipped=without_folders(reason))

    def close(self) -> None:
        """Record what the budget left out."""
        if self._left_out:
            names = list(dict.fromkeys(self._left_out))
            reason = f"{self.budget:.0f} s were over before: {', '.join(names)}"
            self.skip(About("budget", "s"), reason)

    def percent_of_read(self, bytes_read: float, seconds: float) -> dict[str, float]:
        """`{"percent_of_read": ...}`, or nothing where no read bandwidth is to be trusted."""
        read = self.ceilings.read
        return {} if read is None else {"percent_of_read": round(100 * bytes_read / seconds / read, 1)}

    def free(self) -> None:
        """Give memory back between models; on a CPU there are only toys, not worth the collector's time."""
        if self.device.type == "cuda":
            gc.collect()
            with suppress(RuntimeError):  # after a capture that could not be ended torch thinks that it still goes on
                torch.cuda.empty_cache()

    def memory_left(self) -> float:
        """Bytes that can still be allocated; without end on a CPU, where only toys run."""
        if self.device.type != "cuda":
            return float("inf")
        self.free()
        return float(torch.cuda.mem_get_info(self.device)[0])

    def _write(self, about: About, answer: Answer, error: str = "", skipped: str = "") -> None:
        timing, value = answer.timing, answer.value
        median = low = high = None
        if timing is not None:
            median = answer.per(timing.median)
            low, high = sorted((answer.per(timing.p10), answer.per(timing.p90)))
            value = median if value is None else value
        self.writer.write(
            Row(
                question=about.question,
                model=about.model,
                dtype=about.dtype,
                device=self.run.device,
                measured=answer.measured,
                value=_round(value),
                unit=answer.unit or about.unit,
                command=self.run.command,
                backend=about.backend if answer.backend is None else answer.backend,
                detail={**about.detail, **answer.detail},
                n=timing.n if timing is not None else 1,
                median=_round(median),
                p10=_round(low),
                p90=_round(high),
                passed=answer.passed,
                limit=_round(answer.limit),
                error=error,
                skipped=skipped,
                seed=self.run.seed,
                commit=self.run.commit,
                started=self.run.started,
                torch=self.run.torch,
                triton=self.run.triton,
                transformers=self.run.transformers,
                python=self.run.python,
            )
        )


def backends(bench: Bench) -> dict[str, Ops]:
    """The implementations of `engine.ops.Ops` that run here; a row says why Triton's is not among them."""
    found: dict[str, Ops] = {"torch": TorchOps()}
    about = About("backend", "-", backend="triton")
    if bench.device.type != "cuda":
        bench.skip(about, "Triton's kernels need a CUDA device; only the torch path ran")
        return found
    try:
        found["triton"] = cast("Ops", importlib.import_module(TRITON_OPS).TritonOps(Head))
    except Exception as error:  # noqa: BLE001  (whatever is wrong with it, the torch path still has its answers to give)
        bench.skip(about, f"only the torch path ran: {TRITON_OPS}.TritonOps: {type(error).__name__}: {_short(error)}")
    return found


def dtype_name(dtype: torch.dtype) -> str:
    """`bfloat16` for torch.bfloat16."""
    return str(dtype).removeprefix("torch.")


def device_name(device: torch.device) -> str:
    """The card's name, or `cpu` with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} thread(s)"


def _short(error: BaseException) -> str:
    lines = str(error).splitlines() or [""]
    return without_folders(lines[0])[:300]


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
