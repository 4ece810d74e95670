"""The models' cards' own snippets: `generate --raw` gives the tokens of transformers' `generate`, and stops where it does."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file

from engine.generation import Finish
from tests.harness.cards import CARDS, Card
from tests.harness.checkpoints import make_checkpoint
from tests.harness.hostile.spoiling import TOKENIZER, WEIGHTS
from tests.harness.inprocess import InProcessEngine
from tests.harness.process import isolated_env, temporary_home
from tests.harness.published import as_santacoder, with_tokens

N = 24


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cards")


@functools.cache
def _made(root: Path, name: str) -> tuple[Path, Path]:
    """A checkpoint in the card's form, and one with the same weights that transformers reads."""
    card = CARDS[name]
    source = make_checkpoint(root / name.replace("/", "--"), **card.form)
    with_tokens(source, *card.added)
    if not card.own_layout:
        return source, source
    return as_santacoder(source, root / f"{source.name}, own layout", dtype=torch.float32), source


@functools.cache
def _engine(directory: Path) -> InProcessEngine:
    return InProcessEngine.of(directory, dtype="float32", kv_memory=2**26)


@functools.cache
def _library(directory: Path, _written_ns: int) -> tuple[Any, Any]:
    from transformers import GPTBigCodeForCausalLM, PreTrainedTokenizerFast

    model = GPTBigCodeForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    return PreTrainedTokenizerFast(tokenizer_file=str(directory / TOKENIZER)), model


def _by_transformers(directory: Path, prompt: str, n: int, ends: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """What the snippet does: tokenizer, `generate`, decode. -> (prompt's ids, generated ids up to the end)"""
    tokenizer, model = _library(directory, (directory / WEIGHTS).stat().st_mtime_ns if _single(directory) else 0)
    stops = tokenizer.convert_tokens_to_ids(list(ends))
    inputs = tokenizer(prompt, return_tensors="pt").input_ids
    generated: Any = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=n,
        do_sample=False,
        eos_token_id=stops,
        pad_token_id=stops[0],
    )
    ids = generated[0, inputs.shape[1] :].tolist()
    return inputs[0].tolist(), ids[: next((at for at, token in enumerate(ids) if token in stops), n)]


def _single(directory: Path) -> bool:
    return (directory / WEIGHTS).exists()


def _snippets() -> list[tuple[str, str]]:
    return [(name, prompt) for name, card in CARDS.items() for prompt in card.prompts]


@pytest.mark.parametrize(("name", "prompt"), _snippets(), ids=lambda value: value[:40])
def test_a_snippet_gives_the_tokens_of_transformers(root: Path, name: str, prompt: str) -> None:
    directory, readable = _made(root, name)
    ids, expected = _by_transformers(readable, prompt, N, CARDS[name].ends)
    done = _engine(directory).complete(prompt=prompt, max_tokens=N, starfill={"raw": True})
    assert done.prompt == ids
    assert done.ids == expected
    assert len(done.ids) == N


@pytest.mark.parametrize("name", ["HuggingFaceH4/starchat-beta", "bigcode/starcoderbase-1b", "bigcode/santacoder"])
def test_it_stops_where_the_snippet_does(tmp_path: Path, name: str) -> None:
    """The end's row of the head is made that of a token which is said later on, and a little longer."""
    card: Card = CARDS[name]
    source = with_tokens(make_checkpoint(tmp_path / "source", **card.form), *card.added)
    prompt = card.prompts[0]
    _, before = _by_transformers(source, prompt, N, card.ends)
    end = tokenizers.Tokenizer.from_file(str(source / TOKENIZER)).token_to_id(card.ends[0])
    tensors = load_file(source / WEIGHTS)
    wte = tensors["transformer.wte.weight"]
    wte[end] = 1.5 * wte[before[6]]
    save_file(tensors, source / WEIGHTS, {"format": "pt"})
    _, expected = _by_transformers(source, prompt, N, card.ends)
    assert 0 < len(expected) < N
    directory = as_santacoder(source, tmp_path / "own", dtype=torch.float32) if card.own_layout else source
    done = InProcessEngine.of(directory, dtype="float32", kv_memory=2**26).complete(
        prompt=prompt, max_tokens=N, starfill={"raw": True}
    )
    assert done.ids[: len(expected)] == expected
    assert done.finish is Finish.STOP
    assert len(done.ids) <= len(expected) + 1
    assert not any(text in done.text for text in card.ends)


@pytest.mark.parametrize(
    "name",
    [
        "bigcode/santacoder",
        *(pytest.param(name, marks=pytest.mark.slow) for name in CARDS if name != "bigcode/santacoder"),
    ],
)
def test_the_command_prints_what_transformers_decodes(root: Path, name: str) -> None:
    directory, readable = _made(root, name)
    decode = tokenizers.Tokenizer.from_file(str(readable / TOKENIZER)).decode
    with temporary_home() as home:
        for prompt in CARDS[name].prompts:
            said = subprocess.run(
                [Path(sys.executable).with_name("starfill"), "generate", "-", "--raw", "--model", str(directory),
                 "--max-tokens", str(N)],
                env=isolated_env(home), cwd=home, input=prompt, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert said.returncode == 0, said.stderr
            assert said.stdout == decode(_by_transformers(readable, prompt, N, CARDS[name].ends)[1])
