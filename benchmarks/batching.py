"""What company costs a forward pass on a CPU: several sequences in one pass, against a pass for each.

`python -m benchmarks.batching --out DIR [MODEL ...]`. MODEL is `starter`, or a shape of `benchmarks.shapes`
with random weights. Processor time of one thread, interleaved, so that what else the machine does falls on both sides alike.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.report import text_table
from benchmarks.rows import Row, RowWriter, Run
from benchmarks.shapes import FAMILY
from benchmarks.timing import Timing
from benchmarks.weights import our_model, random_tensors
from engine.loading import LoadOptions, load
from engine.models import STARTER, STARTER_ID, ModelSource
from engine.ops import TorchOps
from engine.runner import TorchRunner
from engine.sampling import Sampling
from engine.step import Runner, Span, Step

CONTEXT, WINDOW, SLOTS, SEED = 512, 1_024, 16, 5
ROUNDS = 15

DECODE = [1]
COMPARED: dict[str, tuple[list[int], list[list[int]]]] = {
    "4 decoding": ([1] * 4, [DECODE] * 4),
    "12 decoding": ([1] * 12, [DECODE] * 12),
    "4 decoding and 16 of a prompt": ([1] * 4 + [16], [[1] * 4, [16]]),
    "4 decoding and 64 of a prompt": ([1] * 4 + [64], [[1] * 4, [64]]),
    "4 decoding and 256 of a prompt": ([1] * 4 + [256], [[1] * 4, [256]]),
    "8 prompts of 3": ([3] * 8, [[3]] * 8),
}
"""By name: the tokens of each span of the one pass, and of the passes that do the same apart."""


def runner_of(model: str) -> Runner:
    """The engine's runner of a model in float32."""
    if model == "starter":
        source = ModelSource(STARTER_ID, STARTER)
        return load(LoadOptions(source, device="cpu", dtype="float32", window=WINDOW)).runner
    shape = FAMILY[model]
    tensors = random_tensors(shape, torch.float32, torch.device("cpu"), SEED)
    return TorchRunner(our_model(shape, tensors, TorchOps()), SLOTS, WINDOW)


def step_of(lengths: Sequence[int], sampling: Sampling | None = None) -> Step:
    """A pass over spans of these lengths, each of a sequence that is `CONTEXT` tokens long; all want a token."""
    spans = tuple(Span(slot, CONTEXT, length) for slot, length in enumerate(lengths))
    many = len(spans)
    return Step(
        spans,
        tuple(range(10, 10 + sum(lengths))),
        (True,) * many,
        (None,) * many,
        (sampling,) * many,
        ((),) * many,
        (1,) * many,
        (0,) * many,
    )


def alternate(runner: Runner, sides: Sequence[Sequence[Step]]) -> list[list[float]]:
    """Processor seconds of each side in each round."""
    taken: list[list[float]] = [[] for _ in sides]
    for turn in range(ROUNDS + 1):
        for side, steps in zip(taken, sides, strict=True):
            began = time.process_time()
            for step in steps:
                runner.run(step)
            if turn:  # the first touches memory
                side.append(time.process_time() - began)
    return taken


def main(arguments: Sequence[str]) -> int:
    """Measure, write rows, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for batching.jsonl; rows are appended")
    parser.add_argument("models", nargs="*", default=["starter", "tiny"], help="starter, or a shape's name")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    run = Run.of(arguments, "cpu, one thread", SEED, module="benchmarks.batching")
    writer = RowWriter(options.out, "batching")

    def tell(question: str, model: str, value: float, unit: str, backend: str, timing: Timing, base: Timing) -> None:
        writer.write(
            Row(
                question=question,
                model=model,
                dtype="float32",
                measured=True,
                value=round(value, 3),
                unit=unit,
                backend=backend,
                detail={
                    "context": CONTEXT,
                    "together_ms": round(timing.median * 1e3, 3),
                    "apart_ms": round(base.median * 1e3, 3),
                },
                n=timing.n,
                torch=run.torch,
                **run.shared(),
            )
        )

    for model in options.models:
        runner = runner_of(model)
        torch.set_num_threads(1)  # loading chooses for a whole machine
        for name, (together, apart) in COMPARED.items():
            sides = [[step_of(together)], [step_of(lengths) for lengths in apart]]
            one, many = (Timing.of(taken) for taken in alternate(runner, sides))
            tell("one pass, as a part of the same apart", model, one.median / many.median, "ratio", name, one, many)
        for name, sampling in (("temperature", Sampling()), ("top_p", Sampling(0.8, top_p=0.95, top_k=50))):
            drawn, greedy = (
                Timing.of(taken)
                for taken in alternate(runner, [[step_of(DECODE, sampling)] * 4, [step_of(DECODE)] * 4])
            )
            more = (drawn.median - greedy.median) / 4 * 1e3
            tell("what drawing a token adds to it", model, more, "ms", name, drawn, greedy)
    print(text_table(writer.rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
