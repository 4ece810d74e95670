"""Tokenizers of other families: the same ids as the library reads from the file, and user text stays text."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import CheckpointError
from engine.tokenizer import Detokenizer, Tokenizer
from engine.transformers_backend.vocabulary import read_other_vocabulary
from tests.harness.families import FAMILIES, family_tokenizer

KINDS = tuple(FAMILIES)

TEXTS = st.text(
    st.one_of(
        st.sampled_from(list(" \n\r\t")),
        st.sampled_from(list("abcxyzA019_.,:;(){}[]<>/'\"#=+-*")),
        st.sampled_from(["é", "ü", "漢", "字", "한", "😀", "\u0301", "\u00a0", "\u2028", "\x00", "¼", "ß"]),
    ),
    max_size=60,
)


@functools.cache
def _ours(kind: str) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(family_tokenizer(kind), "utf-8")
        return Tokenizer(path, read_other_vocabulary(path.parent))


@functools.cache
def _theirs(kind: str) -> Any:
    """The file as it is, its control tokens gone: what a text is when it is nothing but text."""
    file = json.loads(family_tokenizer(kind))
    file["added_tokens"] = [token for token in file["added_tokens"] if token["content"] not in FAMILIES[kind].control]
    return tokenizers.Tokenizer.from_str(json.dumps(file))


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
@settings(max_examples=300, deadline=None)
def test_ids_are_those_of_the_library_though_texts_are_cut_into_pieces(kind: str, text: str) -> None:
    assert _ours(kind).encode(text) == _theirs(kind).encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", KINDS)
def test_real_code_has_the_librarys_ids_and_comes_back(kind: str) -> None:
    code = Path(functools.__file__).read_text("utf-8") + "\n\n<div>\n  <b>x</b>\n</div>\n"
    ids = _ours(kind).encode(code)
    assert ids == _theirs(kind).encode(code, add_special_tokens=False).ids
    assert _ours(kind).decode(ids) == code
    incremental = Detokenizer(_ours(kind))
    assert "".join(map(incremental.feed, ids)) + incremental.finish() == code


@pytest.mark.parametrize("kind", KINDS)
def test_control_tokens_in_user_text_stay_text(kind: str) -> None:
    tokenizer, family = _ours(kind), FAMILIES[kind]
    for text in (*family.control, *(f"a{text}b\n{text}" for text in family.control), "".join(family.control)):
        ids = tokenizer.encode(text)
        assert not any(map(tokenizer.is_control, ids))
        assert tokenizer.decode(ids) == text
    for text in family.control:
        (token,) = tokenizer.encode_raw(text)
        assert tokenizer.is_control(token)
        assert tokenizer.bytes_of(token) == b""


@pytest.mark.parametrize("kind", KINDS)
def test_the_control_tokens_are_known_by_their_families_names(kind: str) -> None:
    tokenizer, family = _ours(kind), FAMILIES[kind]
    control, ids = tokenizer.control, _theirs_ids(kind)
    assert control.has_fim
    assert (control.fim_prefix, control.fim_middle, control.fim_suffix, control.end_of_text) == tuple(
        ids[text] for text in (family.prefix, family.middle, family.suffix, family.end)
    )
    assert control.begin == (ids[family.begin] if family.begin else None)


def _theirs_ids(kind: str) -> dict[str, int]:
    found: dict[str, int] = tokenizers.Tokenizer.from_str(family_tokenizer(kind)).get_vocab(with_added_tokens=True)
    return found


def test_text_tokens_of_codegemma_are_text() -> None:
    tokenizer = _ours("gemma")
    ids = tokenizer.encode("<div>\n\n\nx</div>")
    assert not any(map(tokenizer.is_control, ids))
    assert b"<div>" in map(tokenizer.bytes_of, ids)
    assert b"\n\n\n" in map(tokenizer.bytes_of, ids)


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_can_be_written(kind: str) -> None:
    tokenizer = _ours(kind)
    every = {tokenizer.bytes_of(token) for token in range(tokenizer.size)}
    assert {bytes([byte]) for byte in range(256)} <= every


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "held"),
    [("x = valu", " valu"), ("pass  ", "  "), ("f(a, b", " b"), ("", "")],
)
def test_the_last_pre_token_is_what_a_longer_text_could_change(kind: str, text: str, held: str) -> None:
    assert _ours(kind).last_pre_token(text) == held


SPOILT: dict[str, tuple[dict[str, Any], str]] = {
    "a pattern of its own": (
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}},
        "pre_tokenizer: Split with patterns that are none of those of StarCoder2",
    ),
    "another pre-tokenizer": ({"pre_tokenizer": {"type": "Metaspace"}}, "pre_tokenizer: Metaspace with patterns"),
    "a normalizer of Llama's": (
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]}},
        "normalizer: expected none, NFC, or blanks replaced",
    ),
    "a normalizer that is none": ({"normalizer": [1]}, "normalizer: expected one step"),
    "no BPE": ({"model": {"type": "Unigram", "vocab": []}}, "model.type: expected 'BPE', not 'Unigram'"),
    "no tokens for the middle": ({"added_tokens": []}, "no tokens for fill-in-the-middle that are known here"),
    "a token twice": (
        {"added_tokens": [{"id": 1, "content": "<a>"}, {"id": 2, "content": "<a>"}]},
        "added_tokens:",
    ),
    "an id that is negative": ({"added_tokens": [{"id": -1, "content": "<a>"}]}, "added_tokens.0.id:"),
}


@pytest.mark.parametrize(("change", "says"), SPOILT.values(), ids=SPOILT)
def test_a_file_of_another_form_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(json.loads(family_tokenizer("qwen2")) | change))
    with pytest.raises(CheckpointError) as refused:
        read_other_vocabulary(tmp_path)
    assert says in str(refused.value)
    assert str(tmp_path / "tokenizer.json") in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_vocabulary_without_some_byte_is_refused(tmp_path: Path) -> None:
    file = json.loads(family_tokenizer("gemma"))
    file["model"]["vocab"]["<0xZZ>"] = file["model"]["vocab"].pop("<0x41>")
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(CheckpointError, match="no token for 1 of the 256 bytes, 0x41 for one"):
        read_other_vocabulary(tmp_path)
