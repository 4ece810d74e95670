"""Small byte-level BPE tokenizers in the form of StarCoder's and SantaCoder's, trained here."""

from __future__ import annotations

import functools
import inspect
import json
from typing import Any, Literal

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

Family = Literal["starcoder", "santacoder"]

END_OF_TEXT = "<|endoftext|>"

STARCODER_TOKENS = (
    END_OF_TEXT,
    "<fim_prefix>",
    "<fim_middle>",
    "<fim_suffix>",
    "<fim_pad>",
    "<filename>",
    "<gh_stars>",
    "<issue_start>",
    "<issue_comment>",
    "<issue_closed>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<empty_output>",
    "<commit_before>",
    "<commit_msg>",
    "<commit_after>",
    "<reponame>",
)
SANTACODER_TOKENS = (END_OF_TEXT, "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>")


def control_tokens(family: Family) -> tuple[str, ...]:
    """The control tokens of a family, in the order of their ids."""
    return STARCODER_TOKENS if family == "starcoder" else SANTACODER_TOKENS


@functools.cache
def tokenizer_json(family: Family = "starcoder", size: int = 768) -> str:
    """`tokenizer.json` with `size` tokens in all.

    Digits stand alone, then GPT-2's pre-tokens; no merge across lines beyond what these allow. StarCoder's control
    tokens have the ids from 0, SantaCoder's the last ones.
    """
    control = list(control_tokens(family))
    first = family == "starcoder"
    tokenizer: Any = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size if first else size - len(control),
        special_tokens=control if first else [],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    if not first:
        tokenizer.add_special_tokens(control)
    if tokenizer.get_vocab_size() != size:
        raise ValueError(f"no tokenizer of {size} tokens: between {256 + len(control)} and a few thousand")
    text: str = tokenizer.to_str()
    return text


@functools.cache
def control_ids(family: Family, size: int) -> dict[str, int]:
    """The id of each control token of `tokenizer_json(family, size)`."""
    added = json.loads(tokenizer_json(family, size))["added_tokens"]
    return {token["content"]: token["id"] for token in added}


def corpus() -> list[str]:
    """Texts that small tokenizers are trained on: modules of the standard library."""
    import argparse
    import dataclasses
    import heapq
    import textwrap

    return [inspect.getsource(module) for module in (argparse, dataclasses, heapq, textwrap)]
