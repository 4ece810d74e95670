"""What fewer bits cost the built-in model: next tokens of real source that it gets right, and how far its choices move."""

from __future__ import annotations

import argparse
import inspect
import textwrap
from types import ModuleType

import pytest
import torch
from torch import Tensor

from engine.checkpoint.config import read_config
from engine.checkpoint.loader import load_model
from engine.models import STARTER
from engine.precision import choose
from engine.step import Span
from engine.tokenizer import Tokenizer

LENGTH = 1_024
MODULES: tuple[ModuleType, ...] = (argparse, inspect, textwrap)


def _logits(name: str, texts: list[list[int]]) -> Tensor:
    """[texts * LENGTH, V], each text read at once."""
    config = read_config(STARTER)
    precision = choose(name, torch.device("cpu"), config.shape(), None)
    model = load_model(STARTER, config, precision.ops, precision)
    kv, rows, found = model.new_kv(1, LENGTH), torch.arange(LENGTH), []
    for ids in texts:
        head = model.forward(torch.tensor(ids[:LENGTH]), rows, (Span(0, 0, LENGTH),), kv, rows, logits=True)
        assert head is not None
        found.append(head.logits)
    return torch.cat(found)


@pytest.fixture(scope="module")
def texts() -> list[list[int]]:
    tokenizer = Tokenizer(STARTER / "tokenizer.json")
    return [list(tokenizer.encode(inspect.getsource(module)))[: LENGTH + 1] for module in MODULES]


@pytest.fixture(scope="module")
def exact(texts: list[list[int]]) -> Tensor:
    return _logits("float32", texts)


@pytest.mark.parametrize(
    ("name", "points", "agreement"), [("bfloat16", 0.5, 0.97), ("int8", 0.5, 0.97), ("int4", 1.5, 0.85)]
)
def test_next_tokens_are_as_right_as_in_float32(
    name: str, points: float, agreement: float, texts: list[list[int]], exact: Tensor
) -> None:
    truth = torch.tensor([ids[n + 1] for ids in texts for n in range(LENGTH)])
    found = _logits(name, texts)
    right, wanted = (100 * float((logits.argmax(1) == truth).float().mean()) for logits in (found, exact))
    assert wanted > 20, "the built-in model should know some Python"
    assert right > wanted - points, f"{name} gets {right:.2f} % right, float32 {wanted:.2f} %"
    assert float((found.argmax(1) == exact.argmax(1)).float().mean()) > agreement
