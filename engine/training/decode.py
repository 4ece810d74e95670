"""Greedy decoding of many prompts at once, with healing, up to the end of the line: what the score is taken from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from engine.training.bpe import Vocabulary
from engine.training.model import Cache, Model
from engine.training.samples import Prompt


class Regrowth:
    """Which tokens may stand where held-back bytes are to be regrown, remembered from prompt to prompt."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.bytes = vocabulary.bytes_of()
        self._vocabulary = vocabulary
        self._known: dict[bytes, Tensor] = {}

    def allowed(self, held: bytes) -> Tensor:
        """Ids, in no order."""
        if held not in self._known:
            self._known[held] = torch.tensor(self._vocabulary.tokens_along(held), dtype=torch.long)
        return self._known[held]


class Line:
    """One completion as it grows: the bytes still to be regrown, then the text, until a line end or a control token."""

    def __init__(self, held: bytes) -> None:
        self.held, self.text, self.done = held, b"", False

    def take(self, token: int, data: bytes) -> None:
        """Account for one token; control tokens have no bytes."""
        if not data:
            self.done = True
        elif self.held:
            over = len(data) - len(self.held)
            self.text = data[len(self.held) :] if over > 0 else b""
            self.held = self.held[len(data) :]
        else:
            self.text += data
        if b"\n" in self.text:
            self.text, self.done = self.text.split(b"\n", 1)[0], True


@torch.inference_mode()
def complete_lines(
    model: Model, vocabulary: Vocabulary, prompts: Sequence[Prompt], *, batch: int = 16, limit: int = 48,
    progress: Callable[[float], None] = lambda _share: None,
) -> list[str]:  # fmt: skip
    """The rest of the line for each prompt, at most `limit` tokens each. Prompts of like length run together."""
    regrowth = Regrowth(vocabulary)
    results = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].ids))
    for at in range(0, len(order), batch):
        chosen = order[at : at + batch]
        lines = _complete_batch(model, regrowth, [prompts[i] for i in chosen], limit)
        for i, line in zip(chosen, lines, strict=True):
            results[i] = line
        progress(min(1.0, (at + batch) / len(order)))
    return results


def _complete_batch(model: Model, regrowth: Regrowth, prompts: Sequence[Prompt], limit: int) -> list[str]:
    weight = model.transformer.wte.weight
    device = weight.device
    longest = max(len(p.ids) for p in prompts)
    room = min(model.shape.positions, longest + limit)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    cache = Cache(model.shape, len(prompts), room, device, dtype)
    ids = np.zeros((len(prompts), longest), np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt.ids)] = prompt.ids
    lengths = torch.tensor([len(p.ids) for p in prompts], device=device)
    lines = [Line(p.held) for p in prompts]
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        hidden = model.extend(torch.from_numpy(ids).to(device), lengths, cache)
        for written in range(1, room - longest + 1):
            tokens = _pick(model.logits(hidden), lines, regrowth)
            for line, token in zip(lines, tokens, strict=True):
                if not line.done:
                    line.take(token, regrowth.bytes[token] if token < len(regrowth.bytes) else b"")
            alive = [row for row, line in enumerate(lines) if not line.done]
            if not alive:
                break
            if len(alive) <= len(lines) // 2 or len(alive) <= 2 < len(lines):
                # Finished sequences leave, so that one long line does not keep the whole batch busy.
                return _finish(model, regrowth, lines, alive, tokens, cache, room - longest - written)
            ones = torch.ones(len(lines), dtype=torch.long, device=device)
            hidden = model.extend(torch.tensor(tokens, device=device)[:, None], ones, cache)
    return [line.text.decode("utf-8", "replace") for line in lines]


def _finish(
    model: Model, regrowth: Regrowth, lines: list[Line], alive: list[int], tokens: list[int], cache: Cache, limit: int
) -> list[str]:
    device = cache.states.device
    rows = torch.tensor(alive, device=device)
    cache.states, cache.lengths = cache.states[:, rows], cache.lengths[rows]
    left, current = [lines[i] for i in alive], [tokens[i] for i in alive]
    for _ in range(limit):
        if all(line.done for line in left) or int(cache.lengths.max()) >= cache.states.shape[2]:
            break
        ones = torch.ones(len(left), dtype=torch.long, device=device)
        hidden = model.extend(torch.tensor(current, device=device)[:, None], ones, cache)
        current = _pick(model.logits(hidden), left, regrowth)
        for line, token in zip(left, current, strict=True):
            if not line.done:
                line.take(token, regrowth.bytes[token] if token < len(regrowth.bytes) else b"")
    return [line.text.decode("utf-8", "replace") for line in lines]


def _pick(logits: Tensor, lines: Sequence[Line], regrowth: Regrowth) -> list[int]:
    tokens: list[int] = logits.argmax(dim=1).tolist()
    for row, line in enumerate(lines):
        if line.held and not line.done:
            allowed = regrowth.allowed(line.held).to(logits.device)
            tokens[row] = int(allowed[logits[row, allowed].argmax()])
    return tokens
