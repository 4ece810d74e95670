"""The commands: corpus, train, card, score. Thin: each parses its flags and calls one function."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command -> exit status."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="python -m engine.training", description="Make, measure and tune the starter model."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _corpus_flags(commands.add_parser("corpus", help="fetch the manifest's packages and pack them into one file"))
    _train_flags(commands.add_parser("train", help="train a model from a packed corpus"))
    card = commands.add_parser("card", help="complete a trained folder: model card, loss curve, tokenizer_config.json")
    card.add_argument("folder", type=Path)
    _score_flags(commands.add_parser("score", help="rest-of-line exact match on held-out packages"))
    flags = parser.parse_args(arguments)
    run = {"corpus": _corpus, "train": _train, "card": _card, "score": _score}[flags.command]
    return run(flags, started)


def _corpus_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="the packed file to write")
    parser.add_argument("--manifest", type=Path, help="another manifest than the project's own")
    parser.add_argument("--cache", type=Path, help="where downloads are kept (default: beside the packed file)")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1))


def _corpus(flags: argparse.Namespace, _started: float) -> int:
    from engine.training import corpus, manifest

    wanted = manifest.load(flags.manifest or manifest.DEFAULT)
    cache = flags.cache or flags.out.parent / "downloads"
    corpus.build(wanted, flags.out, cache, workers=flags.workers)
    return 0


def _train_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, required=True, help="a packed corpus")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; at most 8 files of 15 MB")
    parser.add_argument("--resume", type=Path, help="an earlier output folder to go on from")
    parser.add_argument("--seconds", type=float, default=540.0, help="wall time, everything included (default 540)")
    parser.add_argument(
        "--steps", type=int, default=0, help="so many steps instead, for a run that can be repeated exactly"
    )
    parser.add_argument(
        "--installed", action="store_true", help="add the manifest's installed packages found on this machine"
    )
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:N (default: cuda where there is one)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=0, help="windows a step")
    parser.add_argument("--micro", type=int, default=0, help="windows in one forward pass")
    parser.add_argument("--length", type=int, default=0, help="tokens a window")
    parser.add_argument(
        "--decay", type=float, default=-1.0, help="share of the run in which the rate decays; 0 to be continued"
    )
    parser.add_argument("--workers", type=int, default=-1, help="processes that prepare windows")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile")
    parser.add_argument(
        "--score-holes", type=int, default=-1, help="Python holes to score at the end (default: 600 on a GPU)"
    )


def _train(flags: argparse.Namespace, started: float) -> int:
    from engine.training import runs

    return runs.train(flags, started)


def _card(flags: argparse.Namespace, _started: float) -> int:
    from engine.training import runs

    return runs.finish(flags.folder)


def _score_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", type=Path, nargs="+", help="model folders; the first is compared with each of the others"
    )
    parser.add_argument("--corpus", type=Path, required=True, help="the packed corpus with the held-out packages")
    parser.add_argument("--holes", type=int, default=2_000, help="per language")
    parser.add_argument("--languages", default="python", help="comma-separated, or all")
    parser.add_argument("--layouts", default="psm,spm,anchored")
    parser.add_argument("--window", type=int, default=2_048, help="tokens; smaller is faster on a CPU")
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--device", default="")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--record", action="store_true", help="put the figures into the first model's record and card")


def _score(flags: argparse.Namespace, _started: float) -> int:
    from engine.training import runs

    return runs.score_and_record(flags)
