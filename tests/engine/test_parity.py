"""Invariant 3: the same token ids give the same tokens, cached or not; transformers is the oracle."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import checkpoint
from engine.ops import TorchOps
from tests.harness.checkpoints import assert_same_greedy, decode, make_checkpoint, oracle_logits
from tests.harness.inprocess import InProcessEngine

SHAPES = [
    pytest.param(heads, head_dim, gelu, vocabulary, id=f"{heads}x{head_dim}-{gelu}-{vocabulary}")
    for heads, head_dim, gelu, vocabulary in [
        (4, 32, "gelu_pytorch_tanh", 768),
        (4, 64, "gelu", 801),
        (4, 128, "gelu_pytorch_tanh", 769),
        (11, 32, "gelu", 997),
        (11, 64, "gelu_pytorch_tanh", 775),
        (11, 128, "gelu", 768),
        (12, 32, "gelu_pytorch_tanh", 1023),
        (12, 64, "gelu", 771),
        (12, 128, "gelu_pytorch_tanh", 768),
    ]
]


def _prompt(length: int, vocabulary: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(20, vocabulary), k=length)


@pytest.mark.parametrize(("heads", "head_dim", "gelu", "vocabulary"), SHAPES)
def test_greedy_ids_are_those_of_transformers(
    tmp_path: Path, heads: int, head_dim: int, gelu: Any, vocabulary: int
) -> None:
    directory = make_checkpoint(
        tmp_path / "m",
        n_head=heads,
        head_dim=head_dim,
        activation_function=gelu,
        vocab_size=vocabulary,
        n_positions=256,
    )
    engine = InProcessEngine.of(directory)
    prompt = _prompt(90, 768, seed=heads * head_dim)
    cold = engine.complete(prompt=prompt, max_tokens=24)
    assert (cold.computed, len(cold.ids)) == (90, 24)
    assert_same_greedy(cold.ids, directory, prompt)

    warm = engine.complete(prompt=prompt, max_tokens=24)
    assert warm.computed == 1
    assert_same_greedy(warm.ids, directory, prompt)

    edited = prompt[:60] + _prompt(17, 768, seed=1)  # a branch off the cached text
    branch = engine.complete(prompt=edited, max_tokens=16)
    assert branch.computed <= 17
    assert_same_greedy(branch.ids, directory, edited)


@pytest.mark.parametrize(
    "form",
    [
        {"multi_query": False},
        {"shards": 3},
        {"family": "santacoder"},
        {"n_layer": 5, "head_dim": 8},
        {"dtype": torch.bfloat16},
        {"config": {"n_inner": None, "layer_norm_epsilon": 1e-5, "auto_map": {"AutoModel": "evil.Model"}}},
        {"config": {"scale_attn_weights": False}},
    ],
    ids=["multi-head", "sharded", "santacoder", "deep", "bfloat16-file", "odd-config", "unscaled-attention"],
)
def test_every_published_form_of_the_architecture_is_read_right(tmp_path: Path, form: dict[str, Any]) -> None:
    directory = make_checkpoint(tmp_path / "m", **form)
    prompt = _prompt(70, 700, seed=3)
    done = InProcessEngine.of(directory, dtype="float32").complete(prompt=prompt, max_tokens=20)
    assert_same_greedy(done.ids, directory, prompt)


def test_logits_agree_to_rounding(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "m", n_layer=4)
    model = checkpoint.load_model(
        directory, checkpoint.read_shape(directory), TorchOps(), torch.device("cpu"), torch.float32
    )
    ids = _prompt(120, 768, seed=9)
    from engine.step import Span

    kv = model.new_kv(1, 128)
    rows = torch.arange(len(ids))
    head = model.forward(torch.tensor(ids), rows, (Span(0, 0, len(ids)),), kv, rows, top=5)
    assert head is not None
    oracle = torch.log_softmax(oracle_logits(directory, ids), -1)
    torch.testing.assert_close(head.top_logprobs, oracle.gather(1, head.top_ids), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("piece", [1, 7, 16, 64, 1000])
def test_prefill_in_pieces_is_prefill(tmp_path: Path, piece: int) -> None:
    directory = make_checkpoint(tmp_path / "m")
    prompt = _prompt(150, 768, seed=piece)
    engine = InProcessEngine.of(directory, piece=piece)
    done = engine.complete(prompt=prompt, max_tokens=12)
    assert done.calls == -(-150 // piece) + 11
    assert_same_greedy(done.ids, directory, prompt)


def test_company_changes_nothing(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "m")
    shared = _prompt(40, 768, seed=1)
    prompts = [shared + _prompt(10 + n, 768, seed=n) for n in range(12)]
    engine = InProcessEngine.of(directory, slots=4, piece=16)
    for prompt, done in zip(prompts, engine.together([{"prompt": p, "max_tokens": 10} for p in prompts]), strict=True):
        assert_same_greedy(done.ids, directory, prompt)


def test_healed_text_is_the_best_that_starts_with_the_text_held_back(tmp_path: Path) -> None:
    """The regrown tokens are the oracle's best among those that fit, and the answer goes on after the cursor."""
    directory = make_checkpoint(tmp_path / "m")
    engine = InProcessEngine.of(directory)
    text = "import os\n\n\ndef path_of(name):\n    return os.pa"
    done = engine.complete(prompt=text, suffix="\n", max_tokens=8)
    generation = done.admitted.generation
    assert done.admitted.healed > 0
    logits = oracle_logits(directory, done.prompt + done.ids)
    tokenizer = generation.tokenizer
    held = text.encode()[-len("pa") :] if text.endswith("pa") else b""
    at = len(done.prompt) - 1
    for token in done.ids:
        allowed = tokenizer.tokens_along(held) if held else list(range(logits.shape[1]))
        best = float(logits[at][allowed].max())
        assert token in allowed
        assert float(logits[at, token]) >= best - 1e-4
        data = tokenizer.bytes_of(token)
        held = held[len(data) :] if len(data) <= len(held) else b""
        at += 1
    assert (text + done.text).startswith(decode(directory, done.prompt[1:])[:5])
    assert decode(directory, done.ids) == "pa" + done.text
