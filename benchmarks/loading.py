"""What loading costs: from a directory to an engine that is ready, beside reading the same bytes; and what memory it takes.

`python -m benchmarks.loading --out DIR [--dtype D] [SHAPE:STORED ...]`. SHAPE is one of `benchmarks.shapes`, STORED the dtype
of its shards. Both sides run in one child, one after the other, several times, with the files in the page cache; each side's
best time is taken, so that what else the machine does is left out as far as it can be. Imports and the first calls of kernels
are made on the starter before. Reading is `read()` of every file into memory that is kept until the last byte is there, as a
model needs it.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import text_table
from benchmarks.rows import Row, RowWriter, Run
from benchmarks.shapes import FAMILY
from engine.gpt_bigcode import ModelShape

ROUNDS = 5
SHARDS = 4
LIMIT = 1.5
"""How many times the time of reading its bytes a model may take to be ready."""

QUESTION, MEMORY = "load time / time of reading the files", "peak memory beside the model / largest shard"
_DEFAULT = ("1b:bfloat16", "1b:float32")


def measure(directory: Path, rounds: int, dtype: str = "auto") -> dict[str, Any]:
    """In this process: best times of both sides, and what memory a load takes at most."""
    from engine import pages
    from engine.loading import LoadOptions, load
    from engine.models import STARTER, ModelSource

    def loaded(source: Path, chosen: str = dtype) -> Any:
        return load(LoadOptions(ModelSource(source.name, source), device="cpu", dtype=chosen, kv_memory=2**28))

    shards = sorted(directory.glob("*.safetensors"))
    loaded(STARTER, "bfloat16")
    before = _status("VmRSS")
    ready = loaded(directory)
    pages.wait()
    after, peak = _status("VmRSS"), _status("VmHWM")
    name = ready.dtype
    del ready
    gc.collect()

    def read() -> list[bytes]:
        return [shard.read_bytes() for shard in shards]

    read_s, load_s, round_s, cpu_s = [], [], [], []
    for _ in range(rounds):
        read_s.append(_timed(read))
        before_cpu = time.process_time()
        load_s.append(_timed(lambda: loaded(directory)))
        cpu_s.append(time.process_time() - before_cpu)
        pages.wait()
        round_s.append(load_s[-1] / read_s[-1])
        gc.collect()
    return {
        "read_s": min(read_s), "load_s": min(load_s), "load_cpu_s": min(cpu_s), "dtype": name,
        "bytes": sum(shard.stat().st_size for shard in shards), "shard": max(shard.stat().st_size for shard in shards),
        "model": after - before, "peak": peak - before, "ratios": sorted(round_s),
    }  # fmt: skip


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    done = work()
    spent = time.perf_counter() - started
    del done
    return spent


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def in_a_child(directory: Path, rounds: int = ROUNDS, dtype: str = "auto") -> dict[str, Any]:
    """The same in a process that has nothing else in memory."""
    child = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.loading",
            "--measure",
            str(directory.resolve()),
            "--rounds",
            str(rounds),
            "--dtype",
            dtype,
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    found: dict[str, Any] = json.loads(child.stdout)
    return found


def rows_of(model: str, stored: str, found: dict[str, Any], run: Run) -> list[Row]:
    """What was found, as two rows."""
    common = {"model": model, "device": run.device, "measured": True, "unit": "x", "dtype": found["dtype"],
              "command": run.command, "n": len(found["ratios"]), "seed": run.seed, "commit": run.commit,
              "started": run.started, "torch": run.torch, "python": run.python}  # fmt: skip
    detail = {"stored": stored, "bytes": found["bytes"], "shard": found["shard"]}
    ratio = found["load_s"] / found["read_s"]
    beside = (found["peak"] - found["model"]) / found["shard"]
    return [
        Row(question=QUESTION, value=ratio, limit=LIMIT, passed=ratio <= LIMIT,
            detail=detail | {name: found[name] for name in ("read_s", "load_s", "load_cpu_s")}, **common),
        Row(question=MEMORY, value=beside, limit=1.0, passed=beside <= 1.0,
            detail=detail | {"model": found["model"], "peak": found["peak"]}, **common),
    ]  # fmt: skip


def write_checkpoint(directory: Path, shape: ModelShape, stored: str) -> None:
    """A checkpoint with random weights, in shards, with the starter's tokenizer."""
    import torch
    from safetensors.torch import save_file

    from benchmarks.weights import random_tensors, their_config
    from engine.models import STARTER

    dtype = getattr(torch, stored)
    tensors = random_tensors(shape, dtype, torch.device("cpu"), seed=5)
    whole, before = sum(tensor.nbytes for tensor in tensors.values()), 0
    parts: list[list[str]] = [[] for _ in range(SHARDS)]
    for name, tensor in tensors.items():
        parts[before * SHARDS // whole].append(name)
        before += tensor.nbytes
    where: dict[str, str] = {}
    for number, names in enumerate(filter(None, parts), start=1):
        file = f"model-{number:05d}-of-{SHARDS:05d}.safetensors"
        part = {name: tensors[name].contiguous() for name in names}
        save_file(part, directory / file, {"format": "pt"})
        where |= dict.fromkeys(part, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (directory / "config.json").write_text(their_config(shape).to_json_string())
    (directory / "tokenizer.json").write_bytes((STARTER / "tokenizer.json").read_bytes())


def main(argv: Sequence[str]) -> int:
    """Measure and print; a row of each ratio goes to `DIR/loading.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=_DEFAULT, metavar="SHAPE:STORED")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--dtype", default="auto", help="what to load in")
    parser.add_argument("--folder", type=Path, help="where checkpoints are found, or made and kept")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure is not None:
        sys.stdout.write(json.dumps(measure(options.measure, options.rounds, options.dtype)))
        return 0
    if options.out is None:
        parser.error("--out is needed")
    run = Run.of(argv, "cpu", 5, module="benchmarks.loading")
    writer = RowWriter(options.out, "loading")
    for model in options.models:
        shape, _, stored = model.partition(":")
        with tempfile.TemporaryDirectory() as folder:
            directory = (options.folder or Path(folder)) / f"{shape}-{stored}"
            if not directory.exists():
                directory.mkdir(parents=True)
                write_checkpoint(directory, FAMILY[shape], stored)
            found = in_a_child(directory, options.rounds, options.dtype)
        for row in rows_of(shape, stored, found, run):
            writer.write(row)
    print(text_table(writer.rows))
    return 0 if all(row.passed for row in writer.rows) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
