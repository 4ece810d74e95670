"""One training run: from a packed corpus to a model folder, within a number of seconds or of steps, resumable.

What a resumed run needs is in the output folder itself: the weights and the record. The optimiser's state is not kept (it is
four times the weights); its moments fill again within the warm-up of the next call, which costs a few dozen steps.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.training import export
from engine.training.batches import Classes, Ids, Mix, Windows
from engine.training.bpe import Vocabulary
from engine.training.console import Progress, say
from engine.training.feed import Feed
from engine.training.model import Model, Shape
from engine.training.optimiser import Optimiser, Rates
from engine.training.packed import Corpus, Document
from engine.training.precision import mixed_precision
from engine.training.record import Record
from engine.training.schedule import Budget, Schedule

_LOG_EVERY = 10  # steps


@dataclass(slots=True)
class Plan:
    """All that decides a run. Batches are counted in windows of `length` tokens."""

    seconds: float = 540.0
    """From `started` to the last file written, everything included."""

    steps: int = 0
    """If not 0, so many optimiser steps, whatever time they take: such a run can be repeated exactly."""

    shape: Shape = field(default_factory=Shape)
    length: int = 2_048
    batch: int = 128
    micro: int = 32
    rates: Rates = field(default_factory=Rates)
    schedule: Schedule = field(default_factory=Schedule)
    mix: Mix = field(default_factory=Mix)
    middle_weight: float = 3.0
    seed: int = 1
    workers: int = 0
    compile: bool = False
    save_every: float = 150.0
    reserve: float = 20.0
    """Seconds at the end that are kept for writing (and, on a GPU, for scoring)."""

    heldout_windows: int = 16

    @classmethod
    def for_device(cls, device: torch.device) -> Plan:
        """Sizes that suit the machine."""
        cores = os.cpu_count() or 1
        if device.type == "cuda":
            return cls(micro=64, workers=max(1, min(12, cores - 3)), compile=True, reserve=45.0, heldout_windows=64)
        return cls(batch=8, micro=2, workers=0, heldout_windows=4, save_every=600.0)


class Trainer:
    """Owns the model, the optimiser and the record of one run. `started` is when the clock of the budget began."""

    def __init__(
        self, corpus: Corpus, plan: Plan, device: torch.device, out: Path, *, resume: Path | None = None,
        started: float | None = None, describe: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.device, self.out = plan, device, out
        self._started = time.monotonic() if started is None else started
        self._vocabulary = Vocabulary(corpus.tokenizer)
        self._progress = Progress("training")
        self.record = Record.read(resume) if resume else Record()
        names = [source.name for source in corpus.sources]
        training, heldout = corpus.part(heldout=False), corpus.part(heldout=True)
        windows = Windows(self._vocabulary, training, names, plan.length, plan.mix, plan.seed)
        before = self.record.last("state")
        self.step, self.tokens = int(before.get("step", 0)), int(before.get("tokens", 0))
        self._first_step, self._first_window = self.step, int(before.get("windows", 0))
        self._windows_used = self._first_window
        # Forks: must come before the first use of the device.
        self._feed = Feed(windows, plan.batch, self._first_window, plan.workers)
        self._heldout = self._make_heldout(heldout, names)
        torch.manual_seed(plan.seed)
        if plan.steps and device.type == "cuda":
            # Such a run is there to be repeated: gradients are summed in a fixed order.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_float32_matmul_precision("high")
        if resume:
            self.model = export.read(resume)
            if self.model.shape.vocabulary < self._vocabulary.size:
                raise ValueError(f"{resume}: its vocabulary is not that of the corpus")
        else:
            self.model = Model(plan.shape)
            self.model.initialise(plan.seed)
        self.model.to(device)
        self._optimiser = Optimiser(self.model, plan.rates)
        self._losses: list[Tensor] = []
        self._norm = torch.zeros(())
        self._said = (self.tokens, self.elapsed())
        self._class_weights = torch.tensor([0.0, 1.0, plan.middle_weight], device=device)
        self._loss: Callable[[Tensor, Tensor], Tensor] = self.model.loss
        if plan.compile:
            self._loss = torch.compile(self.model.loss, dynamic=False)
        self.record.add(
            "run", resumed=bool(resume), device=_device_name(device), torch=torch.__version__,
            parameters=self.model.shape.parameters,
            plan={**asdict(plan), "shape": asdict(self.model.shape)}, corpus=corpus.figures,
            sources=[asdict(source) for source in corpus.sources],
            characters=sum(len(d.text) for d in training), **(describe or {}),
        )  # fmt: skip

    def _make_heldout(self, documents: list[Document], names: list[str]) -> tuple[Ids, Classes] | None:
        if not documents or not self.plan.heldout_windows:
            return None
        windows = Windows(self._vocabulary, documents, names, self.plan.length, self.plan.mix, seed=7)
        return windows.batch(0, self.plan.heldout_windows)

    def elapsed(self) -> float:
        """Seconds since the budget's clock began."""
        return time.monotonic() - self._started

    def run(self) -> Record:
        """Train until the budget is spent, writing now and then; the folder is complete whenever this returns."""
        plan = self.plan
        try:
            begun = self.elapsed()
            budget = Budget(max(1.0, plan.seconds - plan.reserve - begun), plan.steps)
            saved = begun
            share = 0.0
            while share < 1.0:
                factor = plan.schedule.factor(share)
                self._train_step(next(self._feed), factor)
                if self.step - self._first_step == 1:
                    say(f"first step after {self.elapsed():.0f} s")
                share = budget.share(self.elapsed() - begun, self.step - self._first_step)
                if self.step - self._first_step <= 3 or self.step % _LOG_EVERY == 0 or share >= 1.0:
                    self._log(factor)
                self._progress.show(share)
                if self.elapsed() - saved > plan.save_every and share < 0.97:
                    self.save()
                    saved = self.elapsed()
            self._evaluate()
            self.save()
        finally:
            self._feed.close()
        return self.record

    def _train_step(self, batch: tuple[Ids, Classes], factor: float) -> None:
        """One optimiser step; its loss (mean per token of weight 1) and gradient norm are read when they are logged."""
        ids, weights = self._to_device(batch)
        total = weights.sum()
        loss = torch.zeros((), device=self.device)
        for at in range(0, len(ids), self.plan.micro):
            piece = slice(at, at + self.plan.micro)
            part = self._forward(ids[piece], weights[piece])
            (part / total).backward()  # type: ignore[no-untyped-call]
            loss += part.detach() / total
        self._norm = self._optimiser.step(factor)
        self._losses.append(loss)
        self.step += 1
        self.tokens += ids.shape[0] * self.plan.length
        self._windows_used += ids.shape[0]
        if len(self._losses) > 1:
            # The host stays one step ahead of a GPU, no further: the clock decides when the run ends.
            self._losses[-2].item()

    def _forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        try:
            with mixed_precision(self.device):
                return self._loss(ids, weights)
        except RuntimeError as error:
            if self.step > self._first_step or not self.plan.compile or isinstance(error, torch.OutOfMemoryError):
                raise
            # A slower run is worth more than none: the machine may be lent for this call only.
            say(f"torch.compile failed ({type(error).__name__}); going on without it")
            self.plan.compile, self._loss = False, self.model.loss
            with mixed_precision(self.device):
                return self._loss(ids, weights)

    def _log(self, factor: float) -> None:
        losses = torch.stack(self._losses).tolist()
        self._losses.clear()
        mean, now = sum(losses) / len(losses), self.elapsed()
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss is {mean} at step {self.step}")
        self.record.add(
            "step", step=self.step, tokens=self.tokens, seconds=round(now, 2), loss=round(mean, 5), factor=round(factor, 4),
            norm=round(float(self._norm), 3),
        )  # fmt: skip
        tokens, then = self._said
        if now - then > 15:
            say(f"step {self.step}  {self.tokens / 1e6:.1f} M tokens  loss {mean:.4f}  "
                f"{(self.tokens - tokens) / (now - then):,.0f} tokens/s  {now:.0f} s")  # fmt: skip
            self._said = (self.tokens, now)

    def _to_device(self, batch: tuple[Ids, Classes]) -> tuple[Tensor, Tensor]:
        ids = torch.from_numpy(batch[0].astype(np.int64))
        classes = torch.from_numpy(batch[1][:, 1:].astype(np.int64))
        if self.device.type == "cuda":
            ids, classes = ids.pin_memory(), classes.pin_memory()
        ids, classes = ids.to(self.device, non_blocking=True), classes.to(self.device, non_blocking=True)
        return ids, self._class_weights[classes]

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Loss on held-out windows: all context, and the middles alone (nats a token)."""
        if self._heldout is None:
            return
        ids_all, classes_all = self._heldout
        sums = torch.zeros(4, device=self.device)
        for at in range(0, len(ids_all), 8):
            ids = torch.from_numpy(ids_all[at : at + 8].astype(np.int64)).to(self.device)
            classes = torch.from_numpy(classes_all[at : at + 8, 1:].astype(np.int64)).to(self.device)
            with mixed_precision(self.device):
                hidden = self.model(ids[:, :-1])
                logits = self.model.logits(hidden).float()
            each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
            each = each.view(classes.shape)
            text, middle = classes == 1, classes == 2
            sums += torch.stack([each[text].sum(), text.sum(), each[middle].sum(), middle.sum()])
        text_loss, middle_loss = float(sums[0] / sums[1]), float(sums[2] / sums[3])
        self.record.add(
            "heldout", step=self.step, tokens=self.tokens, text=round(text_loss, 4), middle=round(middle_loss, 4)
        )
        say(f"held out: {text_loss:.3f} nats a token of context, {middle_loss:.3f} of middle")

    def save(self) -> None:
        """Write weights, tokenizer and record."""
        self.record.add(
            "state", step=self.step, tokens=self.tokens, windows=self._windows_used, seconds=round(self.elapsed(), 1)
        )
        export.write(self.model, self._vocabulary.json, self.out)
        self.record.write(self.out)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
