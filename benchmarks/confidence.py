"""What a completion's confidence says of it: exact match and similarity by the mean log-probability of its tokens.

`python -m benchmarks.confidence --out DIR --recording FILE [--holes N] WHEEL_OR_FOLDER ...` reads generations that
`benchmarks.shaping` kept, shapes them by our rules, and sorts what would be shown by confidence, in tenths; then by where the
cursor stands: in code, a string, a comment or a text of several lines, in the middle of its line or not, and by whether the
model was as sure as `LEAST_IN_PROSE` says. The defaults of the setting `min_confidence`, and where a completion is not
wanted, come from here.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import defaultdict
from collections.abc import Sequence
from math import exp
from pathlib import Path
from statistics import fmean

from benchmarks.report import text_table
from benchmarks.rows import Detail, Row, RowWriter, Run
from benchmarks.shaping import MAX_TOKENS, generations
from engine.models import STARTER_ID
from lsp_server.calibration import LEAST_IN_PROSE
from lsp_server.evaluation.command import Options, cut_holes
from lsp_server.evaluation.holes import Hole
from lsp_server.evaluation.runner import Result, reshape, window_of
from lsp_server.evaluation.tape import Recording
from lsp_server.reasons import Reason
from lsp_server.rules.lexing import surroundings
from lsp_server.shaping import ALL_RULES, CLOSERS, wanted

PARTS = 10


def confidence(recording: Recording, tokens: int) -> float:
    """The mean log-probability of the first tokens, as the server has it of what it read."""
    logprobs = [logprob for _, piece in recording.pieces for logprob in piece]
    return fmean(logprobs[:tokens])


def place_of(hole: Hole, *, sure: bool) -> str:
    """Where the cursor stands, in words."""
    window = window_of(hole)
    inside = surroundings(hole.language, window.prefix, window.suffix).inside
    where = "code" if not inside else "comment" if inside == "#" else "text" if len(inside) == 3 else "string"
    if not CLOSERS.issuperset(window.rest_of_line):
        return f"{where}, in the middle of a line"
    return f"{where}, {'sure' if sure else 'unsure'}"


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
        if recording is None or wanted(window_of(hole)) is Reason.MID_WORD:
            continue
        result = reshape(hole, recording, ALL_RULES)
        if result.text and result.exact is not None:
            shown.append((confidence(recording, int(result.tokens)), result))
    shown.sort(key=lambda each: each[0])
    groups: list[tuple[str, Detail, list[Result]]] = []
    for part in range(PARTS):
        some = shown[part * len(shown) // PARTS : (part + 1) * len(shown) // PARTS]
        bounds: Detail = {"from": round(some[0][0], 3), "to": round(some[-1][0], 3)}
        groups.append(("confidence: exact match of what is shown", bounds, [result for _, result in some]))
    places: dict[str, list[Result]] = defaultdict(list)
    for value, result in shown:
        places[place_of(result.hole, sure=100 * exp(value) >= LEAST_IN_PROSE)].append(result)
    for place, results in sorted(places.items()):
        groups.append(("confidence: exact match by place", {"place": place, "sure_from": LEAST_IN_PROSE}, results))
    writer = RowWriter(options.out, "confidence")
    for question, about, results in groups:
        writer.write(
            Row(
                question=question,
                model=STARTER_ID,
                dtype="float32",
                measured=True,
                value=round(100 * fmean(result.exact or 0.0 for result in results), 2),
                unit="%",
                detail={
                    **about,
                    "similarity": round(100 * fmean(result.similarity or 0.0 for result in results), 2),
                    "over_generation": round(100 * fmean(result.overrun or 0.0 for result in results), 2),
                    "max_tokens": MAX_TOKENS,
                },
                n=len(results),
                torch=run.torch,
                **run.shared(),
            )
        )
    print(text_table(writer.rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
