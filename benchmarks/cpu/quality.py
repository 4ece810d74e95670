"""`python -m benchmarks.cpu.quality --out DIR`: what fewer bits cost, as exact match of the rest of the line.

Holes in standard library modules, filled by the whole engine, greedily, at each precision. The modules may have been among
what the model was trained on: the differences count, not the figures themselves.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

from benchmarks.report import text_table
from benchmarks.rows import Row, RowWriter, Run
from engine.models import STARTER, STARTER_ID
from engine.training.score import Cursor, bootstrap, matches
from tests.harness.inprocess import InProcessEngine

MODULES = (
    "argparse", "ast", "bisect", "calendar", "cmd", "codecs", "configparser", "csv", "difflib", "dis", "doctest",
    "fileinput", "fractions", "ftplib", "getopt", "gettext", "gzip", "heapq", "imaplib", "inspect", "ipaddress", "locale",
    "mailbox", "netrc", "optparse", "pdb", "pickle", "platform", "plistlib", "poplib", "pprint", "queue", "random", "sched",
    "shelve", "shlex", "shutil", "smtplib", "socketserver", "statistics", "string", "tarfile", "textwrap", "timeit",
    "tokenize", "traceback", "uuid", "wave", "zipfile", "zipapp",
)  # fmt: skip
PRECISIONS = ("float32", "bfloat16", "int8", "int4")
SEED = 11
PREFIX, SUFFIX = 1_200, 300
"""Characters a side: enough for a line, short enough for hundreds of holes."""


def holes(count: int) -> list[Cursor]:
    """`count` of them, spread evenly over the modules; a cursor stands before a character that is no blank."""
    rng = np.random.default_rng(SEED)
    found = []
    for number in range(count):
        name = MODULES[number % len(MODULES)]
        text = inspect.getsource(import_module(name))
        at = int(rng.integers(len(text)))
        while text[at].isspace():
            at = int(rng.integers(len(text)))
        end = text.find("\n", at)
        found.append(Cursor("stdlib", "python", name, text, at, len(text) if end < 0 else end))
    return found


def answers(directory: Path, precision: str, cursors: Sequence[Cursor]) -> list[str]:
    """What the engine writes at each cursor, up to the end of the line."""
    engine = InProcessEngine.of(directory, dtype=precision)
    written = []
    for cursor in cursors:
        before, after = cursor.text[max(0, cursor.at - PREFIX) : cursor.at], cursor.text[cursor.end :][:SUFFIX]
        done = engine.complete(prompt=before, suffix=after, max_tokens=32, stop=["\n"])
        written.append(done.text)
    return written


def main(arguments: Sequence[str]) -> int:
    """Fill the holes, write rows, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu.quality", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for quality.jsonl; rows are appended")
    parser.add_argument("--model", type=Path, default=STARTER, help="a model directory; default: the built-in one")
    parser.add_argument("--holes", type=int, default=400)
    options = parser.parse_args(arguments)
    run = Run.of(arguments, "cpu", SEED, module="benchmarks.cpu.quality")
    writer = RowWriter(options.out, "quality")
    cursors = holes(options.holes)
    clusters = [cursor.path for cursor in cursors]
    reference = None
    for precision in PRECISIONS:
        hits = matches(cursors, answers(options.model, precision, cursors))
        if reference is None:
            reference = hits
        lost = bootstrap(reference - hits, clusters)
        writer.write(
            Row(
                question="exact match of the rest of the line",
                dtype=precision,
                measured=True,
                model=STARTER_ID if options.model == STARTER else options.model.name,
                value=round(100 * float(hits.mean()), 2),
                unit="%",
                n=len(cursors),
                detail={"points_lost": round(lost.value, 2), "low": round(lost.low, 2), "high": round(lost.high, 2)},
                torch=run.torch,
                **run.shared(),
            )
        )
    print(text_table(writer.rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
