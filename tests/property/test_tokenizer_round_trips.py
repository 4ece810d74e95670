"""Whatever the text: the same ids as the whole text at once, the same text back, never a control token."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.tokenizer import Detokenizer
from tests.unit.vocabularies import NAMES, control_texts, plain_reference, vocabulary

BLANKS = (
    "\n",
    "\r\n",
    "\r",
    " ",
    "\t",
    "\n\n\n",
    "    ",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\xa0",
    "\u2028",
    "\u3000",
    "\u200b",
)
WORDS = (
    "def",
    "return",
    "x",
    "_name",
    "é",
    "世界",
    "\U0001f600",
    "e\u0301",
    "'s",
    "'ll",
    "12",
    "3.5e-7",
    "==",
    "(",
    "):",
    "#",
    "/*",
    "\\",
    '"""',
    "\ufeff",
    "<",
    "fim",
    "_prefix>",
    "<|",
    "\x00",
    "\x7f",
    "\u0660",
    "A" * 40,
    "-" * 200,
)
RUNS = st.tuples(st.sampled_from(BLANKS), st.sampled_from((1, 2, 3, 40, 700))).map(lambda run: run[0] * run[1])
CODE = st.lists(st.sampled_from(WORDS) | RUNS | st.characters(exclude_categories=["Cs"]), max_size=40).map("".join)


@pytest.mark.parametrize("name", NAMES)
@given(text=CODE | st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_piece_by_piece_gives_the_ids_of_the_whole(name: str, text: str) -> None:
    tokenizer = vocabulary(name)
    expected = plain_reference(name).encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text) == expected
    assert tokenizer.encode(text) == expected, "the second time too, from memory"
    assert tokenizer.decode(expected) == text


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@given(text=CODE | st.text(max_size=200))
@settings(max_examples=10_000, deadline=None)
def test_piece_by_piece_gives_the_ids_of_the_whole_for_many_texts(name: str, text: str) -> None:
    assert vocabulary(name).encode(text) == plain_reference(name).encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_user_text_never_becomes_a_control_token(name: str, data: st.DataObject) -> None:
    tokenizer, control = vocabulary(name), control_texts(name)
    literal = st.sampled_from(sorted(control))
    parts = literal | literal.map(lambda text: text[:-1]) | st.sampled_from(WORDS + BLANKS)
    text = "".join(data.draw(st.lists(parts, max_size=12)))
    ids = tokenizer.encode(text)
    assert not set(ids) & set(control.values())
    assert tokenizer.decode(ids) == text


@given(tokens=st.lists(st.integers(0, 8_300), max_size=40), cuts=st.lists(st.integers(0, 200), max_size=10))
@settings(max_examples=200, deadline=None)
def test_text_comes_out_the_same_however_its_bytes_are_split(tokens: list[int], cuts: list[int]) -> None:
    tokenizer = vocabulary("starter")
    by_token, by_piece = Detokenizer(tokenizer), Detokenizer(tokenizer)
    data = b"".join(map(tokenizer.bytes_of, tokens))
    at = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    text = "".join(map(by_token.feed, tokens)) + by_token.finish()
    pieces = [by_piece.feed_bytes(data[a:b]) for a, b in itertools.pairwise(at)]
    assert text == "".join(pieces) + by_piece.finish() == tokenizer.decode(tokens) == data.decode("utf-8", "replace")


HELD = st.sampled_from(WORDS + BLANKS).map(str.encode) | st.binary(min_size=1, max_size=4)


@pytest.mark.parametrize("name", NAMES)
@given(held=HELD.filter(lambda held: len(held) <= 40))
@settings(max_examples=150, deadline=None)
def test_tokens_along_held_text_are_those_that_agree_with_it(name: str, held: bytes) -> None:
    tokenizer = vocabulary(name)
    texts = [tokenizer.bytes_of(token) for token in range(tokenizer.size)]
    agree = [token for token, text in enumerate(texts) if text and (text.startswith(held) or held.startswith(text))]
    along = tokenizer.tokens_along(held)
    assert sorted(along) == agree
    assert len(set(along)) == len(along)


@pytest.mark.parametrize("name", NAMES)
@given(held=HELD.filter(lambda held: len(held) <= 40))
@settings(max_examples=150, deadline=None)
def test_held_text_may_go_on_where_some_token_reaches_over_its_end(name: str, held: bytes) -> None:
    tokenizer = vocabulary(name)
    tails = [held[start:] for start in range(len(held))]
    texts = [tokenizer.bytes_of(token) for token in range(tokenizer.size)]
    reaches = any(len(text) > len(tail) and text.startswith(tail) for text in texts for tail in tails)
    assert tokenizer.may_continue(held) == reaches


@given(text=CODE)
@settings(max_examples=200, deadline=None)
def test_the_last_pre_token_is_the_end_of_the_text(text: str) -> None:
    last = vocabulary("starcoder").last_pre_token(text)
    assert text.endswith(last)
    assert bool(last) == bool(text)
