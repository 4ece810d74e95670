"""What a completion's confidence says of it: exact match and similarity by the mean log-probability of its tokens.

`python -m benchmarks.confidence --out DIR --recording FILE [--holes N] WHEEL_OR_FOLDER ...` reads generations that
`benchmarks.shaping` kept, shapes them by our rules, and sorts what would be shown by confidence, in tenths. The default of
the setting `min_confidence` comes from here.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.report import text_table
from benchmarks.rows import Row, RowWriter, Run
from benchmarks.shaping import MAX_TOKENS, generations
from engine.models import STARTER_ID
from lsp_server.evaluation.command import Options, cut_holes
from lsp_server.evaluation.runner import Result, reshape
from lsp_server.evaluation.tape import Recording
from lsp_server.shaping import ALL_RULES

PARTS = 10


def confidence(recording: Recording, tokens: int) -> float:
    """The mean log-probability of the first tokens, as the server has it of what it read."""
    logprobs = [logprob for _, piece in recording.pieces for logprob in piece]
    return fmean(logprobs[:tokens])


def main(arguments: Sequence[str]) -> int:
    """Read, shape, sort, write rows, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.confidence", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for confidence.jsonl; rows are appended")
    parser.add_argument("--recording", type=Path, required=True)
    parser.add_argument("--holes", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("paths", nargs="+", type=Path, help="the folders or wheels that were recorded")
    options = parser.parse_args(arguments)
    run = Run.of(arguments, "cpu", options.seed, module="benchmarks.confidence")
    holes = cut_holes(Options(tuple(options.paths), options.holes, options.seed, languages=("python",)))
    said = asyncio.run(generations(holes, options.recording, ask=False))
    shown: list[tuple[float, Result]] = []
    for hole, recording in zip(holes, said, strict=True):
        if recording is None:
            continue
        result = reshape(hole, recording, ALL_RULES)
        if result.text and result.exact is not None:
            shown.append((confidence(recording, int(result.tokens)), result))
    shown.sort(key=lambda each: each[0])
    writer = RowWriter(options.out, "confidence")
    for part in range(PARTS):
        group = shown[part * len(shown) // PARTS : (part + 1) * len(shown) // PARTS]
        writer.write(
            Row(
                question="confidence: exact match of what is shown",
                model=STARTER_ID,
                dtype="float32",
                device=run.device,
                measured=True,
                value=round(100 * fmean(result.exact or 0.0 for _, result in group), 2),
                unit="%",
                command=run.command,
                detail={
                    "from": round(group[0][0], 3),
                    "to": round(group[-1][0], 3),
                    "similarity": round(100 * fmean(result.similarity or 0.0 for _, result in group), 2),
                    "max_tokens": MAX_TOKENS,
                },
                n=len(group),
                seed=options.seed,
                commit=run.commit,
                started=run.started,
                torch=run.torch,
                python=run.python,
            )
        )
    print(text_table(writer.rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
