"""Invariant 3: the same token ids give the same tokens, cached or not; transformers is the oracle."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint.config import read_config
from engine.checkpoint.loader import load_model
from engine.ops import TorchOps
from engine.precision import Precision
from tests.harness.checkpoints import assert_same_greedy, decode, make_checkpoint, oracle_logits
from tests.harness.inprocess import Completed, InProcessEngine

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
    precision = Precision("float32", torch.device("cpu"), torch.float32, "the test's")
    model = load_model(directory, read_config(directory), TorchOps(), precision)
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


TEXT = "import os\n\n\ndef path_of(name):\n    return os.pa"
MIXED: list[dict[str, Any]] = [
    {"prompt": _prompt(50, 768, seed=1), "max_tokens": 20},
    {"prompt": _prompt(50, 768, seed=1), "max_tokens": 20, "temperature": 1.0, "seed": 7},
    {"prompt": _prompt(50, 768, seed=1), "max_tokens": 20, "temperature": 0.7, "seed": 7, "top_p": 0.9, "n": 3},
    {"prompt": TEXT, "suffix": "\n", "max_tokens": 12},
    {"prompt": TEXT, "suffix": "\n", "max_tokens": 12, "temperature": 0.8, "seed": 11},
    {"prompt": TEXT, "suffix": "\n", "max_tokens": 12, "temperature": 1.3, "seed": 12, "n": 2, "min_p": 0.01},
    {"prompt": TEXT, "suffix": "\n", "max_tokens": 0, "starfill": {"document": "d"}},
    {"prompt": TEXT + "th", "suffix": "\n", "max_tokens": 9, "starfill": {"document": "d"}},
    {"prompt": _prompt(140, 768, seed=3), "max_tokens": 8, "temperature": 1.0, "seed": 2**63 - 1, "top_k": 5},
    {"prompt": _prompt(3, 768, seed=4), "max_tokens": 30, "temperature": 2.0, "seed": -5, "repetition_penalty": 1.3},
    {"prompt": _prompt(3, 768, seed=4), "max_tokens": 30, "repetition_penalty": 1.3, "logprobs": 2},
    {"prompt": _prompt(90, 768, seed=5), "max_tokens": 10, "temperature": 1.0, "seed": 1, "starfill": {"pin": True}},
]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Completed]]:
    """A checkpoint, and what each of the requests above gets from an engine that has nothing else to do."""
    directory = make_checkpoint(tmp_path_factory.mktemp("mixed") / "m")
    done = [InProcessEngine.of(directory, slots=9, piece=1_000).together([request])[0] for request in MIXED]
    return directory, done


@pytest.mark.parametrize(("slots", "piece"), [(4, 16), (2, 7), (9, 64), (1, 33)])
def test_twelve_interleaved_requests_give_the_tokens_that_each_gives_alone(
    alone: tuple[Path, list[Completed]], slots: int, piece: int
) -> None:
    """Greedy, sampled, healed, primed, pinned, several candidates: no company, cache or piece shows in the tokens."""
    directory, singles = alone
    engine = InProcessEngine.of(directory, slots=slots, piece=piece)
    for _ in range(2):  # cold, then with whatever the first round left in the slots
        for request, single, done in zip(MIXED, singles, engine.together(MIXED), strict=True):
            assert [each.ids for each in (done, *done.others)] == [each.ids for each in (single, *single.others)], (
                request
            )
            assert [each.text for each in (done, *done.others)] == [each.text for each in (single, *single.others)]
            assert done.finish is single.finish
            assert len(done.others) == (request.get("n", 1) - 1)
            if request.get("n", 1) > 1:
                assert len({tuple(each.ids) for each in (done, *done.others)}) == request["n"]


def test_candidates_compute_their_prompt_once(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "m")
    prompt = _prompt(100, 768, seed=6)
    for slots in (1, 3, 8):
        engine = InProcessEngine.of(directory, slots=slots, piece=64)
        (done,) = engine.together([{"prompt": prompt, "max_tokens": 5, "n": 6, "temperature": 1.0, "seed": 3}])
        assert (engine.scheduler.prompt_tokens_computed, done.computed) == (100, 100)
        assert len({tuple(each.ids) for each in (done, *done.others)}) == 6
        first = engine.together([{"prompt": prompt, "max_tokens": 5, "temperature": 1.0, "seed": 3}])[0]
        assert first.ids == done.ids, "one candidate is the first of several"


def test_logprobs_are_of_the_models_own_distribution_however_tokens_are_drawn(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "m")
    prompt = _prompt(40, 768, seed=8)
    request = {"prompt": prompt, "max_tokens": 8, "temperature": 1.7, "top_k": 50, "seed": 5, "logprobs": 3}
    (done,) = InProcessEngine.of(directory).together([request])
    oracle = torch.log_softmax(oracle_logits(directory, prompt + done.ids), -1)[len(prompt) - 1 : -1]
    for row, token in zip(oracle, done.tokens, strict=True):
        assert token.logprob == pytest.approx(float(row[token.id]), abs=2e-4)
        best = torch.topk(row, 3).values.tolist()
        assert [logprob for _, logprob in token.top] == pytest.approx(best, abs=2e-4)


def test_a_fork_at_the_end_of_memory_is_what_it_was_copied_from(tmp_path: Path) -> None:
    """Slots that are given up leave the others' keys and values as they were."""
    directory = make_checkpoint(tmp_path / "m")
    engine = InProcessEngine.of(directory, slots=4)
    prompts = [_prompt(30, 768, seed=n) for n in range(3)]
    before = [engine.complete(prompt=prompt, max_tokens=6).ids for prompt in prompts]
    kept = engine.scheduler.slots.keep(2)
    engine.runner.keep_slots(kept, engine.scheduler.slots.lengths)
    engine.scheduler._max_running = 2
    assert engine.runner.slots == 2
    again = [engine.complete(prompt=prompt, max_tokens=6) for prompt in reversed(prompts)]
    assert [each.ids for each in again] == before[::-1]
    assert [each.computed for each in again[:2]] == [1, 1]


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
