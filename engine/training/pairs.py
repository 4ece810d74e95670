"""Instruction pairs as training batches: one JSON object a line, an instruction and its response."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from engine.training.bpe import Vocabulary
from engine.training.model import Model
from engine.training.samples import MIDDLE, MUTE

if TYPE_CHECKING:
    from engine.training.tune import Measure

_ASKED = ("instruction", "prompt", "question", "input")
_GIVEN = ("response", "completion", "output", "answer")
TEMPLATE = "### Instruction:\n{asked}\n\n### Response:\n"
"""The form that the family's instruction models were trained with (WizardCoder)."""


def read(path: Path) -> list[tuple[str, str]]:
    """Pairs of a .jsonl file; ValueError names the first line that is not one."""
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        entry = json.loads(line)
        asked = next((str(entry[key]) for key in _ASKED if key in entry), None)
        given = next((str(entry[key]) for key in _GIVEN if key in entry), None)
        if asked is None or given is None:
            raise ValueError(f"{path}:{number}: needs one of {', '.join(_ASKED)} and one of {', '.join(_GIVEN)}")
        pairs.append((asked, given))
    return pairs


class Pairs:
    """Batches of pairs, padded; only responses are trained on. A tenth of the pairs is held out."""

    def __init__(self, path: Path, vocabulary: Vocabulary, length: int, batch: int, seed: int) -> None:
        pairs = read(path)
        if len(pairs) < 4:
            raise ValueError(f"{path}: {len(pairs)} pairs; at least 4 are needed")
        held = max(1, len(pairs) // 10)
        self._held, self._training = pairs[::-1][:held], pairs[:-held]
        self._vocabulary, self._length, self._batch, self._seed = vocabulary, length, batch, seed

    def batch(self, step: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Ids [batch, length + 1] and classes, for one step."""
        rng = np.random.default_rng([self._seed, step])
        return self._rows([self._training[int(i)] for i in rng.integers(len(self._training), size=self._batch)])

    def measure(self, model: Model, device: torch.device) -> Measure:
        """Loss of the held-out responses."""
        from engine.training.tune import Measure, middle_loss

        return Measure(middle_loss(model, *self._rows(self._held), device), None)

    def _rows(self, pairs: list[tuple[str, str]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        control = self._vocabulary.control
        encoded = []
        for asked, given in pairs:
            head = self._vocabulary.encode(TEMPLATE.format(asked=asked))[-self._length // 2 :]
            body = [*self._vocabulary.encode(given), control.end]
            encoded.append((head, body[: self._length + 1 - len(head)]))
        width = max(len(head) + len(body) for head, body in encoded)
        ids = np.full((len(pairs), width), control.pad, np.int64)
        classes = np.full((len(pairs), width), MUTE, np.uint8)
        for row, (head, body) in enumerate(encoded):
            ids[row, : len(head) + len(body)] = head + body
            classes[row, len(head) : len(head) + len(body)] = MIDDLE
        return ids, classes
