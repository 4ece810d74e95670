"""`tokenizer.json` under our own schema: a byte-level BPE vocabulary, and nothing else of what such a file can hold.

The `tokenizers` library is given what is written out here, never the file: no normalizer, no pattern of the file's own, no
template, no decoder.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from engine.checkpoint.control import ControlTokens, find_end_of_turn
from engine.checkpoint.folder import ModelFolder
from engine.checkpoint.json_file import JsonLimits, read_object, refuse, shown
from engine.errors import CheckpointError

_LIMITS = JsonLimits(size=16 * 2**20, values=400_000)
_MOST_TOKENS = 131_072
_MOST_ADDED = 4_096

END_OF_TEXT = "<|endoftext|>"
_FIM = {"prefix": ("<fim_prefix>", "<fim-prefix>"), "middle": ("<fim_middle>", "<fim-middle>"),
        "suffix": ("<fim_suffix>", "<fim-suffix>")}  # fmt: skip

_BRACKETED = re.compile(r"<\S*>|\[\S*\]")

_BEFORE_LINE_END = re.compile(r"(?<=\S)(?=[\r\n])")
"""A line end after a non-blank character starts a new pre-token under GPT-2's pattern: no letter, digit or punctuation run
crosses a line end, and a blank run starts where the non-blank one ended."""

_STRICT = ConfigDict(strict=True, frozen=True, extra="ignore")

Token = Annotated[str, Field(min_length=1, max_length=1_024)]
Id = Annotated[int, Field(ge=0, lt=1_048_576)]


class _Digits(BaseModel):
    model_config = _STRICT
    type: Literal["Digits"]
    individual_digits: bool = False


class _ByteLevel(BaseModel):
    model_config = _STRICT
    type: Literal["ByteLevel"]
    add_prefix_space: Literal[False]
    use_regex: bool = True


class _Sequence(BaseModel):
    model_config = _STRICT
    type: Literal["Sequence"]
    pretokenizers: Annotated[
        list[Annotated[_Digits | _ByteLevel, Field(discriminator="type")]], Field(min_length=1, max_length=4)
    ]


class _Added(BaseModel):
    model_config = _STRICT
    id: Id
    content: Annotated[str, Field(min_length=1, max_length=256)]


class _Bpe(BaseModel):
    model_config = _STRICT
    type: Literal["BPE"] = "BPE"
    vocab: Annotated[dict[Token, Id], Field(max_length=_MOST_TOKENS)]
    merges: Annotated[list[str | list[str]], Field(max_length=_MOST_TOKENS), FailFast()]
    dropout: None = None
    continuing_subword_prefix: Literal[""] | None = None
    end_of_word_suffix: Literal[""] | None = None
    byte_fallback: Literal[False] | None = None
    ignore_merges: bool = False


class _File(BaseModel):
    model_config = _STRICT
    added_tokens: Annotated[list[_Added], Field(max_length=_MOST_ADDED), FailFast()] = []
    normalizer: None = None
    pre_tokenizer: Annotated[_ByteLevel | _Digits | _Sequence, Field(discriminator="type")]
    model: _Bpe


@dataclass(frozen=True, slots=True)
class VocabularyFile:
    """A vocabulary that was checked: ids and texts agree, every byte has a token, every merge makes one."""

    vocab: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    ignore_merges: bool
    digits: bool | None
    """Whether digits are split off before GPT-2's pattern, and if so, whether one by one."""
    regex: bool
    """Whether GPT-2's pattern is applied at all."""
    control: Mapping[str, int]
    """Texts and ids of the control tokens."""

    def without_control(self) -> VocabularyFile:
        """The same for user text, in which nothing is a control token."""
        return replace(self, control={})

    def for_library(self) -> str:
        """What the `tokenizers` library reads."""
        split: list[dict[str, Any]] = []
        if self.digits is not None:
            split.append({"type": "Digits", "individual_digits": self.digits})
        split.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": self.regex})
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
        return json.dumps(
            {
                "version": "1.0",
                "added_tokens": [
                    {"id": token, "content": text} | flags
                    for text, token in sorted(self.control.items(), key=lambda item: item[1])
                ],
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": split},
                "model": {
                    "type": "BPE",
                    # The library gives an added token that is not among these the next free id, whatever its own.
                    "vocab": {**self.vocab, **self.control},
                    "merges": self.merges,
                    "ignore_merges": self.ignore_merges,
                },
            }
        )

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return 1 + max(max(self.vocab.values()), max(self.control.values(), default=0))

    @property
    def seams(self) -> re.Pattern[str] | None:
        """Where a text may be cut into pieces that tokenise independently of each other; None if nowhere."""
        return _BEFORE_LINE_END if self.regex else None

    def control_tokens(self) -> ControlTokens:
        """The control tokens that mean something to us."""
        fim = find_control(self.control)
        return ControlTokens(
            end_of_text=self.control[END_OF_TEXT],
            fim_prefix=fim["prefix"],
            fim_middle=fim["middle"],
            fim_suffix=fim["suffix"],
            filename=self.control.get("<filename>"),
            reponame=self.control.get("<reponame>"),
            end_of_turn=find_end_of_turn(self.control),
        )

    def normalised(self, text: str) -> str:
        """What is tokenised in place of `text`: the text as it is."""
        return text

    def token_bytes(self) -> list[bytes]:
        """What each id stands for; nothing for control tokens and for ids between."""
        alphabet = byte_alphabet()
        control = set(self.control.values())
        table = [b""] * self.size
        for text, token in self.vocab.items():
            if token not in control:
                table[token] = bytes(alphabet[c] for c in text) if all(c in alphabet for c in text) else text.encode()
        return table


def read_vocabulary(directory: Path, name: str = "tokenizer.json") -> VocabularyFile:
    """Validate `tokenizer.json`; raises CheckpointError that names the field."""
    folder = ModelFolder(directory)
    path = folder.path(name)
    found = read_object(folder, name, _LIMITS)
    _check_kind(path, found)
    try:
        file = _File.model_validate(found)
    except ValidationError as error:
        refuse(path, error)
    control = {token.content: token.id for token in file.added_tokens}
    vocab = file.model.vocab
    _check_ids(path, file, control)
    if not control:  # some files have them among the others, unmarked
        control = {text: vocab[text] for text in (END_OF_TEXT, *itertools.chain(*_FIM.values())) if text in vocab}
    _check_control(path, control)
    missing = [byte for character, byte in byte_alphabet().items() if character not in vocab]
    if missing:
        raise CheckpointError(
            f"{path}: model.vocab: no token for {len(missing)} of the 256 bytes, 0x{min(missing):02x} for one; expected a "
            "byte-level vocabulary"
        )
    parts = file.pre_tokenizer.pretokenizers if isinstance(file.pre_tokenizer, _Sequence) else [file.pre_tokenizer]
    kinds = [part.type for part in parts]
    if kinds not in (["ByteLevel"], ["Digits", "ByteLevel"]):
        raise CheckpointError(
            f"{path}: pre_tokenizer: expected ByteLevel, or Digits and ByteLevel, not {', '.join(kinds)}"
        )
    return VocabularyFile(
        vocab=vocab,
        merges=merge_pairs(path, file.model.merges, vocab),
        ignore_merges=file.model.ignore_merges,
        digits=parts[0].individual_digits if isinstance(parts[0], _Digits) else None,
        regex=isinstance(parts[-1], _ByteLevel) and parts[-1].use_regex,
        control=control,
    )


def check_fits(directory: Path, size: int, vocab_size: int) -> None:
    """Refuse a tokenizer of `size` ids where the model has embeddings for `vocab_size`."""
    if size > vocab_size:
        raise CheckpointError(
            f"{directory / 'tokenizer.json'}: has ids up to {size - 1}, but vocab_size in config.json is {vocab_size}; the "
            "two files are of different models"
        )


def find_control(control: Mapping[str, int]) -> dict[str, int | None]:
    """Ids of `prefix`, `middle` and `suffix`: StarCoder writes them with underscores, SantaCoder with dashes."""
    return {part: next((control[text] for text in texts if text in control), None) for part, texts in _FIM.items()}


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte (Radford et al. 2019, `bytes_to_unicode`), inverted."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


def _check_kind(path: Path, found: dict[str, Any]) -> None:
    """Other kinds of tokenizers are refused for what they are, before their fields are."""
    model = found.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if kind != "BPE":
        raise CheckpointError(f"{path}: model.type: expected 'BPE', not {shown(kind)}")
    normalizer = found.get("normalizer")
    if normalizer is not None:
        kind = normalizer.get("type") if isinstance(normalizer, dict) else normalizer
        raise CheckpointError(f"{path}: normalizer: expected none, not {shown(kind)}; text is encoded as it is")


def _check_ids(path: Path, file: _File, control: Mapping[str, int]) -> None:
    """No two tokens may share an id, and none may have two."""
    vocab = file.model.vocab
    texts: dict[int, str] = {}
    for text, token in vocab.items():
        if texts.setdefault(token, text) != text:
            raise CheckpointError(f"{path}: model.vocab: {shown(text)} and {shown(texts[token])} share id {token}")
    if len(control) != len(file.added_tokens):
        raise CheckpointError(f"{path}: added_tokens: two have the same content")
    for text, token in control.items():
        if vocab.get(text, token) != token:
            raise CheckpointError(f"{path}: added_tokens: {shown(text)} has id {token}, in model.vocab {vocab[text]}")
        if texts.setdefault(token, text) != text:
            raise CheckpointError(f"{path}: added_tokens: {shown(text)} clashes with {shown(texts[token])}, id {token}")


def _check_control(path: Path, control: Mapping[str, int]) -> None:
    if END_OF_TEXT not in control:
        raise CheckpointError(
            f"{path}: added_tokens: no {END_OF_TEXT} among added_tokens; not a StarCoder or SantaCoder tokenizer"
        )
    fim = find_control(control)
    missing = [part for part, token in fim.items() if token is None]
    if missing and len(missing) < len(fim):
        raise CheckpointError(f"{path}: added_tokens: no token for FIM {' and '.join(missing)}, though for the rest")
    for text in control:
        if not _BRACKETED.fullmatch(text):
            raise CheckpointError(f"{path}: added_tokens: {shown(text)} is ordinary text; expected <...> or [...]")


def merge_pairs(path: Path, merges: Sequence[str | list[str]], vocab: Mapping[str, int]) -> tuple[tuple[str, str], ...]:
    """The merges in one form; raises CheckpointError for one that makes no token."""
    pairs: list[tuple[str, str]] = []
    for number, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if len(parts) != 2 or not all(part in vocab for part in parts) or parts[0] + parts[1] not in vocab:
            raise CheckpointError(
                f"{path}: model.merges: number {number}, {shown(merge)}, is no pair that makes a token"
            )
        pairs.append((parts[0], parts[1]))
    return tuple(pairs)
