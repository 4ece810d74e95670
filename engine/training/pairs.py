"""Instruction pairs as training batches: JSON lines of an instruction, an input that it may have, and its response.

Laid out in Alpaca's form (`engine.instruct`), so that code actions ask a tuned model in the very words that it was taught.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from engine.instruct import alpaca
from engine.training.bpe import Vocabulary
from engine.training.model import Model
from engine.training.samples import MIDDLE, MUTE
from engine.training.scrub import scrub

if TYPE_CHECKING:
    from engine.training.tune import Measure

LEAST = 4
"""Pairs that a file must have."""

_INSTRUCTION = ("instruction", "prompt", "question")
_RESPONSE = ("response", "output", "completion", "answer")


@dataclass(frozen=True, slots=True)
class Pair:
    """One example. `input` is what the instruction is about, or empty."""

    instruction: str
    input: str
    response: str

    @property
    def prompt(self) -> str:
        """What the model is shown."""
        return alpaca(self.instruction, self.input)


def read(path: Path) -> list[Pair]:
    """The pairs of a .jsonl file, secrets masked; ValueError names the first line that is none."""
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not JSON") from error
        texts = entry if isinstance(entry, dict) else {}
        instruction = next((texts[key] for key in _INSTRUCTION if key in texts), None)
        response = next((texts[key] for key in _RESPONSE if key in texts), None)
        given = texts.get("input") or ""
        if not (isinstance(instruction, str) and isinstance(response, str) and isinstance(given, str)):
            raise ValueError(
                f"{path}:{number}: needs a string under one of {', '.join(_INSTRUCTION)} and under one of "
                f"{', '.join(_RESPONSE)}; input is a string or left out"
            )
        pairs.append(Pair(scrub(instruction)[0], scrub(given)[0], scrub(response)[0]))
    return pairs


class Pairs:
    """Batches of pairs, padded; only responses are trained on. A tenth of the pairs is held out."""

    def __init__(self, path: Path, vocabulary: Vocabulary, length: int, batch: int, seed: int) -> None:
        pairs = read(path)
        if len(pairs) < LEAST:
            raise ValueError(f"{path}: {len(pairs)} pairs; at least {LEAST} are needed")
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

    def _rows(self, pairs: list[Pair]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        control = self._vocabulary.control
        encoded = []
        for pair in pairs:
            head = self._vocabulary.encode(pair.prompt)[-self._length // 2 :]
            body = [*self._vocabulary.encode(pair.response), control.end]
            encoded.append((head, body[: self._length + 1 - len(head)]))
        width = max(len(head) + len(body) for head, body in encoded)
        ids = np.full((len(pairs), width), control.pad, np.int64)
        classes = np.full((len(pairs), width), MUTE, np.uint8)
        for row, (head, body) in enumerate(encoded):
            ids[row, : len(head) + len(body)] = head + body
            classes[row, len(head) : len(head) + len(body)] = MIDDLE
        return ids, classes
