"""Tuning on a user's own repository, or on instruction pairs: small models whole, larger ones by a low-rank adapter.

The model it starts from is never written to. The result goes to a folder of its own with a note of what it was made from; a
result that does not help on what was held out is not written. `engine.tuning` is the public command's side of it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from engine.instruct import NOTE, Form
from engine.sizes import human_size
from engine.training import export, languages, lora, score
from engine.training.batches import Classes, Ids, Mix, Windows
from engine.training.bpe import Vocabulary
from engine.training.console import Progress, say
from engine.training.model import Model, Shape
from engine.training.optimiser import Optimiser, Rates
from engine.training.packed import Corpus, Document, Source
from engine.training.pairs import Pairs
from engine.training.precision import mixed_precision
from engine.training.samples import Layout
from engine.training.schedule import Budget, Schedule
from engine.training.scrub import scrub

_WHOLE_LIMIT = 60_000_000  # parameters; larger models get an adapter
_HELDOUT_SHARE = 0.1


class TuneError(Exception):
    """Why a model cannot be tuned on this."""


@dataclass(frozen=True, slots=True)
class TunePlan:
    """What decides a tuning run."""

    minutes: float = 10.0
    steps: int = 0
    """If not 0, so many steps instead of minutes."""

    adapter: bool | None = None
    """None lets the model's size decide."""

    rank: int = 8
    alpha: float = 16.0
    length: int = 1_024
    batch: int = 4
    rates: Rates = field(default_factory=lambda: Rates(matrices=0.002, rest=0.0003))
    adapter_rate: float = 0.001
    seed: int = 1
    device: str = ""
    holes: int = 48


@dataclass(frozen=True, slots=True)
class Base:
    """The model that tuning starts from, as the result is to name it."""

    id: str
    revision: str | None = None
    fingerprint: str | None = None
    """What tells its weights from others of the same shape."""
    instruct: str | None = None
    """The form of instructions that it follows, which tuning on a repository leaves as it is."""
    terms: str | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """How good a model is on what was held out: nats a token of what is to be written, exact lines in per cent."""

    loss: float
    exact: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tuning run came to."""

    before: Measure
    after: Measure
    kept: bool
    adapter: bool
    steps: int


Excluded = Callable[[str], bool]
"""Whether a file stays out, by its path inside the repository."""


def collect(path: Path, excluded: Excluded = lambda _path: False) -> list[Document]:
    """Source files of a repository: what git does not ignore; generated and vendored ones out; secrets masked."""
    documents = []
    for file in sorted(_files(path)):
        inside = file.relative_to(path).as_posix()
        language = languages.language_of(inside)
        if (
            language is None
            or excluded(inside)
            or not file.is_file()
            or file.is_symlink()
            or file.stat().st_size > 1_000_000
        ):
            continue
        text = languages.normalise(file.read_bytes())
        if text is not None and languages.refusal(inside, text) is None:
            documents.append(Document(0, language, inside, scrub(text)[0]))
    return documents


def _files(path: Path) -> list[Path]:
    git = shutil.which("git")
    if git and (path / ".git").exists():
        # No hooks, no helpers of the repository's own: only its list of files.
        command = [git, "-c", "core.fsmonitor=false", "-C", str(path), "ls-files", "-z", "--cached", "--others"]
        command.append("--exclude-standard")
        found = subprocess.run(command, capture_output=True, check=False, timeout=120)
        if found.returncode == 0:
            return [path / name for name in found.stdout.decode("utf-8", "surrogateescape").split("\0") if name]
    return [f for f in path.rglob("*") if not any(part.startswith(".") for part in f.relative_to(path).parts)]


def split(documents: list[Document]) -> tuple[list[Document], list[Document]]:
    """Training and held-out files, by a hash of the path: the same split every time."""
    ranked = sorted(documents, key=lambda d: hashlib.sha256(d.path.encode()).digest())
    held = max(1, round(len(ranked) * _HELDOUT_SHARE))
    return ranked[held:], ranked[:held]


def tune(
    path: Path,
    model_folder: Path,
    out: Path,
    plan: TunePlan | None = None,
    *,
    base: Base | None = None,
    excluded: Excluded = lambda _path: False,
) -> Outcome:
    """Tune the model in `model_folder` on `path` (a folder, or a .jsonl file of pairs) and write the result to `out`.

    `base` is how the result names that model; its folder if left out. `excluded` keeps files of a repository out.
    """
    plan = plan or TunePlan()
    if out.exists() and any(out.iterdir()):
        raise TuneError(f"{out} is not empty; remove it, or undo the tuning there first")
    base = base or Base(str(model_folder.resolve()))
    device = torch.device(plan.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    shape = Shape.of_config(json.loads((model_folder / "config.json").read_text(encoding="utf-8")))
    adapter = plan.adapter if plan.adapter is not None else shape.parameters > _WHOLE_LIMIT
    _check_memory(shape, device, adapter=adapter)
    # Weights that are frozen need no more digits than they have.
    half = adapter and device.type == "cuda"
    model = export.read(model_folder, torch.bfloat16 if half else torch.float32).to(device)
    vocabulary = Vocabulary.read(model_folder / "tokenizer.json")
    length = min(plan.length, model.shape.positions)
    task = _task(path, vocabulary, length, plan, excluded)
    say("scoring before")
    before = task.measure(model, device)
    torch.manual_seed(plan.seed)
    if adapter:
        lora.attach(model, plan.rank, plan.alpha)
        optimiser = Optimiser(model, Rates(rest=plan.adapter_rate), muon=False)
    else:
        optimiser = Optimiser(model, plan.rates)
    steps = _train(model, optimiser, task, plan, device)
    say("scoring after")
    after = task.measure(model, device)
    outcome = Outcome(before, after, after.loss < before.loss, adapter, steps)
    if not outcome.kept:
        return outcome
    if adapter:
        lora.write(model, out, plan.rank, plan.alpha, base.id, base.revision)
    else:
        export.write(model, vocabulary.json, out)
        export.write_tokenizer_config(out, model.shape.positions)
    if isinstance(task, Pairs):
        base = replace(base, instruct=Form.ALPACA)
    files = sorted(file.name for file in out.iterdir())
    note = {
        "base": {"id": base.id, "revision": base.revision, "fingerprint": base.fingerprint},
        "instruct": base.instruct,
        "terms": base.terms,
        "files": [*files, NOTE],
        **asdict(outcome),
    }
    (out / NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    return outcome


def _check_memory(shape: Shape, device: torch.device, *, adapter: bool) -> None:
    """Refuse at once what cannot fit: weights, their gradients and moments, or frozen weights and little beside them."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        import psutil

        free = psutil.virtual_memory().available
    each = (2 if device.type == "cuda" else 4) if adapter else 16
    needed = shape.parameters * each * 1.1
    if needed > free:
        remedy = "" if adapter else "; an adapter takes less"
        raise TuneError(f"tuning this model takes {human_size(int(needed))}, {human_size(free)} are free{remedy}")


def _task(path: Path, vocabulary: Vocabulary, length: int, plan: TunePlan, excluded: Excluded) -> Pairs | Repository:
    if path.is_file():
        return Pairs(path, vocabulary, length, plan.batch, plan.seed)
    documents = collect(path, excluded)
    if len(documents) < 4:
        raise TuneError(f"{path}: {len(documents)} usable source files; at least 4 are needed")
    return Repository(path.resolve().name, documents, vocabulary, length, plan)


class Repository:
    """Holes in a repository's files."""

    def __init__(
        self, name: str, documents: list[Document], vocabulary: Vocabulary, length: int, plan: TunePlan
    ) -> None:
        training, heldout = split(documents)
        mix = Mix(package_power=1.0, python=_python_share(training), plain=0.04)
        self._windows = Windows(vocabulary, training, [name], length, mix, plan.seed)
        self._heldout = Windows(vocabulary, heldout, [name], length, mix, seed=7)
        self._vocabulary, self._plan, self._length = vocabulary, plan, length
        corpus = Corpus([Source(name, "own", "", "", "", heldout=True)], heldout, vocabulary.json)
        spoken = sorted({d.language for d in heldout})
        self._cursors = score.draw(corpus, -(-plan.holes // len(spoken)), spoken)

    def batch(self, step: int) -> tuple[Ids, Classes]:
        """Ids [batch, length + 1] and classes, for one step."""
        return self._windows.batch(step * self._plan.batch, self._plan.batch)

    def measure(self, model: Model, device: torch.device) -> Measure:
        """On the held-out files."""
        ids, classes = self._heldout.batch(0, 4)
        loss = middle_loss(model, ids, classes, device)
        model.eval()
        written = score.answers(model, self._vocabulary, self._cursors, Layout.ANCHORED, window=self._length)
        return Measure(loss, 100 * float(score.matches(self._cursors, written).mean()))


def _python_share(documents: list[Document]) -> float:
    sizes = [len(d.text) for d in documents]
    return sum(n for n, d in zip(sizes, documents, strict=True) if d.language == "python") / max(1, sum(sizes))


@torch.no_grad()
def middle_loss(model: Model, ids: npt.NDArray[Any], classes: npt.NDArray[Any], device: torch.device) -> float:
    """Mean loss of the tokens that are to be written, in nats."""
    total, count = 0.0, 0
    for row in range(len(ids)):
        tokens = torch.from_numpy(ids[row : row + 1].astype(np.int64)).to(device)
        weights = torch.from_numpy((classes[row : row + 1, 1:] == 2).astype(np.float32)).to(device)
        with mixed_precision(device):
            total += float(model.loss(tokens, weights))
        count += int(weights.sum())
    return total / max(1, count)


def _train(model: Model, optimiser: Optimiser, task: Pairs | Repository, plan: TunePlan, device: torch.device) -> int:
    schedule, budget = Schedule(warm_up=0.05, decay=0.6), Budget(plan.minutes * 60, plan.steps)
    weight_of = torch.tensor([0.0, 0.5, 1.0], device=device)
    started, step, share = time.monotonic(), 0, 0.0
    model.train()
    with Progress("tuning") as progress:
        while share < 1.0:
            ids, classes = task.batch(step)
            weights = weight_of[torch.from_numpy(classes[:, 1:].astype(np.int64)).to(device)]
            tokens = torch.from_numpy(ids.astype(np.int64)).to(device)
            with mixed_precision(device):
                loss = model.loss(tokens, weights) / weights.sum().clamp(min=1.0)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step(schedule.factor(share))
            step += 1
            share = budget.share(time.monotonic() - started, step)
            progress.show(share, f"loss {float(loss.detach()):.3f}")
    return step
