"""What the commands do, put together from the parts."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import torch

from engine.training import card, corpus, export, manifest, packed, score
from engine.training.bpe import Vocabulary
from engine.training.console import say
from engine.training.model import Shape
from engine.training.record import Record
from engine.training.samples import Layout
from engine.training.trainer import Plan, Trainer

_QUICK_LAYOUTS = (Layout.ANCHORED, Layout.SPM, Layout.PSM)


def pick_device(name: str) -> torch.device:
    """The device of that name; the GPU, where there is one, for an empty name."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def plan_of(flags: argparse.Namespace, device: torch.device) -> Plan:
    """The machine's usual plan with what the flags say otherwise."""
    plan = Plan.for_device(device)
    plan.seconds, plan.steps, plan.seed = flags.seconds, flags.steps, flags.seed
    plan.batch, plan.micro = flags.batch or plan.batch, flags.micro or plan.micro
    plan.length = flags.length or plan.length
    if flags.decay >= 0:
        plan.schedule = replace(plan.schedule, decay=flags.decay)
    if flags.workers >= 0:
        plan.workers = flags.workers
    plan.compile = plan.compile and not flags.no_compile
    return plan


def train(flags: argparse.Namespace, started: float) -> int:
    """`train`: the budget's clock runs from `started`, the start of the command."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    data = packed.read(flags.corpus)
    packaged = len(data.documents)
    added: dict[str, int] = {}
    if flags.installed:
        added = corpus.add_installed(data, manifest.load(), workers=min(12, os.cpu_count() or 1))
        say(f"added {sum(added.values()) / 1e6:.1f} MB of installed packages: {', '.join(sorted(added))}")
    vocabulary = Vocabulary(data.tokenizer)
    unique = data.figures["tokens"]["training"] + vocabulary.count([d.text for d in data.documents[packaged:]])
    device = pick_device(flags.device)
    plan = plan_of(flags, device)
    plan.shape = replace(plan.shape, vocabulary=vocabulary.size)
    trainer = Trainer(
        data, plan, device, flags.out, resume=flags.resume, started=started,
        describe={"tokens_unique": unique, "installed": added},
    )  # fmt: skip
    say(
        f"{trainer.model.shape.parameters / 1e6:.1f} M parameters, {unique / 1e6:.1f} M unique tokens, "
        f"ready after {trainer.elapsed():.0f} s"
    )
    record = trainer.run()
    holes = flags.score_holes if flags.score_holes >= 0 else (600 if device.type == "cuda" else 0)
    if holes and data.part(heldout=True):
        model = trainer.model.eval()
        cursors = score.draw(data, holes, ["python"])
        figures = score.measure(
            {"starter": (model, vocabulary)},
            cursors,
            _QUICK_LAYOUTS,
            batch=128 if device.type == "cuda" else 8,
            tell=say,
        )
        record.add("score", **figures)
    record.add("end", seconds=round(trainer.elapsed(), 1))
    record.write(flags.out)
    card.write(flags.out, record)
    size = sum(file.stat().st_size for file in export.weight_files(flags.out))
    say(f"{flags.out}: {size / 1e6:.1f} MB of weights, {trainer.tokens / 1e6:.1f} M tokens, {trainer.elapsed():.0f} s")
    return 0


def finish(folder: Path) -> int:
    """`card`: write again what can be made from the record."""
    record = Record.read(folder)
    card.write(folder, record)
    (folder / "loss.svg").write_text(card.curve_svg(record), encoding="utf-8")
    export.write_tokenizer_config(folder, Shape.of_config(json.loads((folder / "config.json").read_text())).positions)
    return 0


def score_models(flags: argparse.Namespace) -> dict[str, object]:
    """Figures for the folders in `flags.models`."""
    data = packed.read(flags.corpus)
    heldout = sorted({d.language for d in data.part(heldout=True)})
    languages = heldout if flags.languages == "all" else flags.languages.split(",")
    device = pick_device(flags.device)
    models = {folder.resolve().name: score.load(folder, str(device)) for folder in flags.models}
    cursors = score.draw(data, flags.holes, languages, flags.seed)
    batch = flags.batch or (128 if device.type == "cuda" else 8)
    layouts = [Layout(name) for name in flags.layouts.split(",")]
    return score.measure(models, cursors, layouts, window=flags.window, batch=batch, tell=say)


def score_and_record(flags: argparse.Namespace) -> int:
    """`score`."""
    if flags.threads:
        torch.set_num_threads(flags.threads)
    figures = score_models(flags)
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if flags.record:
        record = Record.read(flags.models[0])
        record.add("score", **figures)
        record.write(flags.models[0])
        card.write(flags.models[0], record)
    return 0
