"""Adapters are merged at load: every precision gives what a checkpoint with the merged weights gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.checkpoint.adapter import CONFIG, WEIGHTS, fingerprint
from engine.errors import CheckpointError
from engine.instruct import NOTE, Form, following_of
from engine.models import ModelSource
from tests.harness.adapters import ALPHA, RANK, make_adapter
from tests.harness.checkpoints import assert_same_greedy, encode, make_checkpoint
from tests.harness.inprocess import InProcessEngine

PROMPT = "def area(width, height):\n    return "


def merged_by_hand(folder: Path, base: Path, adapter: Path) -> Path:
    """The checkpoint that the two make together."""
    shutil.copytree(base, folder)
    state, parts = load_file(base / "model.safetensors"), load_file(adapter / WEIGHTS)
    for name, tensor in state.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in parts:
            a, b = parts[f"{stem}.lora_A.weight"].double(), parts[f"{stem}.lora_B.weight"].double()
            state[name] = (tensor.double() + ALPHA / RANK * (b @ a)).to(tensor.dtype)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("adapted") / "base", seed=5)


@pytest.mark.parametrize("multi_query", [True, False])
def test_an_adapter_gives_the_oracles_tokens(tmp_path: Path, multi_query: bool) -> None:
    base = make_checkpoint(tmp_path / "base", multi_query=multi_query, seed=6)
    adapter = make_adapter(tmp_path / "adapter", base, dtype=torch.bfloat16)
    whole = merged_by_hand(tmp_path / "whole", base, adapter)
    said = InProcessEngine.of(adapter, dtype="float32").complete(prompt=PROMPT, max_tokens=24)
    assert_same_greedy(said.ids, whole, encode(whole, PROMPT))
    alone = InProcessEngine.of(base, dtype="float32").complete(prompt=PROMPT, max_tokens=24)
    assert alone.ids != said.ids


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4"])
def test_every_precision_merges_before_it_rounds(base: Path, tmp_path: Path, dtype: str) -> None:
    adapter = make_adapter(tmp_path / "adapter", base)
    whole = merged_by_hand(tmp_path / "whole", base, adapter)
    both = [
        InProcessEngine.of(folder, dtype=dtype).complete(prompt=PROMPT, max_tokens=16) for folder in (adapter, whole)
    ]
    assert both[0].ids == both[1].ids


def test_a_missing_base_is_named_with_the_way_to_get_it(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(
        tmp_path / "adapter", base, base_model_name_or_path="bigcode/starcoderbase-1b", revision="v1"
    )
    with pytest.raises(
        CheckpointError, match=r"'bigcode/starcoderbase-1b' is not here; get it with: starfill models pull"
    ):
        InProcessEngine.of(adapter)
    gone = make_adapter(tmp_path / "gone", base, base_model_name_or_path=str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="put it back there"):
        InProcessEngine.of(gone)
    chained = make_adapter(tmp_path / "chained", base, base_model_name_or_path=str(gone))
    with pytest.raises(CheckpointError, match="an adapter itself"):
        InProcessEngine.of(chained)


def test_other_weights_than_those_it_was_made_from_are_refused(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base)
    (adapter / NOTE).write_text(json.dumps({"base": {"fingerprint": fingerprint(base)}, "instruct": "alpaca"}))
    assert InProcessEngine.of(adapter).complete(prompt=PROMPT, max_tokens=2).ids
    assert following_of(ModelSource("x", adapter)).form is Form.ALPACA
    other = make_checkpoint(tmp_path / "other", seed=9)
    settings = json.loads((adapter / CONFIG).read_text()) | {"base_model_name_or_path": str(other)}
    (adapter / CONFIG).write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="made for other weights than those of other"):
        InProcessEngine.of(adapter)


def _without(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if part not in name}


FIRST = "base_model.model.transformer.h.0.attn.c_attn"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: _without(s, "h.0.attn.c_attn.lora_B"), "lacks its lora_B"),
        (lambda s: s | {f"{FIRST}.lora_A.weight": torch.ones(RANK, 24)}, r"made for a layer of \[96, 24\], the base model"),
        (lambda s: s | {f"{FIRST}.lora_A.weight": torch.ones(2, 64)}, "has rank 2 and 4, adapter_config.json says 4"),
        (lambda s: s | {f"{FIRST}.lora_B.weight": torch.full((96, RANK), torch.inf)}, "NaN or infinity"),
        (lambda s: s | {f"{FIRST}.lora_B.weight": torch.ones(96, RANK, dtype=torch.int8)}, "is I8"),
        (lambda s: s | {f"{FIRST}.lora_magnitude_vector": torch.ones(96)}, "no part of a plain low-rank adapter"),
        (lambda s: {n.replace("h.0.", "h.7."): t for n, t in s.items()}, "has no such layer"),
        (lambda _: {}, "holds no layer"),
    ],
)  # fmt: skip
def test_an_adapter_of_another_form_is_refused(base: Path, tmp_path: Path, change: Any, said: str) -> None:
    adapter = make_adapter(tmp_path / "adapter", base)
    save_file(change(load_file(adapter / WEIGHTS)), adapter / WEIGHTS)
    with pytest.raises(CheckpointError, match=said):
        InProcessEngine.of(adapter)


@pytest.mark.parametrize(
    "config", [{"peft_type": "IA3"}, {"use_dora": True}, {"use_rslora": True}, {"bias": "all"}, {"r": 0},
               {"lora_alpha": -1.0}, {"rank_pattern": {"c_attn": 2}}, {"fan_in_fan_out": True},
               {"alora_invocation_tokens": [5, 6]}, {"arrow_config": {"top_k": 3}}, {"use_bdlora": {"nblocks": 2}},
               {"lora_bias": True}, {"use_qalora": True}, {"target_parameters": ["experts"]}, {"not_known_yet": 0.5},
               {"init_lora_weights": "pissa"}, {"init_lora_weights": "pissa_niter_4"}, {"init_lora_weights": "olora"}],
    ids=str,
)  # fmt: skip
def test_arithmetic_that_is_not_ours_is_refused(base: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    adapter = make_adapter(tmp_path / "adapter", base, **config)
    with pytest.raises(CheckpointError, match=next(iter(config))):
        InProcessEngine.of(adapter)


def test_what_only_tells_how_an_adapter_was_made_is_no_hindrance(base: Path, tmp_path: Path) -> None:
    plain = make_adapter(tmp_path / "plain", base)
    told = make_adapter(
        tmp_path / "told", base, init_lora_weights="gaussian", lora_dropout=0.05, target_modules=["c_attn"],
        task_type="CAUSAL_LM", megatron_core="megatron.core", loftq_config={}, inference_mode=True, peft_version="0.18.1",
        qalora_group_size=16, layer_replication=None, use_bdlora=None, alora_invocation_tokens=None, lora_bias=False,
        auto_mapping={"parent_library": "transformers"}, arrow_config=None, eva_config=None, trainable_token_indices=None,
    )  # fmt: skip
    ids = [
        InProcessEngine.of(each, kv_memory=2**24).complete(prompt=PROMPT, max_tokens=8).ids for each in (plain, told)
    ]
    assert ids[0] == ids[1]


def test_santacoders_layout_takes_none(base: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text()) | {"model_type": "gpt2", "multi_query": False}
    state = {
        name: tensor.t().contiguous() if ".h." in name and tensor.dim() == 2 else tensor
        for name, tensor in load_file(
            make_checkpoint(tmp_path / "mha", multi_query=False) / "model.safetensors"
        ).items()
    }
    turned = tmp_path / "turned"
    shutil.copytree(base, turned)
    (turned / "config.json").write_text(json.dumps(config))
    save_file(state, turned / "model.safetensors")
    adapter = make_adapter(tmp_path / "adapter", base, base_model_name_or_path=str(turned))
    with pytest.raises(CheckpointError, match="SantaCoder's own layout"):
        InProcessEngine.of(adapter)
