"""`python -m benchmarks.cpu --out DIR`: our engine and llama.cpp's server on the same weights, ids and threads.

Decode at a short context and at 1,500 tokens, and prefill of 512, at each precision that both have. Weights of the larger
sizes are random and made in a temporary folder; llama.cpp comes from Debian's packages, `gguf` from PyPI.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cpu import peer, servers, subjects
from benchmarks.cpu.duel import Duel, Question, Side, fight
from benchmarks.report import text_table
from benchmarks.rows import Row, RowWriter, Run
from engine.device import default_threads
from tests.harness.process import temporary_home

SEED = 7
PRECISIONS = ("float32", "bfloat16", "int8")
LARGE = ("1b",)
BAR = 0.9


def main(arguments: Sequence[str]) -> int:
    """Ask, write rows, print a table; 2 where the peer cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for cpu.jsonl; rows are appended")
    parser.add_argument("--models", default="starter,1b", help=f"of {', '.join(subjects.NAMES)}")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="float32 is left out for the 1b model")
    parser.add_argument(
        "--threads", type=int, default=default_threads(), help="of each server; default: the engine's own"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="questions whose name holds this")
    parser.add_argument("--folder", type=Path, help="keep what was fetched and made here, and use it again")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("gguf") is None:
        print("llama.cpp reads GGUF files: python -m pip install --group bench", file=sys.stderr)
        return 2
    run = Run.of(arguments, f"{_processor()}, {options.threads} threads", SEED, module="benchmarks.cpu")
    writer = RowWriter(options.out, "cpu")
    with tempfile.TemporaryDirectory(prefix="starfill-cpu-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        try:
            versions = {"starfill": "", "llama.cpp": peer.version(folder / "llama.cpp")}
        except peer.PeerMissing as error:
            print(f"llama.cpp cannot be had here: {error}", file=sys.stderr)
            return 2
        for name in options.models.split(","):
            directory = subjects.checkpoint(name, folder, SEED)
            for precision in options.precisions.split(","):
                if name in LARGE and precision == "float32":
                    continue
                file = subjects.gguf(directory, precision, folder / f"{name}-{precision}.gguf")
                with (
                    temporary_home() as home,
                    servers.ours(directory, precision, options.threads, home) as first,
                    servers.theirs(folder / "llama.cpp", file, options.threads, subjects.WINDOW, home) as second,
                ):
                    for question in _questions(name):
                        if options.only in question.name:
                            for row in _rows(
                                fight(question, first, second, options.rounds, SEED), name, precision, run, versions
                            ):
                                writer.write(row)
    print(text_table(writer.rows))
    return 0


def _questions(model: str) -> tuple[Question, ...]:
    tokens = 16 if model in LARGE else 192
    return (
        Question("decode", 64, tokens),
        Question("decode", 1_500, tokens),
        Question("prefill", 512, 1, fresh=True),
    )


def _rows(duel: Duel, model: str, precision: str, run: Run, versions: dict[str, str]) -> list[Row]:
    """A row for each server, and one for the ratio."""
    question = duel.question
    asked = {"context": question.context}

    def row(
        backend: str, value: float, unit: str, side: Side | None, detail: dict[str, int | float | str | bool]
    ) -> Row:
        spread = _quantiles(side.wall) if side else (None, None)
        return Row(
            question=question.name, model=model, dtype=precision, device=run.device, measured=True,
            value=round(value, 3), unit=unit, command=run.command, backend=backend, detail=asked | detail,
            n=len(duel.first.wall), median=round(value, 3), p10=spread[0], p90=spread[1],
            seed=SEED, commit=run.commit, started=run.started, torch=run.torch, python=run.python,
        )  # fmt: skip

    rows = []
    for (backend, version), side in zip(versions.items(), (duel.first, duel.second), strict=True):
        detail: dict[str, int | float | str | bool] = {"a_cpu_second": round(statistics.median(side.cpu), 2)}
        if version:
            detail["version"] = version
        rows.append(row(backend, statistics.median(side.wall), "tokens/s", side, detail))
    by_cpu = round(duel.ratio(lambda side: side.cpu), 3)
    detail = {"by_cpu_time": by_cpu, "same_ids": round(duel.same_ids, 3)}
    rows.append(row("starfill / llama.cpp", duel.ratio(lambda side: side.wall), "ratio", None, detail))
    return rows


def _quantiles(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return round(ordered[len(ordered) // 10], 3), round(ordered[-1 - len(ordered) // 10], 3)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
