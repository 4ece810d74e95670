"""Whether pieces of other files help a model, and where they stand best: before the FIM block, or in its prefix.

`python -m benchmarks.context --out DIR [--holes N] [--model DIR] WHEEL_OR_FOLDER ...` completes the same holes without
context, with it outside and with it inside of the FIM block, in this process. Other files of the hole's folder are taken as
if they were open. The document's own path goes along wherever context does. Differences are paired by hole; intervals are
95 %, by bootstrap over files.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.report import text_table
from benchmarks.rows import Row, RowWriter, Run, per_cent
from engine.fim import Budget, Document, Layout, Prompt, Snippet, lay_out
from engine.generation import Finish, Generation
from engine.loading import LoadOptions, load
from engine.models import STARTER, ModelSource, locate
from engine.tokenizer import Tokenizer
from lsp_server.evaluation.command import Options, cut_holes
from lsp_server.evaluation.folders import Folders
from lsp_server.evaluation.holes import Hole
from lsp_server.evaluation.report import MEASURES, differences, measures
from lsp_server.evaluation.runner import Result, judge, window_of
from lsp_server.evaluation.sources import read_sources
from lsp_server.features.neighbours import budget_of
from lsp_server.shaping import Shaper
from tests.harness.inprocess import InProcessEngine

MAX_TOKENS = 32
ASKED = ("exact", "similarity", "overrun", "broken", "shown")
WAYS = ("without", "outside", "inside")


def inside(prompt: Prompt, tokenizer: Tokenizer) -> Prompt:
    """The head moved behind the mark of the prefix."""
    mark = tokenizer.control.fim_prefix
    assert mark is not None
    at = prompt.ids.index(mark)
    return replace(prompt, ids=[mark, *prompt.ids[:at], *prompt.ids[at + 1 :]])


def complete(
    engine: InProcessEngine, tokenizer: Tokenizer, holes: Sequence[Hole], folders: Folders, window: int
) -> dict[str, list[Result]]:
    """Holes in every way; when it is interrupted, those that are done."""
    numbers, found = itertools.count(1), {way: list[Result]() for way in WAYS}
    budget = Budget.of(window, MAX_TOKENS)
    with suppress(KeyboardInterrupt):
        for done, hole in enumerate(holes):
            results = _in_every_way(engine, tokenizer, hole, folders, budget, numbers)
            for way, result in results.items():
                found[way].append(result)
            if done % 50 == 49:
                print(f"{done + 1} of {len(holes)}", file=sys.stderr, flush=True)
    return {way: results[: min(map(len, found.values()))] for way, results in found.items()}


def _in_every_way(
    engine: InProcessEngine,
    tokenizer: Tokenizer,
    hole: Hole,
    folders: Folders,
    budget: Budget,
    numbers: Iterator[int],
) -> dict[str, Result]:
    around, pieces = window_of(hole), folders.around(hole)
    plain = Document(around.prefix, around.suffix)
    with_it = replace(plain, path=hole.path, context=[Snippet(path, text) for path, text in pieces])
    prompts = {"without": lay_out(tokenizer, plain, Layout.ANCHORED, budget, heal=True)}
    prompts["outside"] = lay_out(tokenizer, with_it, Layout.ANCHORED, budget, heal=True)
    prompts["inside"] = inside(prompts["outside"], tokenizer)
    begun = {
        way: Generation(
            id=next(numbers), tokenizer=tokenizer, prompt=prompt.ids, max_tokens=MAX_TOKENS,
            ends_at=tokenizer.is_control, held=prompt.held,
        )
        for way, prompt in prompts.items()
    }  # fmt: skip
    ran = engine.run(list(begun.values()))
    results = {}
    for way, generation in begun.items():
        said = ran[generation.id]
        shaper = Shaper(around, hole.language)
        enough = shaper.feed(said.text).enough
        text, reason = shaper.finish(cut_short=not enough and said.finish is Finish.LENGTH)
        results[way] = judge(hole, text, reason, tokens=len(generation.generated))
    return results


def main(arguments: Sequence[str]) -> int:
    """Complete, write rows, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.context", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for context.jsonl; rows are appended")
    parser.add_argument("--holes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", help="a model directory or id; the starter if left out")
    parser.add_argument("--language", default="python")
    parser.add_argument("paths", nargs="+", type=Path, help="folders or wheels that the model was not trained on")
    options = parser.parse_args(arguments)
    run = Run.of(arguments, "cpu", options.seed, module="benchmarks.context")
    model = locate(options.model)
    source = ModelSource(model.id, model.directory if options.model else STARTER)
    loaded = load(LoadOptions(source, device="cpu", dtype="float32", kv_memory=128 * 2**20))
    torch.set_num_threads(options.threads)
    holes = cut_holes(Options(tuple(options.paths), options.holes, options.seed, languages=(options.language,)))
    window = loaded.runner.window
    folders = Folders(read_sources(options.paths), budget_of(window))
    holes = [hole for hole in holes if folders.around(hole)]
    tokenizer = Tokenizer(source.directory / "tokenizer.json")
    results = complete(InProcessEngine(loaded), tokenizer, holes, folders, window)
    writer = RowWriter(options.out, "context")
    for way, each in results.items():
        gains = differences(each, results["without"])
        for measure, value in measures(each).items():
            if measure not in ASKED:
                continue
            writer.write(
                Row(
                    question=f"context of other files: {MEASURES[measure]}",
                    model=source.id,
                    dtype="float32",
                    measured=True,
                    value=round(100 * value.mean, 2),
                    unit="%",
                    backend=way,
                    detail={
                        "holes": len(each),
                        "repositories": len({result.hole.path.split("/")[0] for result in each}),
                        "window": window,
                        **per_cent(value),
                        **per_cent(gains[measure], "more_than_without"),
                    },
                    n=value.n,
                    torch=run.torch,
                    **run.shared(),
                )
            )
    print(text_table(writer.rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
