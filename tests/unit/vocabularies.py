"""The vocabularies that tests run with: the built-in one, and small ones in StarCoder's and SantaCoder's form."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import tokenizers

from engine.models import STARTER
from engine.tokenizer import Tokenizer
from tests.harness.bpe import tokenizer_json

NAMES = ("starter", "starcoder", "santacoder")


@functools.cache
def vocabulary(name: str) -> Tokenizer:
    """One of `NAMES`, as the engine reads it."""
    if name == "starter":
        return Tokenizer(STARTER / "tokenizer.json")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(_json(name), "utf-8")
        return Tokenizer(path)


@functools.cache
def reference(name: str) -> Any:
    """The same, as the `tokenizers` package reads it: whole texts at once, control tokens acting as such."""
    return tokenizers.Tokenizer.from_str(_json(name))


@functools.cache
def plain_reference(name: str) -> Any:
    """The same again, without control tokens: what a text is when it is nothing but text."""
    return tokenizers.Tokenizer.from_str(json.dumps(json.loads(_json(name)) | {"added_tokens": []}))


@functools.cache
def control_texts(name: str) -> dict[str, int]:
    """Every control token's text and id."""
    added = reference(name).get_added_tokens_decoder()
    return {token.content: number for number, token in added.items()}


def _json(name: str) -> str:
    if name == "starter":
        return (STARTER / "tokenizer.json").read_text("utf-8")
    return tokenizer_json("santacoder" if name == "santacoder" else "starcoder", 768)
