"""The random checkpoints: transformers loads them, greedy text tells right from wrong, the oracle's judgement holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from tests.harness.bpe import SANTACODER_TOKENS, STARCODER_TOKENS, control_ids, tokenizer_json
from tests.harness.checkpoints import (
    assert_same_greedy,
    decode,
    encode,
    make_checkpoint,
    oracle_greedy,
    oracle_logits,
)

PROMPT = "<fim_prefix>def add(a, b):\n    <fim_suffix>\n\nprint(add(1, 23))\n<fim_middle>"

SHAPES: list[dict[str, Any]] = [
    {},
    {"n_layer": 1, "n_head": 1, "head_dim": 8, "seed": 3},
    {"n_head": 3, "head_dim": 24, "vocab_size": 1001, "shards": 3},
    {"multi_query": False, "activation_function": "gelu"},
    {"family": "santacoder", "vocab_size": 800, "dtype": torch.bfloat16},
    {"n_embd": 96, "n_head": 2, "n_positions": 77, "dtype": torch.float16, "scale": 1.5},
]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_transformers_loads_every_shape_and_its_text_varies(tmp_path: Path, shape: dict[str, Any]) -> None:
    make_checkpoint(tmp_path, **shape)
    ids = encode(tmp_path, PROMPT)
    greedy, gaps = oracle_greedy(tmp_path, ids, 40)
    assert len(greedy) == len(gaps) == 40
    assert len(set(greedy)) >= 8
    family = shape.get("family", "starcoder")
    assert not set(greedy) & set(control_ids(family, 768).values())
    # Far context matters: which of its tokens does depends on the vocabulary, and so on the Python that it is trained from.
    changed = ([*ids[:at], ids[at] + 1, *ids[at + 1 :]] for at in range(1, 6))
    assert any(oracle_greedy(tmp_path, each, 40)[0] != greedy for each in changed)
    assert_same_greedy(greedy, tmp_path, ids)
    vocab_size = shape.get("vocab_size", 768)
    assert oracle_logits(tmp_path, ids).shape == (len(ids), vocab_size)


def test_only_the_files_that_an_engine_may_need_are_there(tmp_path: Path) -> None:
    one = make_checkpoint(tmp_path / "one", dtype=torch.bfloat16)
    assert names(one) == ["config.json", "model.safetensors", "tokenizer.json"]
    with safe_open(one / "model.safetensors", "pt") as file:
        keys = set(file.keys())
        assert file.get_tensor("transformer.wte.weight").dtype == torch.bfloat16
    assert "lm_head.weight" not in keys
    three = make_checkpoint(tmp_path / "three", shards=3)
    assert names(three) == [
        "config.json",
        *(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)),
        "model.safetensors.index.json",
        "tokenizer.json",
    ]
    index = json.loads((three / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == keys
    assert torch.equal(*(oracle_logits(make_checkpoint(tmp_path / f"{n}", shards=n), [5, 6, 7]) for n in (1, 3)))


def test_the_same_arguments_give_the_same_bytes_and_other_seeds_others(tmp_path: Path) -> None:
    first, again, other = (
        make_checkpoint(tmp_path / name, seed=seed) for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    for name in names(first):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_arguments_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not n_head"):
        make_checkpoint(tmp_path, n_embd=65, n_head=4)
    with pytest.raises(ValueError, match="does not hold"):
        make_checkpoint(tmp_path, vocab_size=700)


def test_config_overrides_are_written_as_given(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, config={"eos_token_id": 50256, "auto_map": {"AutoModel": "evil.Model"}})
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["eos_token_id"] == 50256
    assert config["auto_map"] == {"AutoModel": "evil.Model"}
    assert config["n_embd"] == 64


def test_control_tokens_can_be_predicted_when_asked_for(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, mute_control=False, vocab_size=1600)
    assert float(oracle_logits(tmp_path, [30, 40])[:, :19].min()) > -30
    greedy, _ = oracle_greedy(tmp_path, encode(tmp_path, PROMPT), 40)
    past = [token for token in greedy if token >= 768]
    assert past
    assert decode(tmp_path, past) == ""


def test_the_judgement_accepts_ties_and_names_the_first_wrong_token(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    ids = encode(tmp_path, PROMPT)
    greedy, gaps = oracle_greedy(tmp_path, ids, 16)
    second = int(torch.topk(oracle_logits(tmp_path, [*ids, *greedy[:5]])[-1], 2).indices[1])
    forked = [*greedy[:5], second]
    with pytest.raises(AssertionError, match="token 5 of 6"):
        assert_same_greedy(forked, tmp_path, ids, tolerance=gaps[5] * 0.9)
    rest, _ = oracle_greedy(tmp_path, [*ids, *forked], 5)
    assert_same_greedy([*forked, *rest], tmp_path, ids, tolerance=gaps[5] * 1.1)
    with pytest.raises(AssertionError, match="token 6 of"):
        assert_same_greedy([*forked, rest[0] + 1], tmp_path, ids, tolerance=gaps[5] * 1.1)


def test_tokenizers_have_their_control_tokens_where_the_families_do(tmp_path: Path) -> None:
    assert control_ids("starcoder", 768) == {token: i for i, token in enumerate(STARCODER_TOKENS)}
    assert control_ids("santacoder", 600) == {token: 595 + i for i, token in enumerate(SANTACODER_TOKENS)}
    assert tokenizer_json("starcoder", 768) is tokenizer_json("starcoder", 768)
    make_checkpoint(tmp_path)
    assert len(encode(tmp_path, "12345")) == 5
    assert encode(tmp_path, "<fim_middle>x")[0] == 2
    for text in ("def f():\r\n\treturn 'é\U0001f600'\n", " \x00\x7f\u2028", "    x = 10\n\n\n"):
        assert decode(tmp_path, encode(tmp_path, text)) == text
