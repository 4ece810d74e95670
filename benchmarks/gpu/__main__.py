"""The command. Exit code 1 when a correctness question was answered with no, 2 when it cannot run as asked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.gpu import ceilings, kernels, models, peers, runner
from benchmarks.gpu.bench import Bench, Ceilings, device_name
from benchmarks.report import text_table
from benchmarks.rows import Row, RowWriter, Run
from benchmarks.shapes import FAMILY, REAL, TOYS

PARTS: dict[str, Callable[[Bench, Sequence[str]], None]] = {
    "kernels": kernels.run,
    "models": models.run,
    "runner": runner.run,
    "peers": peers.run,
}


def main(arguments: Sequence[str]) -> int:
    """Run the parts asked for, print a table, return the exit code."""
    options = _parser().parse_args(arguments)
    names = options.models.split(",") if options.models else list(TOYS if options.toy else REAL)
    unknown = [name for name in names if name not in FAMILY]
    if unknown:
        print(f"--models {','.join(unknown)}: the shapes are {', '.join(FAMILY)}", file=sys.stderr)
        return 2
    device = torch.device("cuda" if torch.cuda.is_available() and options.device != "cpu" else "cpu")
    if device.type == "cpu" and (not options.toy or options.device == "cuda"):
        print("this torch sees no CUDA device; add --toy to rehearse at toy sizes on the CPU", file=sys.stderr)
        return 2
    if device.type == "cpu":
        torch.set_num_threads(1)  # toys are too small for more, and a busy machine makes more threads slow
    run = Run.of(arguments, device_name(device), options.seed, options.commit)
    only = frozenset(options.only.split(",")) if options.only else frozenset()
    found, rows = Ceilings(), list[Row]()
    for part, work in {
        "ceilings": ceilings.run,
        **{name: PARTS[name] for name in PARTS if name in options.part},
    }.items():
        writer = RowWriter(options.out, part)
        bench = Bench(
            run, device, options.toy, writer, found, options.budget, frozenset() if part == "ceilings" else only
        )
        work(bench, names)
        bench.close()
        bench.free()
        rows += writer.rows
        print(f"{part}: {len(writer.rows)} rows in {writer.path.name}", flush=True)
    print(text_table(rows))
    return 1 if any(row.failed for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--part", action="append", choices=list(PARTS), required=True, help="may be given more than once"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for <part>.jsonl; rows are appended")
    parser.add_argument(
        "--toy", action="store_true", help="toy sizes, seconds on a CPU: a rehearsal, not a measurement"
    )
    parser.add_argument("--models", default="", help=f"comma-separated, of: {', '.join(FAMILY)}")
    parser.add_argument("--only", default="", help="comma-separated questions, to ask no others")
    parser.add_argument("--budget", type=float, default=290.0, help="seconds for each part (default 290)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commit", default="", help="written into the rows where the checkout has no git")
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
