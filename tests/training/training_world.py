"""A small corpus out of the interpreter's own library, and the sizes of a model that trains on it in seconds."""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from pathlib import Path

from engine.training import bpe
from engine.training.bpe import Vocabulary
from engine.training.model import Shape
from engine.training.optimiser import Rates
from engine.training.packed import Corpus, Document, Source
from engine.training.trainer import Plan

_FILES = (
    "textwrap",
    "bisect",
    "heapq",
    "shlex",
    "cmd",
    "csv",
    "glob",
    "fnmatch",
    "sched",
    "queue",
    "string",
    "contextlib",
)


@dataclass(frozen=True, slots=True)
class World:
    corpus: Corpus
    vocabulary: Vocabulary


def make_world() -> World:
    root = Path(sysconfig.get_paths()["stdlib"])
    documents = []
    for number, name in enumerate(_FILES):
        text = (root / f"{name}.py").read_text(encoding="utf-8")
        documents.append(Document(int(number >= 10), "python", f"{name}.py", text))
    sources = [
        Source("trained", "stdlib", "3", "PSF-2.0", "test", heldout=False),
        Source("kept", "stdlib", "3", "PSF-2.0", "test", heldout=True),
    ]
    tokenizer = bpe.train([d.text for d in documents], size=700)
    figures = {"tokens": {"training": 1}, "characters": {"training": {"python": 1}}}
    return World(Corpus(sources, documents, tokenizer, figures), Vocabulary(tokenizer))


def tiny_plan(world: World, steps: int) -> Plan:
    return Plan(
        steps=steps, shape=Shape(world.vocabulary.size, width=64, layers=2, heads=2, inner=96, positions=128),
        length=128, batch=4, micro=2, rates=Rates(matrices=0.02, rest=0.01), heldout_windows=2,
    )  # fmt: skip
