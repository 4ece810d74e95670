"""Text to ids and back, by example: control tokens, names of tokens, what is held back, files that are no tokenizers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine.errors import CheckpointError
from engine.tokenizer import Detokenizer, Tokenizer
from tests.harness.bpe import tokenizer_json
from tests.unit.vocabularies import NAMES, control_texts, plain_reference, reference, vocabulary


@pytest.mark.parametrize("name", NAMES)
def test_control_tokens_are_found_however_they_are_spelled(name: str) -> None:
    control, texts = vocabulary(name).control, control_texts(name)
    sign = "-" if name == "santacoder" else "_"
    assert control.end_of_text == texts["<|endoftext|>"]
    assert control.fim_prefix == texts[f"<fim{sign}prefix>"]
    assert control.fim_middle == texts[f"<fim{sign}middle>"]
    assert control.fim_suffix == texts[f"<fim{sign}suffix>"]
    assert (control.filename, control.reponame) == (texts.get("<filename>"), texts.get("<reponame>"))
    assert control.has_fim


@pytest.mark.parametrize("name", NAMES)
def test_control_tokens_in_user_text_are_text(name: str) -> None:
    tokenizer, texts = vocabulary(name), control_texts(name)
    for text in (*texts, *(f"a{text}b\n{text}" for text in texts), "".join(texts)):
        ids = tokenizer.encode(text)
        assert not set(ids) & set(texts.values())
        assert tokenizer.decode(ids) == text
        assert ids == plain_reference(name).encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", NAMES)
def test_control_tokens_act_only_where_they_were_asked_for(name: str) -> None:
    tokenizer, texts = vocabulary(name), control_texts(name)
    for text, token in texts.items():
        assert tokenizer.encode_raw(f"a{text}b") == [*tokenizer.encode("a"), token, *tokenizer.encode("b")]
        assert tokenizer.is_control(token)
        assert tokenizer.bytes_of(token) == b""
        assert tokenizer.label(token) == f"token_id:{token}"
    assert not tokenizer.is_control(tokenizer.encode("a")[0])


@pytest.mark.parametrize("name", NAMES)
def test_every_byte_has_a_token_and_every_token_its_bytes(name: str) -> None:
    tokenizer = vocabulary(name)
    tokens = {tokenizer.bytes_of(token) for token in range(tokenizer.size)}
    assert {bytes([byte]) for byte in range(256)} <= tokens
    assert tokenizer.size == reference(name).get_vocab_size()
    for token in (-1, tokenizer.size, 2**40):
        assert tokenizer.bytes_of(token) == b""
    assert tokenizer.decode([*tokenizer.encode("a"), tokenizer.size + 5]) == "a"


def test_a_control_token_that_is_also_spelled_by_merges_is_spelled_out(tmp_path: Path) -> None:
    source = json.loads(tokenizer_json("santacoder", 768))
    for number, (first, second) in enumerate([("<", "x"), ("<x", ">")], 768):
        source["model"]["vocab"][first + second] = number
        source["model"]["merges"].append([first, second])
    source["added_tokens"].append(source["added_tokens"][0] | {"id": 769, "content": "<x>"})
    tokenizer = Tokenizer(write(tmp_path, source))
    ids = tokenizer.encode("a = <x> f")
    assert not {769} & set(ids)
    assert tokenizer.decode(ids) == "a = <x> f"
    assert 769 in tokenizer.encode_raw("a = <x> f")


def test_added_tokens_keep_their_ids_wherever_they_are(tmp_path: Path) -> None:
    """With gaps between them, and in any order."""
    source = json.loads(tokenizer_json())
    size = 1 + max(*source["model"]["vocab"].values(), *(token["id"] for token in source["added_tokens"]))
    ids = {"<zz>": size + 900, "<yy>": size + 400}
    added = [dict(source["added_tokens"][0], content=text, id=token) for text, token in ids.items()]
    source["added_tokens"] += added
    (tmp_path / "tokenizer.json").write_text(json.dumps(source))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json")
    a, b = tokenizer.encode("a"), tokenizer.encode("b")
    assert tokenizer.encode_raw("a<zz>b<yy>") == [*a, ids["<zz>"], *b, ids["<yy>"]]
    assert tokenizer.size == size + 901
    assert not {*ids.values()} & {*tokenizer.encode("a<zz>b<yy>")}


def test_half_a_surrogate_pair_is_encoded_as_a_question_mark() -> None:
    tokenizer = vocabulary("starter")
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a?b"
    assert tokenizer.encode_raw("a\ud800b") == tokenizer.encode("a?b")
    assert tokenizer.last_pre_token("x = \ud800") == " \ud800"


def test_labels_name_tokens_without_text_of_their_own() -> None:
    tokenizer = vocabulary("starter")
    half = tokenizer.encode("\U0001f600")[0]
    assert re.fullmatch(r"bytes:(\\x[0-9a-f]{2})+", tokenizer.label(half))
    (word,) = tokenizer.encode("return")
    assert tokenizer.label(word) == "return"


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("", ""),
        ("def fi", " fi"),
        ("x = a.b", "b"),
        ("x = a.", "."),
        ("x = 12", "2"),
        ("x = ", " "),
        ("if a:\n", "\n"),
        ("if a:\n    ", "\n    "),
        ("if a:\r\n    ", "\r\n    "),
        ("\u00e9 = w\u00f6r", " w\u00f6r"),
        ("\U0001f600 = \U0001f600\U0001f600", " \U0001f600\U0001f600"),
        ("it's", "'s"),
    ],
)
def test_the_last_pre_token_is_what_more_text_could_change(text: str, last: str) -> None:
    assert vocabulary("starcoder").last_pre_token(text) == last


def test_a_character_is_given_out_when_its_last_byte_has_come() -> None:
    detokenizer = Detokenizer(vocabulary("starter"))
    given = [detokenizer.feed_bytes(bytes([byte])) for byte in "a\u00e9\U0001f600".encode()]
    assert given == ["a", "", "\u00e9", "", "", "", "\U0001f600"]
    assert detokenizer.finish() == ""
    assert detokenizer.feed_bytes(b"\xf0\x9f") == ""
    assert detokenizer.finish() == "\ufffd"


def write(folder: Path, source: Any) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(source if isinstance(source, str) else json.dumps(source), "utf-8")
    return path


BROKEN: dict[str, tuple[Any, str]] = {
    "not JSON": ("{", "not readable as JSON"),
    "a list": ([], "must hold a JSON object"),
    "no model": ({"added_tokens": []}, "model.type: expected 'BPE'"),
    "a word-level model": (
        {
            "version": "1.0",
            "added_tokens": [{"id": 0, "content": "<|endoftext|>"}],
            "model": {"type": "WordLevel", "vocab": {"<|endoftext|>": 0, "a": 1}, "unk_token": "a"},
        },
        "expected 'BPE', not 'WordLevel'",
    ),
    "added tokens of a wrong kind": (json.loads(tokenizer_json()) | {"added_tokens": [7]}, "added_tokens.0: "),
    "no end of text": (json.loads(tokenizer_json("santacoder", 768)) | {"added_tokens": []}, "no <|endoftext|>"),
    "a normalizer": (json.loads(tokenizer_json()) | {"normalizer": {"type": "NFC"}}, "normalizer: expected none"),
}


@pytest.mark.parametrize(("source", "says"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_tokenizer_of_ours_is_refused_by_name(tmp_path: Path, source: Any, says: str) -> None:
    path = write(tmp_path, source)
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: ")) as caught:
        Tokenizer(path)
    assert says in str(caught.value)


def test_a_missing_or_huge_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        Tokenizer(tmp_path / "tokenizer.json")
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(16 * 2**20 + 1)
    with pytest.raises(CheckpointError, match="larger than 16 MiB"):
        Tokenizer(tmp_path / "tokenizer.json")


def test_control_tokens_may_stand_among_the_others(tmp_path: Path) -> None:
    source = json.loads(tokenizer_json("santacoder", 768))
    source["model"]["vocab"] |= {token["content"]: token["id"] for token in source["added_tokens"]}
    source["added_tokens"] = []
    tokenizer = Tokenizer(write(tmp_path, source))
    assert tokenizer.control.has_fim
    assert tokenizer.encode_raw("<fim-prefix>") == [tokenizer.control.fim_prefix]
    assert tokenizer.control.fim_prefix not in tokenizer.encode("<fim-prefix>")


def test_a_tokenizer_that_does_not_split_at_lines_is_encoded_whole(tmp_path: Path) -> None:
    source = json.loads(tokenizer_json())
    source["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer = Tokenizer(write(tmp_path, source))
    text = "def f(x):\n    return x\n"
    plain = json.dumps(source | {"added_tokens": []})
    assert tokenizer.encode(text) == type(reference("starcoder")).from_str(plain).encode(text).ids
