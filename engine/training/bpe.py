"""The vocabulary: byte-level BPE with single digits and StarCoder's control tokens at StarCoder's ids."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

CONTROL = (
    "<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<filename>", "<gh_stars>", "<issue_start>",
    "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>",
    "<empty_output>", "<commit_before>", "<commit_msg>", "<commit_after>", "<reponame>",
)  # fmt: skip
"""Ids 0 to 18, as in bigcode/starcoder's tokenizer."""

VOCABULARY = 9_216


@dataclass(frozen=True, slots=True)
class Control:
    """Ids of the control tokens that training uses; the defaults are StarCoder's."""

    end: int = 0
    prefix: int = 1
    middle: int = 2
    suffix: int = 3
    pad: int = 4
    filename: int = 5
    reponame: int = 18


def train(texts: Iterable[str], size: int = VOCABULARY) -> str:
    """Learn the merges -> tokenizer.json. The same texts in the same order give the same vocabulary."""
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in CONTROL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        min_frequency=3,
        max_token_length=24,
    )
    bpe.train_from_iterator(texts, trainer)
    text: str = bpe.to_str()
    return text


class Vocabulary:
    """Text to ids, for training: text never becomes a control token."""

    def __init__(self, tokenizer: str) -> None:
        source = json.loads(tokenizer)
        ids = {token["content"]: int(token["id"]) for token in source["added_tokens"]}
        ids |= {name.replace("-", "_"): number for name, number in ids.items()}  # SantaCoder writes dashes
        self.control = Control(
            end=ids["<|endoftext|>"], prefix=ids["<fim_prefix>"], middle=ids["<fim_middle>"], suffix=ids["<fim_suffix>"],
            pad=ids.get("<fim_pad>", ids["<|endoftext|>"]), filename=ids.get("<filename>", -1),
            reponame=ids.get("<reponame>", -1),
        )  # fmt: skip
        self._bpe: Any = Tokenizer.from_str(
            json.dumps(source | {"added_tokens": [], "truncation": None, "padding": None})
        )
        self._full: Any = Tokenizer.from_str(tokenizer)
        self.json = tokenizer
        self.control_ids = frozenset(ids.values())
        self.size: int = self._full.get_vocab_size(with_added_tokens=True)

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Of a tokenizer.json."""
        return cls(path.read_text(encoding="utf-8"))

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, tokenised on its own."""
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids if text else []
        return ids if self.control_ids.isdisjoint(ids) else self._spelled(ids)

    def count(self, texts: list[str]) -> int:
        """Tokens in all of `texts`, on all cores."""
        return sum(len(encoding) for encoding in self._bpe.encode_batch(texts, add_special_tokens=False))

    def last_pre_token(self, text: str) -> str:
        """What BPE sees last in `text`: the piece that might have tokenised otherwise had the author typed on."""
        tail = text[-512:]
        pieces = self._bpe.pre_tokenizer.pre_tokenize_str(tail) if tail else []
        return tail[pieces[-1][1][0] :] if pieces else ""

    def bytes_of(self) -> list[bytes]:
        """What each id stands for; nothing for control tokens."""
        alphabet = _byte_alphabet()
        table = [b""] * self.size
        for token, number in self._full.get_vocab(with_added_tokens=True).items():
            if number not in self.control_ids:
                table[number] = bytes(alphabet[c] for c in token)
        return table

    @cached_property
    def _sorted(self) -> tuple[list[int], list[bytes]]:
        table = self.bytes_of()
        order = sorted((i for i, text in enumerate(table) if text), key=table.__getitem__)
        return order, [table[i] for i in order]

    def tokens_along(self, held: bytes) -> list[int]:
        """Tokens that may stand where `held` is to be regrown: they start with it, or it starts with them."""
        order, texts = self._sorted
        found = order[bisect_left(texts, held) : bisect_left(texts, held + b"\xff" * 8)]
        for length in range(1, len(held)):
            at = bisect_left(texts, held[:length])
            if at < len(texts) and texts[at] == held[:length]:
                found.append(order[at])
        return found

    def may_continue(self, held: bytes) -> bool:
        """Whether some token reaches over the end of `held`, so that the text after it could tokenise otherwise."""
        _, texts = self._sorted
        for start in range(len(held)):
            at = bisect_left(texts, held[start:] + b"\x00")
            if at < len(texts) and texts[at].startswith(held[start:]):
                return True
        return False

    def _spelled(self, ids: list[int]) -> list[int]:
        # The trained vocabulary holds the control tokens' text as entries of its own; BPE never merges up to them, but
        # a foreign one may.
        spelled: list[int] = []
        for token in ids:
            text = self._full.id_to_token(token)
            spelled += [i for c in text for i in self._bpe.encode(c).ids] if token in self.control_ids else [token]
        return spelled


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte, inverted."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}
