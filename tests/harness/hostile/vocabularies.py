"""Spoilt `tokenizer.json`: bombs, clashes, and things that such a file can hold but ours may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.harness.hostile.spoiling import TOKENIZER, Spoil, Spoilt, edit_json, replace_text, set_key, write

_DIGITS = {"type": "Digits", "individual_digits": True}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_EXPONENTIAL = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "a" * 64}
_GROWING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


def _case(name: str, says: str, spoil: Spoil) -> Spoilt:
    return Spoilt(f"tokenizer: {name}", TOKENIZER, says, spoil)


def _set(name: str, key: str, value: object, says: str | None = None) -> Spoilt:
    return _case(name, says or key, set_key(TOKENIZER, key, value))


def _vocab(change: dict[str, object]) -> Spoil:
    return edit_json(TOKENIZER, lambda found: found["model"]["vocab"].update(change))


def _in_model(**make: Callable[[], object]) -> Spoil:
    return edit_json(TOKENIZER, lambda found: found["model"].update({key: made() for key, made in make.items()}))


def _added(**change: object) -> Spoil:
    """One more control token, unlike the first."""

    def spoil(found: Any) -> None:
        found["added_tokens"].append(found["added_tokens"][0] | {"id": 767, "content": "<extra>"} | change)

    return edit_json(TOKENIZER, spoil)


def _without_added(*parts: str) -> Spoil:
    def spoil(found: Any) -> None:
        found["added_tokens"] = [t for t in found["added_tokens"] if not any(part in t["content"] for part in parts)]

    return edit_json(TOKENIZER, spoil)


def _without_byte(found: Any) -> None:
    lost = found["model"]["vocab"].pop("\u0120")  # the blank
    assert isinstance(lost, int)


def _merge(merge: object) -> Spoil:
    return edit_json(TOKENIZER, lambda found: found["model"]["merges"].insert(0, merge))


def _large(found: Any) -> None:
    found["model"]["vocab"] |= {f"t{n}": n for n in range(300_000)}


def _costly() -> bytes:
    """As many values as are let through, in letters that take four bytes each in memory."""
    return json.dumps({"a": ["\U0001f600" + format(n, "07") for n in range(600_000)]}, ensure_ascii=False).encode()


CASES = (
    _case("empty file", "not readable as JSON", write(TOKENIZER, "")),
    _case("cut", "not readable as JSON", write(TOKENIZER, '{"version": "1.0", "model": {"type": "BPE", "vo')),
    _case("a list", "must hold a JSON object", write(TOKENIZER, "[]")),
    _case("20 MiB", "larger than 16 MiB", write(TOKENIZER, b'{"a": "' + b"x" * (20 * 2**20) + b'"}')),
    _case("15 MiB of empty lists", "values", write(TOKENIZER, b'{"a": [' + b"[]," * (5 * 2**20) + b"[]]}")),
    _case("14 MiB of quotes", "strings", write(TOKENIZER, b'{"a": "' + b'\\"' * (7 * 2**20))),
    _case("nested 100,000 deep", "nested deeper", write(TOKENIZER, '{"a":' * 100_000 + "0" + "}" * 100_000)),
    _case("a token twice", "stands there twice", replace_text(TOKENIZER, '"!":', '"!": 5, "!":')),
    _case("a vocabulary of 300,000", "model.vocab", edit_json(TOKENIZER, _large)),
    _case("130,000 ids that are text", "model.vocab.t0", _in_model(vocab=lambda: {f"t{n}": "5" for n in range(130_000)})),
    _case("130,000 merges that are numbers", "model.merges.0", _in_model(merges=lambda: [7] * 130_000)),
    _case("130,000 merges of lists", "model.merges.0", _in_model(merges=lambda: [[[]]] * 130_000)),
    _case("600,000 strings", "model.type", write(TOKENIZER, _costly())),
    _set("a normalizer", "normalizer", {"type": "NFC"}),
    _set("a normalizer of exponential patterns", "normalizer", _EXPONENTIAL),
    _set("normalizers that double the text 64 times", "normalizer", {"type": "Sequence", "normalizers": [_GROWING] * 64}),
    _set("a precompiled normalizer", "normalizer", {"type": "Precompiled", "precompiled_charsmap": "A" * 100_000}),
    _set("a normalizer that is text", "normalizer", "NFC"),
    _set("no pre-tokenizer", "pre_tokenizer", None),
    _set("a pattern of a megabyte", "pre_tokenizer",
         {"type": "Split", "pattern": {"Regex": "(a|b)" * 200_000}, "behavior": "Isolated", "invert": False}),
    _set("an exponential pattern", "pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a*)*b"}, "behavior": "Removed"}),
    _set("a pattern in a sequence", "pre_tokenizer",
         {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "(a*)*"}}, _BYTES]}),
    _set("a thousand pre-tokenizers", "pre_tokenizer", {"type": "Sequence", "pretokenizers": [_DIGITS] * 1_000}),
    _set("digits alone", "pre_tokenizer", _DIGITS, "expected ByteLevel"),
    _set("byte level first", "pre_tokenizer", {"type": "Sequence", "pretokenizers": [_BYTES, _DIGITS]}, "expected ByteLevel"),
    _set("a blank before each text", "pre_tokenizer", _BYTES | {"add_prefix_space": True}, "add_prefix_space"),
    _set("another model", "model.type", "Unigram", "expected 'BPE', not 'Unigram'"),
    _set("a model that is null", "model", None, "model.type"),
    _set("random encoding", "model.dropout", 0.5, "dropout"),
    _set("bytes by fallback", "model.byte_fallback", True, "byte_fallback"),
    _set("a suffix of words", "model.end_of_word_suffix", "</w>", "end_of_word_suffix"),
    _set("a prefix of subwords", "model.continuing_subword_prefix", "##", "continuing_subword_prefix"),
    _set("a vocabulary that is a list", "model.vocab", [["a", 1]], "model.vocab"),
    _set("no vocabulary", "model.vocab", {}, "model.vocab"),
    _case("an id below zero", "model.vocab", _vocab({"zzz": -1})),
    _case("an id of 2**40", "model.vocab", _vocab({"zzz": 2**40})),
    _case("an id that is text", "model.vocab", _vocab({"zzz": "5"})),
    _case("an id that is a flag", "model.vocab", _vocab({"zzz": True})),
    _case("an id that is shared", "share id 30", _vocab({"zzz": 30})),
    _case("a token of 100,000 letters", "model.vocab", _vocab({"z" * 100_000: 768})),
    _case("an empty token", "model.vocab", _vocab({"": 768})),
    _case("half a surrogate pair", "model.vocab", replace_text(TOKENIZER, '"!":', '"\\ud800": 768, "!":')),
    _case("ids that the model has not", "vocab_size in config.json is 768", _vocab({"zzz": 768})),
    _case("a byte without a token", "no token for 1 of the 256 bytes, 0x20", edit_json(TOKENIZER, _without_byte)),
    _case("a merge of what is no token", "number 0", _merge(["zzz", "yyy"])),
    _case("a merge into what is no token", "number 0", _merge(["\u0120", "\u00ff"])),
    _case("a merge of three", "number 0", _merge("a b c")),
    _case("a merge that is a number", "model.merges", _merge(7)),
    _case("merges without number", "model.merges", edit_json(
        TOKENIZER, lambda f: f["model"].update(merges=["a b"] * 300_000))),
    _set("added tokens that are no list", "added_tokens", {"<x>": 1}),
    _set("added tokens that are numbers", "added_tokens", [7]),
    _case("5,000 added tokens", "added_tokens", edit_json(TOKENIZER, lambda f: f.update(
        added_tokens=[{"id": n, "content": f"<{n}>"} for n in range(5_000)]))),
    _case("an added token on another's id", "clashes with", _added(id=30)),
    _case("an added token with two ids", "in model.vocab", _added(content="!", id=900)),
    _case("an added token twice", "same content", _added(content="<|endoftext|>")),
    _case("an added token that is a word", "ordinary text", _added(content="import", id=800)),
    _case("an added token that is a line end", "ordinary text", _added(content="\n\n\n\n\n", id=800)),
    _case("an added token that is a blank", "ordinary text", _added(content="< >", id=800)),
    _case("an added token that is empty", "added_tokens", _added(content="", id=800)),
    _case("an added token of 1,000 letters", "added_tokens", _added(content=f"<{'x' * 1_000}>", id=800)),
    _case("an added token without id", "added_tokens", _added(id=None)),
    _case("an added token past the model", "vocab_size in config.json", _added(id=5_000)),
    _case("an added token of id 2**62", "added_tokens", _added(id=2**62)),
    _case("no end of text", "no <|endoftext|>", _without_added("endoftext")),
    _case("FIM without its middle", "no token for FIM middle", _without_added("fim_middle")),
    _case("FIM without prefix and suffix", "no token for FIM prefix and suffix", _without_added("fim_prefix", "fim_suffix")),
)  # fmt: skip
