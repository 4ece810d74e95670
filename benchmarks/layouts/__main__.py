"""`python -m benchmarks.layouts --out DIR [--recording FILE] WHEEL_OR_FOLDER ...`: which layout, and how much suffix.

Every hole is completed by the starter model in every way, in this process; what it said is kept in the recording, so that a
run may be ended and taken up again. `--more` holes are completed in the ways that `--also` names. Intervals are 95 %, by
bootstrap over files; differences to the default are paired by hole. What a key costs in each way is asked by
`benchmarks.keystrokes`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.layouts.generations import KINDS, Generations, Recordings
from benchmarks.layouts.scores import DTYPE, rows_of, shaped
from benchmarks.layouts.ways import LAYOUTS, UNHEALED, Way, healed_ways, window_for
from benchmarks.report import text_table
from benchmarks.rows import RowWriter, Run
from engine.fim import Layout
from engine.loading import LoadOptions, load
from engine.models import STARTER, STARTER_ID, ModelSource
from engine.tokenizer import Tokenizer
from lsp_server.evaluation.command import Options, cut_holes
from tests.harness.inprocess import InProcessEngine

PIECE, SLOTS = 512, 64


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layouts", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for layouts.jsonl; rows are appended")
    parser.add_argument("--holes", type=int, default=2_000, help="holes that are completed in every way")
    parser.add_argument("--more", type=int, default=4_000, help="holes that are completed in the ways of --also")
    parser.add_argument(
        "--also",
        default="anchored 128,anchored 224,anchored 256",
        help="the ways that --more is for, comma between",
    )
    parser.add_argument("--suffixes", default="128,224,256,512", help="tokens of suffix to try, comma between")
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="layouts to try, comma between")
    parser.add_argument("--unhealed", type=int, default=400, help="holes that are completed without healing, too")
    parser.add_argument("--recording", type=Path, help="where generations are kept")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", action="store_true", help="shape what is recorded, ask for nothing")
    parser.add_argument("paths", nargs="+", type=Path, help="folders or wheels that the model was not trained on")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Complete in every way, write rows, print a table; 1 where another way is better by more than a point."""
    options = options_of(arguments)
    layouts = [Layout(each) for each in options.layouts.split(",")]
    ways = healed_ways([int(each) for each in options.suffixes.split(",")], layouts)
    unhealed = [way for way in UNHEALED if way.layout in layouts]
    asked = Options(tuple(options.paths), max(options.holes, options.more), options.seed, KINDS, ("python",))
    holes = cut_holes(asked)
    recordings = Recordings(options.recording)
    if not options.replay:
        first, then = min(options.unhealed, options.holes), options.holes
        stages = [(holes[:first], [*ways, *unhealed]), (holes[first:then], ways)]
        stages.append((holes[then : options.more], [way for way in ways if way.name in options.also.split(",")]))
        generations = Generations(_engine(ways, options.threads), Tokenizer(STARTER / "tokenizer.json"), recordings)
        for stage, (some, wanted) in enumerate(stages):
            for done in generations.record(some, wanted):
                if done % 100 == 0:
                    print(f"stage {stage}: {done} of {len(some)}", file=sys.stderr, flush=True)
    writer = RowWriter(options.out, "layouts")
    run = Run.of(arguments, "cpu", options.seed, module="benchmarks.layouts")
    for row in rows_of(shaped(holes, recordings, [*ways, *unhealed]), run):
        writer.write(row)
    print(text_table(writer.rows))
    return int(any(row.failed for row in writer.rows))


def _engine(ways: Sequence[Way], threads: int) -> InProcessEngine:
    with patch("engine.runner.MAX_SLOTS", SLOTS):
        loaded = load(LoadOptions(ModelSource(STARTER_ID, STARTER), "cpu", DTYPE, window_for(ways)))
    torch.set_num_threads(threads)
    return InProcessEngine(loaded, piece=PIECE)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
