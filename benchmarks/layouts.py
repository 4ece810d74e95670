"""Layouts and suffix budgets, by quality: the same holes, laid out in each way, completed and shaped.

`python -m benchmarks.layouts --out DIR [--holes N] [--suffixes 128,256,512] WHEEL_OR_FOLDER ...` runs the starter model in
this process, several holes together. What a key costs in each layout is asked by `benchmarks.keystrokes`. Intervals are
95 %, by bootstrap over files; differences to the first layout and budget are paired by hole.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from rich.progress import track

from benchmarks.report import text_table
from benchmarks.rows import Detail, Row, RowWriter, Run
from engine import fim
from engine.fim import Budget, Layout
from engine.models import STARTER, STARTER_ID
from lsp_server.evaluation.command import Options, cut_holes
from lsp_server.evaluation.holes import Hole, Kind
from lsp_server.evaluation.report import differences, measures
from lsp_server.evaluation.runner import Result, reshape, window_of
from lsp_server.evaluation.tape import Recording
from lsp_server.shaping import ALL_RULES
from tests.harness.inprocess import InProcessEngine

LAYOUTS = (Layout.ANCHORED, Layout.SPM, Layout.PSM)
MAX_TOKENS, TOGETHER = 48, 8
KINDS = (Kind.REST_OF_LINE, Kind.INSIDE_LINE, Kind.LINE, Kind.STATEMENT, Kind.BLOCK, Kind.SPAN)


def budget_with(suffix: int) -> Callable[[int, int], Budget]:
    """The usual budget with another share for the suffix."""
    usual = fim.Budget.of

    def of(window: int, max_tokens: int) -> Budget:
        return dataclasses.replace(usual(window, max_tokens), suffix=suffix)

    return of


def complete(engine: InProcessEngine, holes: Sequence[Hole], layout: Layout, what: str) -> tuple[list[Result], Detail]:
    """Complete and shape the holes -> results, and the mean of tokens held back for healing."""
    results: list[Result] = []
    healed = 0
    for start in track(range(0, len(holes), TOGETHER), what, console=Console(stderr=True), transient=True):
        some = holes[start : start + TOGETHER]
        windows = [window_of(hole) for hole in some]
        asked = [
            {"prompt": w.prefix, "suffix": w.suffix, "max_tokens": MAX_TOKENS, "starfill": {"layout": str(layout)}}
            for w in windows
        ]
        for hole, window, done in zip(some, windows, engine.together(asked), strict=True):
            recording = Recording([(done.text, [0.0] * len(done.tokens))], finish=str(done.finish))
            results.append(reshape(hole, recording, ALL_RULES, window))
            healed += done.admitted.healed
    return results, {"healed_tokens": round(healed / len(holes), 2)}


def main(arguments: Sequence[str]) -> int:
    """Complete in every way, write rows, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layouts", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for layouts.jsonl; rows are appended")
    parser.add_argument("--holes", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--suffixes", default="128,256,512", help="tokens of suffix to try, comma between")
    parser.add_argument("--language", default="python")
    parser.add_argument("paths", nargs="+", type=Path, help="folders or wheels")
    options = parser.parse_args(arguments)
    run = Run.of(arguments, "cpu", options.seed, module="benchmarks.layouts")
    wanted = Options(tuple(options.paths), options.holes, options.seed, kinds=KINDS, languages=(options.language,))
    holes = cut_holes(wanted)
    engine = InProcessEngine.of(STARTER, dtype="float32")
    writer, first = RowWriter(options.out, "layouts"), None
    for suffix in map(int, options.suffixes.split(",")):
        for layout in LAYOUTS:
            with patch("engine.intake.Budget.of", budget_with(suffix)):
                results, costs = complete(engine, holes, layout, f"{layout} {suffix}")
            first = first or results
            gains, found = differences(results, first), measures(results)
            for measure in ("exact", "similarity"):
                value, gain = found[measure], gains[measure]
                detail: Detail = {
                    "suffix": suffix, "holes": len(holes), "language": options.language, **costs,
                    "low": round(100 * value.low, 2), "high": round(100 * value.high, 2),
                    "minus_first": round(100 * gain.mean, 2), "minus_first_low": round(100 * gain.low, 2),
                    "minus_first_high": round(100 * gain.high, 2),
                }  # fmt: skip
                writer.write(
                    Row(
                        question=f"layouts: {measure}",
                        model=STARTER_ID,
                        dtype="float32",
                        device=run.device,
                        measured=True,
                        value=round(100 * value.mean, 2),
                        unit="%",
                        command=run.command,
                        backend=str(layout),
                        detail=detail,
                        n=value.n,
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
