"""Every form that the family is published in is loaded, completes, and gives what its oracle gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.checkpoint.config import read_config
from engine.checkpoint.layouts import TensorMap, check_table
from engine.checkpoint.loader import load_model
from engine.errors import CheckpointError
from engine.gpt_bigcode import GPTBigCode
from engine.loading import LoadOptions, load
from engine.models import ModelSource
from engine.ops import TorchOps
from engine.precision import Precision
from engine.step import Span
from tests.harness.checkpoints import assert_same_greedy, make_checkpoint, oracle_logits
from tests.harness.hostile.spoiling import CONFIG, WEIGHTS, set_key
from tests.harness.inprocess import Completed, InProcessEngine
from tests.harness.published import as_santacoder, santacoder_logits, with_tokens

PREFIX = "import os\n\n\ndef total(values):\n    result = 0\n    for value in values:\n        result = result + 1"
"""Its last pre-token is a digit, which no longer text could change: nothing is held back for healing."""
SUFFIX = "\n    return result\n\n\nprint(total([1, 2, 3]))\n"

REQUESTS: dict[str, dict[str, Any]] = {
    "anchored": {"prompt": PREFIX, "suffix": SUFFIX, "starfill": {"layout": "anchored"}},
    "spm": {"prompt": PREFIX, "suffix": SUFFIX, "starfill": {"layout": "spm"}},
    "psm": {"prompt": PREFIX, "suffix": SUFFIX, "starfill": {"layout": "psm"}},
    "plain": {"prompt": PREFIX},
}


def answers(directory: Path, *, dtype: str = "float32") -> dict[str, Completed]:
    engine = InProcessEngine.of(directory, dtype=dtype, kv_memory=2**26)
    done = {name: engine.complete(**request, max_tokens=16) for name, request in REQUESTS.items()}
    assert not any(each.admitted.healed for each in done.values())
    assert all(len(each.ids) == 16 for each in done.values())
    return done


def model_of(directory: Path, dtype: torch.dtype = torch.float32) -> GPTBigCode:
    name = str(dtype).removeprefix("torch.")
    precision = Precision(name, torch.device("cpu"), dtype, "the test's")
    return load_model(directory, read_config(directory), TorchOps(), precision)


def logprobs(model: GPTBigCode, ids: list[int]) -> torch.Tensor:
    """float32 [T, V]."""
    kv = model.new_kv(1, len(ids))
    rows = torch.arange(len(ids))
    vocabulary = model.shape.vocab_size
    head = model.forward(torch.tensor(ids), rows, (Span(0, 0, len(ids)),), kv, rows, top=vocabulary)
    assert head is not None
    return torch.empty(len(ids), vocabulary).scatter_(1, head.top_ids, head.top_logprobs)


FORMS: dict[str, dict[str, Any]] = {
    "StarCoderBase: float32, head dimension 128": {"n_head": 2, "head_dim": 128},
    "StarCoderBase-3B: 22 heads": {"n_head": 22, "head_dim": 16, "dtype": torch.bfloat16},
    "StarCoder: exact GELU, shards": {"activation_function": "gelu", "shards": 3},
    "tiny_starcoder_py: 12 heads of 64": {"n_head": 12, "head_dim": 64, "n_layer": 1},
    "Granite: deep and sharded, bfloat16": {"n_layer": 9, "shards": 4, "dtype": torch.bfloat16},
    "gpt_bigcode-santacoder: float16, padded vocabulary": {"family": "santacoder", "vocab_size": 896, "dtype": torch.float16},
    "all heads: float32": {"multi_query": False},
    "all heads: float16, three heads": {"multi_query": False, "n_head": 3, "head_dim": 24, "dtype": torch.float16},
    "n_inner of its own": {"config": {"n_inner": 256}},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_transformers_writes_gives_its_tokens(tmp_path: Path, form: dict[str, Any]) -> None:
    directory = make_checkpoint(tmp_path / "m", **form)
    for done in answers(directory).values():
        assert_same_greedy(done.ids, directory, done.prompt)
    ids = done.prompt
    oracle = torch.log_softmax(oracle_logits(directory, ids), -1)
    torch.testing.assert_close(logprobs(model_of(directory), ids), oracle, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("multi_query", [True, False], ids=["multi-query", "multi-head"])
def test_what_transformers_itself_saves_is_read(tmp_path: Path, multi_query: bool) -> None:
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM, PreTrainedTokenizerFast

    source = make_checkpoint(tmp_path / "source", multi_query=multi_query)
    config = GPTBigCodeConfig.from_pretrained(source)
    model = GPTBigCodeForCausalLM.from_pretrained(source, config=config, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "m", max_shard_size="100KB")
    PreTrainedTokenizerFast(tokenizer_file=str(source / "tokenizer.json")).save_pretrained(tmp_path / "m")
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 2
    for done in answers(tmp_path / "m").values():
        assert_same_greedy(done.ids, tmp_path / "m", done.prompt)


def test_fine_tunes_bring_tokens_of_their_own(tmp_path: Path) -> None:
    """WizardCoder adds one token to the vocabulary, StarChat four, and its configuration names other ends."""
    for name, added in {"wizard": ("[PAD]",), "chat": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")}.items():
        directory = make_checkpoint(
            tmp_path / name, vocab_size=768 + len(added), activation_function="gelu", config={"eos_token_id": 768}
        )
        with_tokens(directory, *added)
        engine = InProcessEngine.of(directory, dtype="float32", kv_memory=2**26)
        tokenizer = engine.intake._tokenizer
        assert tokenizer.size == 768 + len(added)
        assert tokenizer.control.end_of_text == 0
        for number, text in enumerate(added, 768):
            assert tokenizer.is_control(number)
            assert number not in tokenizer.encode(f"a{text}b")
            assert tokenizer.encode_raw(text) == [number]
        for each in answers(directory).values():
            assert_same_greedy(each.ids, directory, each.prompt)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["float16 file", "float32 file"])
def test_santacoders_own_layout_is_the_forward_pass_that_its_file_describes(tmp_path: Path, dtype: torch.dtype) -> None:
    source = make_checkpoint(tmp_path / "source", family="santacoder", vocab_size=832, n_positions=256, dtype=dtype)
    directory = as_santacoder(source, tmp_path / "santacoder", dtype=dtype)
    done = answers(directory)
    for name, each in done.items():
        ids = each.prompt + each.ids
        logits = santacoder_logits(directory, ids)
        for step, token in enumerate(each.ids, len(each.prompt) - 1):
            assert logits[step].max() - logits[step, token] <= 1e-4, (name, step)
        ours = logprobs(model_of(directory), ids).double().numpy()
        exact = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        np.testing.assert_allclose(ours, exact, atol=5e-4)
    # The converted form of the same weights gives the same.
    assert {name: each.ids for name, each in done.items()} == {name: each.ids for name, each in answers(source).items()}
    assert torch.equal(logprobs(model_of(directory), ids), logprobs(model_of(source), ids))


@pytest.mark.parametrize("name", ["bias", "masked_bias"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_mask_buffers_are_passed_over_whatever_they_are(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    directory = make_checkpoint(tmp_path / "m")
    before = logprobs(model_of(directory), list(range(30, 50)))
    tensors = load_file(directory / WEIGHTS)
    tensors[f"transformer.h.1.attn.{name}"] = torch.ones(1, 1, 8, 8).tril().to(dtype)
    save_file(tensors, directory / WEIGHTS, {"format": "pt"})
    assert torch.equal(logprobs(model_of(directory), list(range(30, 50))), before)


def test_code_that_a_configuration_names_is_ignored_with_a_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = as_santacoder(make_checkpoint(tmp_path / "s", family="santacoder"), tmp_path / "m")
    read_config(directory)
    assert [record.message for record in caplog.records] == [
        f"{directory / CONFIG}: auto_map is ignored; code from a checkpoint is never run"
    ]


def test_santacoders_end_of_text_is_its_tokenizers(tmp_path: Path) -> None:
    directory = as_santacoder(make_checkpoint(tmp_path / "s", family="santacoder"), tmp_path / "m")
    assert json.loads((directory / CONFIG).read_text())["eos_token_id"] == 50256
    engine = InProcessEngine.of(directory, kv_memory=2**26)
    control = engine.intake._tokenizer.control
    assert (control.end_of_text, control.fim_prefix, control.fim_middle, control.fim_suffix) == (763, 764, 765, 766)
    assert engine.runner.window == 512


def test_santacoder_with_all_heads_is_gpt_2(tmp_path: Path) -> None:
    """The `mha` branch: transformers' own GPT-2 reads the same file."""
    from transformers import GPT2LMHeadModel

    source = make_checkpoint(tmp_path / "source", family="santacoder", multi_query=False, n_head=3, head_dim=16)
    directory = as_santacoder(source, tmp_path / "mha", dtype=torch.float32)
    ids = answers(directory)["psm"].prompt
    oracle = GPT2LMHeadModel.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        expected = torch.log_softmax(oracle(torch.tensor([ids])).logits[0], -1)
    torch.testing.assert_close(logprobs(model_of(directory), ids), expected, atol=2e-4, rtol=1e-4)
    assert torch.equal(logprobs(model_of(directory), ids), logprobs(model_of(source), ids))
    # The heads are not interleaved as in gpt_bigcode: reading it so would give other numbers.
    assert not torch.equal(load_file(directory / WEIGHTS)["transformer.h.0.attn.c_attn.weight"].t(),
                           load_file(source / WEIGHTS)["transformer.h.0.attn.c_attn.weight"])  # fmt: skip


@pytest.mark.parametrize("tokens", [True, False], ids=["with its sisters' tokenizer", "without the tokens"])
def test_a_model_without_fim_completes_from_the_prefix_and_says_so(tmp_path: Path, tokens: bool) -> None:
    """The `no-fim` branch: known by its name where its tokenizer has tokens for the middle all the same."""
    directory = make_checkpoint(tmp_path / "m", family="santacoder")
    if not tokens:
        source = json.loads((directory / "tokenizer.json").read_text())
        source["added_tokens"] = [t for t in source["added_tokens"] if "fim" not in t["content"]]
        (directory / "tokenizer.json").write_text(json.dumps(source))
    name = "bigcode/santacoder@no-fim" if tokens else "m"
    loaded = load(LoadOptions(ModelSource(name, directory), device="cpu", dtype="float32", kv_memory=2**26))
    assert "left to right only" in loaded.note
    engine = InProcessEngine(loaded)
    done = engine.complete(prompt=PREFIX, suffix=SUFFIX, max_tokens=8)
    assert done.admitted.layout == "none"
    assert done.prompt == engine.complete(prompt=PREFIX, max_tokens=8).prompt
    assert_same_greedy(done.ids, directory, done.prompt)
    others = load(LoadOptions(ModelSource("bigcode/santacoder@fim", make_checkpoint(tmp_path / "f")), device="cpu"))
    assert (others.note, others.intake.fills) == ("", True)


def _with_head(directory: Path, change: float, *, tied: bool) -> Path:
    tensors = load_file(directory / WEIGHTS)
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"] * (1 + change)
    save_file(tensors, directory / WEIGHTS, {"format": "pt"})
    set_key(CONFIG, "tie_word_embeddings", tied)(directory)
    return directory


@pytest.mark.parametrize("tied", [True, False], ids=["config says tied", "config says its own"])
@pytest.mark.parametrize("change", [0.0, -2.0], ids=["the same numbers", "other numbers"])
def test_the_head_is_tied_where_it_is_the_same_table(tmp_path: Path, tied: bool, change: float) -> None:
    directory = _with_head(make_checkpoint(tmp_path / "m"), change, tied=tied)
    ids = list(range(30, 70))
    oracle = torch.log_softmax(oracle_logits(directory, ids), -1)
    model = model_of(directory)
    torch.testing.assert_close(logprobs(model, ids), oracle, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_tied_pair_may_have_the_heads_name_alone(tmp_path: Path, dtype: str) -> None:
    """So safetensors' own `save_model` writes it."""
    directory, whole = make_checkpoint(tmp_path / "m"), make_checkpoint(tmp_path / "whole")
    tensors = load_file(directory / WEIGHTS)
    tensors["lm_head.weight"] = tensors.pop("transformer.wte.weight")
    save_file(tensors, directory / WEIGHTS, {"format": "pt"})
    if dtype == "float32":
        ids = list(range(30, 50))
        oracle = torch.log_softmax(oracle_logits(whole, ids), -1)
        torch.testing.assert_close(logprobs(model_of(directory), ids), oracle, atol=2e-4, rtol=1e-4)
    mine, theirs = (
        InProcessEngine.of(each, dtype=dtype, kv_memory=2**26).complete(prompt=PREFIX, max_tokens=12)
        for each in (directory, whole)
    )
    assert mine.ids == theirs.ids
    set_key(CONFIG, "tie_word_embeddings", False)(directory)
    with pytest.raises(CheckpointError, match=r"wte\.weight is missing"):
        model_of(directory)


def test_an_index_may_list_the_head_of_a_tied_model_that_no_shard_holds(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "m", shards=2)
    index = directory / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    listed["weight_map"]["lm_head.weight"] = listed["weight_map"]["transformer.wte.weight"]
    index.write_text(json.dumps(listed))
    ids = list(range(30, 50))
    oracle = torch.log_softmax(oracle_logits(directory, ids), -1)
    torch.testing.assert_close(logprobs(model_of(directory), ids), oracle, atol=2e-4, rtol=1e-4)


def test_tensors_need_not_be_aligned(tmp_path: Path) -> None:
    """Headers of old writers have any length."""
    directory = make_checkpoint(tmp_path / "m")
    ids = list(range(30, 50))
    before = logprobs(model_of(directory), ids)
    raw = (directory / WEIGHTS).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    for pad in (1, 2, 3):
        (directory / WEIGHTS).write_bytes(
            (length + pad).to_bytes(8, "little") + raw[8 : 8 + length] + b" " * pad + raw[8 + length :]
        )
        assert torch.equal(logprobs(model_of(directory), ids), before)


def test_a_number_that_float16_has_not_is_refused_with_the_remedy(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "m")
    tensors = load_file(directory / WEIGHTS)
    tensors["transformer.ln_f.bias"][3] = -70_000.0
    save_file(tensors, directory / WEIGHTS)
    model_of(directory)
    with pytest.raises(
        CheckpointError, match=r"ln_f\.bias: holds 7e\+04, more than float16 can; choose --dtype bfloat16"
    ):
        model_of(directory, torch.float16)


def test_a_shard_that_is_cut_while_it_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_checkpoint(tmp_path / "m")

    def cut(*args: Any) -> TensorMap:
        wanted = check_table(*args)
        raw = (directory / WEIGHTS).read_bytes()
        (directory / WEIGHTS).write_bytes(raw[: len(raw) // 2])
        return wanted

    monkeypatch.setattr("engine.checkpoint.loader.check_table", cut)
    with pytest.raises(CheckpointError, match="was cut while it was read"):
        model_of(directory)


TRUE_WIDTHS: dict[str, tuple[dict[str, Any], bool]] = {
    "tiny_starcoder_py": ({"n_head": 12, "head_dim": 64, "n_positions": 8192}, True),
    "StarCoderBase-1B": ({"n_head": 16, "head_dim": 128, "n_positions": 8192, "dtype": torch.bfloat16}, True),
    "StarCoderBase-3B": ({"n_head": 22, "head_dim": 128, "n_positions": 8192, "shards": 3}, False),
    "StarCoderBase-7B": ({"n_head": 32, "head_dim": 128, "n_positions": 8192, "dtype": torch.bfloat16}, False),
    "StarCoder, WizardCoder, 15.5B": (
        {"n_head": 48, "head_dim": 128, "n_positions": 8192, "dtype": torch.bfloat16, "activation_function": "gelu",
         "shards": 2}, False,
    ),
    "Granite-20B-code, 34B": ({"n_head": 48, "head_dim": 128, "n_positions": 8192, "dtype": torch.float16}, False),
    "all heads, 1B": ({"n_head": 16, "head_dim": 128, "n_positions": 2048, "multi_query": False}, False),
}  # fmt: skip
"""One layer of each at its published width, and whether `make test` has time for it."""


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, id=name, marks=() if quick else pytest.mark.slow)
        for name, (form, quick) in TRUE_WIDTHS.items()
    ],
)
def test_a_layer_at_its_true_width_gives_the_tokens_of_transformers(tmp_path: Path, form: dict[str, Any]) -> None:
    directory = make_checkpoint(tmp_path / "m", n_layer=1, **form)
    for done in answers(directory).values():
        assert_same_greedy(done.ids, directory, done.prompt, tolerance=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_santacoders_layout_at_its_true_width_is_its_forward_pass(tmp_path: Path, dtype: torch.dtype) -> None:
    source = make_checkpoint(
        tmp_path / "s", family="santacoder", n_layer=1, n_head=16, head_dim=128, n_positions=2048, vocab_size=896,
        dtype=dtype,
    )  # fmt: skip
    directory = as_santacoder(source, tmp_path / "m", dtype=dtype)
    done = answers(directory)
    for each in done.values():
        logits = santacoder_logits(directory, each.prompt + each.ids)
        for step, token in enumerate(each.ids, len(each.prompt) - 1):
            assert logits[step].max() - logits[step, token] <= 1e-3
    assert {name: each.ids for name, each in done.items()} == {name: each.ids for name, each in answers(source).items()}
