"""Read bandwidth and matrix rate of this device, before anything else; refused where they fall short of the datasheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.gpu.bench import About, Answer, Bench, Skip, dtype_name
from benchmarks.probes import (
    DATASHEETS,
    LEAST_BANDWIDTH,
    LEAST_RATE,
    Probe,
    probe_bytes,
    rate_probe,
    read_probes,
    refusal,
)


def run(bench: Bench, names: Sequence[str]) -> None:
    """Write a row for each probe and one for each ceiling, and keep the ceilings for the parts that follow."""
    del names
    _bandwidth(bench)
    for dtype in (torch.bfloat16, torch.float32):
        _rate(bench, dtype)
        bench.free()


def _bandwidth(bench: Bench) -> None:
    sheet = DATASHEETS.get(bench.run.device)
    found: list[Probe] = []

    def probed(work: Callable[[], Probe]) -> Answer:
        probe = work()
        found.append(probe)
        return Answer(timing=probe.timing, per=probe.per(1e9), detail={"bytes": int(probe.amount)})

    for name, work in read_probes(bench.device, probe_bytes(bench.device), bench.patience).items():
        bench.ask(About("read probe", "GB/s", backend=name), lambda work=work: probed(work))  # type: ignore[misc]
        bench.free()

    def best() -> list[Answer]:
        if not found:
            raise Skip("no probe gave an answer; percentages are left out")
        probe = max(found, key=lambda probe: probe.rate)
        why = refusal(probe.rate, sheet.read if sheet else None, LEAST_BANDWIDTH)
        if why:
            raise Skip(why)
        bench.ceilings.read = probe.rate
        answers = [Answer(probe.rate / 1e9, backend=probe.name)]
        if sheet:
            answers.append(Answer(sheet.read / 1e9, measured=False, backend="datasheet"))
        return answers

    bench.ask(About("read bandwidth", "GB/s"), best)


def _rate(bench: Bench, dtype: torch.dtype) -> None:
    sheet = DATASHEETS.get(bench.run.device)

    def rate() -> list[Answer]:
        probe = rate_probe(bench.device, dtype, 128 if bench.toy else 8192, bench.patience)
        answers = [Answer(timing=probe.timing, per=probe.per(1e12))]
        if dtype == torch.bfloat16:
            why = refusal(probe.rate, sheet.rate if sheet else None, LEAST_RATE)
            if why:
                raise Skip(why)
            bench.ceilings.rate = probe.rate
            if sheet:
                answers.append(Answer(sheet.rate / 1e12, measured=False, backend="datasheet"))
        return answers

    bench.ask(About("matrix rate", "TFLOP/s", dtype=dtype_name(dtype), backend="matmul"), rate)
