"""The second backend has the same gate: a directory of another family is refused or loaded, and nothing of it is run."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.harness.families import FAMILIES, make_family_checkpoint, rewrite_tensors
from tests.harness.gatekeeper import Gatekeeper
from tests.harness.hostile.spoiling import CONFIG, TOKENIZER, WEIGHTS
from tests.harness.process import temporary_home

OF_A_MODEL = {CONFIG, TOKENIZER, WEIGHTS}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("good")
    return {kind: make_family_checkpoint(root / kind, kind, max_position_embeddings=64) for kind in FAMILIES}


@pytest.fixture(scope="module")
def gatekeeper(good: dict[str, Path]) -> Iterator[Gatekeeper]:
    with temporary_home() as home, Gatekeeper(home, warm=list(good.values())) as child:
        yield child


def _config(**change: Any) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        path = directory / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return spoil


def _tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        rewrite_tensors(directory, change)

    return spoil


def _cut(directory: Path) -> None:
    raw = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(raw[:-10])


def _pickled(directory: Path) -> None:
    (directory / WEIGHTS).unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps({}))


NORM = "model.layers.1.input_layernorm.weight"

SPOILT: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "layers without end": ("qwen2", _config(num_hidden_layers=10**9), "num_hidden_layers: input should be less"),
    "heads that do not divide": ("qwen2", _config(num_key_value_heads=3), "num_key_value_heads 3 does not divide"),
    "a width that heads do not divide": (
        "starcoder2",
        _config(num_attention_heads=5, num_key_value_heads=5),
        "does not divide hidden_size",
    ),
    "an odd head": ("gemma", _config(head_dim=13), "head_dim 13 must be even"),
    "a width as text": ("deepseek", _config(hidden_size="64"), "hidden_size"),
    "an activation of its own": ("qwen2", _config(hidden_act="xielu"), "hidden_act"),
    "positions that depend on the length": (
        "deepseek",
        _config(rope_parameters={"rope_type": "dynamic", "factor": 2.0}),
        "rope_parameters.rope_type",
    ),
    "positions of an unknown kind": (
        "qwen2",
        _config(rope_scaling={"type": "yarn", "factor": 4.0}, rope_parameters=None),
        "rope_scaling.type",
    ),
    "quantised by another tool": (
        "qwen2",
        _config(quantization_config={"quant_method": "gptq"}),
        "quantization_config: weights quantised by another",
    ),
    "attention to what follows": ("gemma", _config(use_bidirectional_attention=True), "use_bidirectional_attention"),
    "another architecture": (
        "qwen2",
        _config(model_type="qwen2_vl"),
        "the transformers backend 'starcoder2', 'qwen2', 'llama', 'gemma'",
    ),
    "a vocabulary that is too small": ("deepseek", _config(vocab_size=300), "vocab_size in config.json is 300"),
    "a tensor missing": ("qwen2", _tensors(lambda t: t.pop(NORM)), f"tensor {NORM} is missing"),
    "a tensor too many": ("gemma", _tensors(lambda t: t.update(evil=torch.ones(2))), "'evil' is no part of the model"),
    "a tensor of another shape": (
        "starcoder2",
        _tensors(lambda t: t.update({NORM: torch.ones(3)})),
        f"{NORM} has shape [3]",
    ),
    "whole numbers for weights": (
        "qwen2",
        _tensors(lambda t: t.update({NORM: torch.ones(64, dtype=torch.int8)})),
        "is I8; expected F32",
    ),
    "a number that is none": ("gemma", _tensors(lambda t: t[NORM].fill_(float("nan"))), "holds NaN or infinity"),
    "weights cut short": ("deepseek", _cut, WEIGHTS),
    "pickled weights": ("qwen2", _pickled, "is never opened, because loading a pickle runs code"),
    "no tokenizer": ("starcoder2", lambda d: (d / TOKENIZER).unlink(), TOKENIZER),
}


@pytest.mark.parametrize(("kind", "spoil", "says"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_directory_is_refused_in_one_line(
    good: dict[str, Path],
    gatekeeper: Gatekeeper,
    tmp_path: Path,
    kind: str,
    spoil: Callable[[Path], None],
    says: str,
) -> None:
    directory = tmp_path / "m"
    shutil.copytree(good[kind], directory)
    spoil(directory)
    verdict = gatekeeper.judge(directory)
    assert verdict.error == "CheckpointError", verdict
    assert says in verdict.message
    assert str(tmp_path) in verdict.message
    assert verdict.message.isprintable()
    assert not _alarming(verdict.events)


@pytest.mark.parametrize("kind", FAMILIES)
def test_nothing_of_a_directory_full_of_code_is_run_or_fetched(
    good: dict[str, Path], gatekeeper: Gatekeeper, tmp_path: Path, kind: str
) -> None:
    directory, canary = tmp_path / "m", tmp_path / "canary"
    shutil.copytree(good[kind], directory)
    code = f"open({str(canary)!r}, 'w').write('ran')\n"
    for name in ("modeling_evil", "configuration_evil", "transformers", "conftest", "sitecustomize"):
        (directory / f"{name}.py").write_text(code)
    _config(
        auto_map={"AutoModelForCausalLM": "modeling_evil.Evil", "AutoConfig": "configuration_evil.Evil"},
        trust_remote_code=True,
        attn_implementation="kernels-community/evil",
        _attn_implementation="kernels-community/evil",
        experts_implementation="kernels-community/evil",
        use_kernels=True,
        _name_or_path="somebody/else",
        base_model_name_or_path="somebody/else",
    )(directory)
    (directory / "generation_config.json").write_text(json.dumps({"custom_generate": "modeling_evil"}))
    (directory / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    (directory / "custom_generate").mkdir()
    (directory / "custom_generate" / "generate.py").write_text(code)
    verdict = gatekeeper.judge(directory)
    assert (verdict.error, verdict.message) == ("", "")
    assert set(verdict.opened) == OF_A_MODEL
    assert not _alarming(verdict.events)
    assert not canary.exists()


def _alarming(events: tuple[str, ...]) -> list[str]:
    """The library makes small functions of its own while a model is built; nothing else is to be seen."""
    own = ("compile", "exec", "import")
    return [event for event in events if not event.startswith(own) or "evil" in event or "/m/" in event]
