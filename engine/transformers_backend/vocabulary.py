"""`tokenizer.json` of the families that the second backend runs, under our own schema.

How a text is cut up before BPE is one of a closed set of ways, each known by its patterns, which are written here and not
taken from the file. The `tokenizers` library is given what is written out here, never the file.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from engine.checkpoint.control import ControlTokens, find_end_of_turn
from engine.checkpoint.folder import ModelFolder
from engine.checkpoint.json_file import JsonLimits, read_object, refuse, shown
from engine.checkpoint.vocabulary import Id, Token, byte_alphabet, merge_pairs
from engine.errors import CheckpointError
from engine.transformers_backend.splitting import SPACE, Splitting, find_splitting

_LIMITS = JsonLimits(size=48 * 2**20, values=2_500_000)
_MOST_TOKENS = 524_288
_MOST_MERGES = 1_048_576
_MOST_ADDED = 4_096

_STRICT = ConfigDict(strict=True, frozen=True, extra="ignore")

_CONTROL = re.compile(r"<\S*>|\[\S*\]")
_MARKUP = re.compile(r"</?(?!(?:pad|unk|mask|bos|eos)>)[a-z][a-z0-9]*>", re.ASCII)
"""CodeGemma has a token of its own for each of HTML's tags: text like any other."""

_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True, slots=True)
class Spelling:
    """What a family calls its control tokens; empty where it has none."""

    end: str
    prefix: str
    middle: str
    suffix: str
    filename: str = ""
    reponame: str = ""
    begin: str = ""


SPELLINGS = (
    Spelling("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<file_sep>", "<repo_name>"),
    Spelling("<eos>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|file_separator|>", begin="<bos>"),
    Spelling("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|file_sep|>", "<|repo_name|>"),
    Spelling("<｜end▁of▁sentence｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜fim▁hole｜>",
             begin="<｜begin▁of▁sentence｜>"),
)  # fmt: skip
"""StarCoder2, CodeGemma, Qwen2.5-Coder, DeepSeek-Coder. The first one whose tokens are all there is the file's."""


class _Added(BaseModel):
    model_config = _STRICT
    id: Id
    content: Annotated[str, Field(min_length=1, max_length=256)]
    special: bool = False


class _Bpe(BaseModel):
    model_config = _STRICT
    type: Literal["BPE"] = "BPE"
    vocab: Annotated[dict[Token, Id], Field(max_length=_MOST_TOKENS)]
    merges: Annotated[list[str | list[str]], Field(max_length=_MOST_MERGES), FailFast()]
    dropout: None = None
    unk_token: Annotated[str, Field(max_length=256)] | None = None
    continuing_subword_prefix: Literal[""] | None = None
    end_of_word_suffix: Literal[""] | None = None
    byte_fallback: bool | None = None
    ignore_merges: bool = False


class _File(BaseModel):
    model_config = _STRICT
    added_tokens: Annotated[list[_Added], Field(max_length=_MOST_ADDED), FailFast()] = []
    model: _Bpe


@dataclass(frozen=True, slots=True)
class OtherVocabulary:
    """A vocabulary that was checked; see `tokenizer.Vocabulary`."""

    splitting: Splitting
    spelling: Spelling
    vocab: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    ignore_merges: bool
    unknown: str | None
    control: Mapping[str, int]
    marks: Mapping[str, int]
    """All control tokens, also where `control` is left out."""
    texts: Mapping[str, int]
    """Texts that are one token wherever they stand, before BPE sees them."""

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return 1 + max(max(table.values(), default=0) for table in (self.vocab, self.marks, self.texts))

    @property
    def seams(self) -> re.Pattern[str] | None:
        """See `tokenizer.Vocabulary`."""
        return self.splitting.seams

    def without_control(self) -> OtherVocabulary:
        """See `tokenizer.Vocabulary`."""
        return replace(self, control={})

    def for_library(self) -> str:
        """See `tokenizer.Vocabulary`."""
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added = [
            {"id": token, "content": text, "special": table is self.control} | flags
            for table in (self.control, self.texts)
            for text, token in table.items()
        ]
        whole = self.splitting.byte_fallback
        return json.dumps(
            {
                "version": "1.0",
                "added_tokens": sorted(added, key=lambda token: int(token["id"])),
                "normalizer": self.splitting.normalizer(),
                "pre_tokenizer": self.splitting.pre_tokenizer(),
                "model": {
                    "type": "BPE",
                    # The library gives an added token that is not among these the next free id, whatever its own.
                    "vocab": {**self.vocab, **self.texts, **self.control},
                    "merges": self.merges,
                    "ignore_merges": self.ignore_merges,
                    "byte_fallback": whole,
                    "fuse_unk": whole,
                    "unk_token": self.unknown if whole else None,
                },
            }
        )

    def control_tokens(self) -> ControlTokens:
        """See `tokenizer.Vocabulary`."""
        names = self.spelling
        return ControlTokens(
            end_of_text=self.marks[names.end],
            fim_prefix=self.marks[names.prefix],
            fim_middle=self.marks[names.middle],
            fim_suffix=self.marks[names.suffix],
            filename=self.marks.get(names.filename),
            reponame=self.marks.get(names.reponame),
            begin=self.marks.get(names.begin),
            end_of_turn=find_end_of_turn(self.marks),
        )

    def normalised(self, text: str) -> str:
        """See `tokenizer.Vocabulary`."""
        return unicodedata.normalize("NFC", text) if self.splitting.composed and not text.isascii() else text

    def token_bytes(self) -> list[bytes]:
        """See `tokenizer.Vocabulary`."""
        control, table = set(self.marks.values()), [b""] * self.size
        alphabet = byte_alphabet()
        for text, token in self.vocab.items():
            if token in control:
                continue
            if self.splitting.byte_fallback:
                table[token] = text.replace(SPACE, " ").encode("utf-8", "replace")
            elif all(character in alphabet for character in text):
                table[token] = bytes(alphabet[character] for character in text)
            else:
                table[token] = text.encode("utf-8", "replace")
        if self.splitting.byte_fallback:
            for byte, text in enumerate(_BYTES):
                table[self.vocab[text]] = bytes([byte])
            if self.unknown is not None:
                table[self.vocab[self.unknown]] = b""
        for text, token in self.texts.items():
            table[token] = text.encode("utf-8", "replace")
        return table


def read_other_vocabulary(directory: Path, name: str = "tokenizer.json") -> OtherVocabulary:
    """Validate `tokenizer.json`; raises CheckpointError that names the field."""
    folder = ModelFolder(directory)
    path = folder.path(name)
    found = read_object(folder, name, _LIMITS)
    model = found.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if kind != "BPE":
        raise CheckpointError(f"{path}: model.type: expected 'BPE', not {shown(kind)}")
    splitting = find_splitting(path, found.get("normalizer"), found.get("pre_tokenizer"))
    try:
        file = _File.model_validate(found)
    except ValidationError as error:
        refuse(path, error)
    vocab = dict(file.model.vocab)
    _check_ids(path, vocab, file.added_tokens)
    spelling, control = _find_control(path, vocab, file.added_tokens, markup=splitting.byte_fallback)
    texts = {token.content: token.id for token in file.added_tokens if token.content not in control}
    if not splitting.byte_fallback:  # single bytes that the vocabulary was trained without, as DeepSeek-Coder has them
        letters = {text: token for text, token in texts.items() if text in byte_alphabet()}
        vocab |= letters
        texts = {text: token for text, token in texts.items() if text not in letters}
    _check_bytes(path, vocab, splitting)
    unknown = file.model.unk_token if splitting.byte_fallback else None
    if unknown is not None and unknown not in vocab:
        raise CheckpointError(f"{path}: model.unk_token: {shown(unknown)} is not in model.vocab")
    return OtherVocabulary(
        splitting=_only_safe_seams(splitting, vocab),
        spelling=spelling,
        vocab=vocab,
        merges=merge_pairs(path, file.model.merges, vocab),
        ignore_merges=file.model.ignore_merges,
        unknown=unknown,
        control=control,
        marks=control,
        texts=texts,
    )


def _check_ids(path: Path, vocab: Mapping[str, int], added: list[_Added]) -> None:
    """No two tokens may share an id, and none may have two."""
    texts: dict[int, str] = {}
    for text, token in vocab.items():
        if texts.setdefault(token, text) != text:
            raise CheckpointError(f"{path}: model.vocab: {shown(text)} and {shown(texts[token])} share id {token}")
    if len({one.content for one in added}) != len(added):
        raise CheckpointError(f"{path}: added_tokens: two have the same content")
    for one in added:
        if vocab.get(one.content, one.id) != one.id:
            raise CheckpointError(
                f"{path}: added_tokens: {shown(one.content)} has id {one.id}, in model.vocab {vocab[one.content]}"
            )
        if texts.setdefault(one.id, one.content) != one.content:
            raise CheckpointError(
                f"{path}: added_tokens: {shown(one.content)} clashes with {shown(texts[one.id])}, id {one.id}"
            )


def _find_control(
    path: Path, vocab: Mapping[str, int], added: list[_Added], *, markup: bool
) -> tuple[Spelling, dict[str, int]]:
    """-> the family's spelling, and every control token: what is marked special, or written like one.

    With `markup`, HTML's tags are not.
    """
    there = dict(vocab) | {one.content: one.id for one in added}
    spelling = next((each for each in SPELLINGS if _all_in(each, there)), None)
    if spelling is None:
        known = "; ".join(f"{each.prefix} {each.suffix} {each.middle}" for each in SPELLINGS)
        raise CheckpointError(
            f"{path}: added_tokens: no tokens for fill-in-the-middle that are known here ({ascii(known)[1:-1]}); this model "
            "cannot complete code between two texts"
        )
    names = (spelling.end, spelling.prefix, spelling.middle, spelling.suffix, spelling.filename, spelling.reponame,
             spelling.begin)  # fmt: skip
    control = {name: there[name] for name in names if name in there}
    for one in added:
        text = (markup and _MARKUP.fullmatch(one.content)) or one.content in _BYTES
        if one.special or (_CONTROL.fullmatch(one.content) and not text):
            control[one.content] = one.id
    return spelling, control


def _all_in(spelling: Spelling, there: Mapping[str, int]) -> bool:
    needed = (spelling.end, spelling.prefix, spelling.middle, spelling.suffix, spelling.begin)
    return all(name in there for name in needed if name)


def _check_bytes(path: Path, vocab: Mapping[str, int], splitting: Splitting) -> None:
    wanted = dict(zip(_BYTES, range(256), strict=True)) if splitting.byte_fallback else byte_alphabet()
    missing = [byte for text, byte in wanted.items() if text not in vocab]
    if missing:
        raise CheckpointError(
            f"{path}: model.vocab: no token for {len(missing)} of the 256 bytes, 0x{min(missing):02x} for one; text could "
            "not be written in it"
        )


def _only_safe_seams(splitting: Splitting, vocab: Mapping[str, int]) -> Splitting:
    """Without pre-tokens a token might reach over a seam: then no text is cut."""
    if splitting.byte_fallback and splitting.seams is not None and any(map(splitting.seams.search, vocab)):
        return replace(splitting, seams=None)
    return splitting
