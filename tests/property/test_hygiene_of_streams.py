"""No stream shows what cannot be seen, or goes on with what looks like a live key, in whichever pieces it comes."""

from __future__ import annotations

import random
import re
import string
import sys
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_server.reasons import Reason
from lsp_server.rules.hygiene import NEAR_LINES, SHOWN_OF_A_KEY, UNSEEN, CleanStream
from lsp_server.window import Window

UNSEEN_SIGNS = (
    "\0\x07\x0b\x0c\x1b\x7f\x85\x9b\xad\u061c\u200b\u200d\u200e\u2028\u2029\u202a\u202e\u2060\u2066\u2069\ufeff\ufffd"
    "\U000e0041\U000e0100\ue000\U0010ffff\ufe0e\ufe0f\U000e007f"
)
SEEN_SIGNS = "ab \t\n\r'\"()é世\U0001f600\u0301\u20e3"
ALPHANUMERIC = string.ascii_letters + string.digits
EMOJI = {
    "a family": "👨\u200d👩\u200d👧\u200d👦",
    "one with a skin colour": "👩🏽\u200d💻",
    "a heart on fire": "❤\ufe0f\u200d🔥",
    "a rainbow flag": "🏳\ufe0f\u200d🌈",
    "a keycap": "1\ufe0f\u20e3",
    "a sign as text": "☎\ufe0e",
    "a flag of letters": "🇫🇷",
    "the flag of England": "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
}
HIDDEN = {
    "a joiner after a letter": ("👨a", "\u200d👩"),
    "a joiner before a letter": ("👨", "\u200da"),
    "two joiners": ("👨", "\u200d\u200d👩"),
    "a selector after a letter": ("a", "\ufe0f"),
    "a selector after a digit": ("1", "\ufe0fx"),
    "two selectors": ("❤\ufe0f", "\ufe0f"),
    "tags after a letter": ("a", "\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"),
    "a text in tags": ("🏴", "\U000e0068\U000e0069\U000e007f"),
    "tags that do not end": ("🏴", "\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067x"),
}
KEYS = {
    "an AWS key": "AKIAIOSFODNN7EXAMPLE",
    "a GitHub token": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "a fine-grained GitHub token": "github_pat_11ABCDEFG0123456789_abcdefghijk",
    "a GitLab token": "glpat-ABC1234567890defghij",
    "a Slack token": "xoxb-123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx",
    "a Stripe key": "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "an Anthropic key": "sk-ant-api03-AbCdEf0123456789",
    "an OpenAI key": "sk-proj-AbCdEf0123456789",
    "a Google key": "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "an npm token": "npm_aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789",
    "a PyPI token": "pypi-AgEIcHlwaS5vcmcCJDAwMDAwMDAw",
    "a Hugging Face token": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567",
}
WORDS = (
    "npm_lifecycle_event", "hf_transformers_home", "AKIA", "sk-learn-contrib-tools", "ghp_", "pypi-publish-action",
    "ASIA_PACIFIC_REGION", "ASIAN_LANGUAGES", "hf_ModelForCausalLM", "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",
    "hf_GPTBigCodeModel", "hf_TRANSFORMERS_CACHE", "npm_config_REGISTRY", "npm_InstallGlobally", "gho_OAuthClientId",
)  # fmt: skip


def shown(pieces: list[str], prefix: str = "", suffix: str = "") -> tuple[str, Reason | None]:
    stream = CleanStream(Window(prefix, suffix))
    text = "".join(map(stream.feed, pieces))
    return text, stream.cut


signs = st.sampled_from(SEEN_SIGNS + UNSEEN_SIGNS) | st.sampled_from("".join(EMOJI.values())) | st.characters()
texts = st.lists(signs | st.sampled_from([*EMOJI.values()]), max_size=30).map("".join)
WITHIN_EMOJI = re.compile(
    "(?<=[0-9#*])\ufe0f(?=\u20e3)|(?<=[^\\d\\w\\s\ufe0e\ufe0f\u200d])[\ufe0e\ufe0f]"
    "|(?<=[^\\w\\s\u200d])\u200d(?=[^\\w\\s\u200d])|(?<=🏴)\U000e0067\U000e0062[\U000e0061-\U000e007a]{3}\U000e007f"
)
"""Wider than what is let through, and said in other words."""
cuts = st.lists(st.integers(0, 30), max_size=4)


def split(text: str, places: list[int]) -> list[str]:
    marks = sorted({0, *(place for place in places if place < len(text)), len(text)})
    return [text[start:end] for start, end in pairwise(marks)]


@settings(max_examples=500, deadline=None)
@given(text=texts, places=cuts, near=texts)
def test_what_is_shown_is_a_beginning_without_anything_unseen_that_is_not_near(
    text: str, places: list[int], near: str
) -> None:
    whole, cut = shown([text], near)
    assert shown(split(text, places), near) == (whole, cut)
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    assert plain.startswith(whole)
    assert all(sign in near for sign in UNSEEN.findall(WITHIN_EMOJI.sub("", near + whole)))
    if cut is None:
        held = plain[len(whole) :]  # whether it is part of an emoji is not known before more comes
        assert not held or (len(held) < 6 and len(UNSEEN.findall(held)) == len(held))
    elif cut is Reason.UNSAFE:
        sign = plain[len(whole)]
        assert UNSEEN.fullmatch(sign)
        assert sign not in near


def test_the_table_has_every_control_format_and_private_character_of_unicode() -> None:
    missing = [
        f"U+{code:04X}"
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
        and not UNSEEN.fullmatch(chr(code))
        and chr(code) not in "\t\n"
    ]
    assert not missing
    for low, high in ((0x202A, 0x202E), (0x2066, 0x2069), (0x200B, 0x200F), (0xFEFF, 0xFEFF), (0xE0000, 0xE007F)):
        assert all(UNSEEN.fullmatch(chr(code)) for code in range(low, high + 1))
    assert all(UNSEEN.fullmatch(chr(plane * 0x10000 + last)) for plane in range(17) for last in (0xFFFE, 0xFFFF))


def test_the_table_has_nothing_that_can_be_seen() -> None:
    seen = {"Lu", "Ll", "Lt", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "Zs"}
    wrong = [
        f"U+{code:04X}"
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in seen and UNSEEN.fullmatch(chr(code))
    ]
    assert not wrong


@pytest.mark.parametrize("sign", UNSEEN_SIGNS, ids=lambda sign: f"U+{ord(sign):04X}")
def test_an_unseen_sign_ends_the_text_unless_the_author_uses_it_near_the_cursor(sign: str) -> None:
    assert shown([f"ab{sign}cd"]) == ("ab", Reason.UNSAFE)
    assert shown([f"ab{sign}cd"], prefix=f"{sign}\n") == (f"ab{sign}cd", None)
    assert shown([f"ab{sign}cd"], suffix=f"\n{sign}") == (f"ab{sign}cd", None)
    far = "\n" * NEAR_LINES
    assert shown([f"ab{sign}cd"], prefix=f"{sign}{far}", suffix=f"{far}{sign}") == ("ab", Reason.UNSAFE)


@pytest.mark.parametrize("emoji", EMOJI.values(), ids=EMOJI)
def test_an_emoji_comes_whole_in_whatever_pieces(emoji: str) -> None:
    text = f"say('{emoji}', '{emoji}{emoji}')"
    assert shown([text]) == (text, None)
    assert shown(list(text)) == (text, None)
    for at in range(1, len(emoji)):
        assert shown([f"{emoji[at:]}')"], prefix=f"say('{emoji[:at]}") == (f"{emoji[at:]}')", None)


@pytest.mark.parametrize(("before", "hidden"), HIDDEN.values(), ids=HIDDEN)
def test_what_only_looks_like_part_of_an_emoji_ends_the_text(before: str, hidden: str) -> None:
    for pieces in ([f"x{before}{hidden};"], list(f"x{before}{hidden};")):
        assert shown(pieces) == (f"x{before}", Reason.UNSAFE)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_key_is_not_shown_whole(key: str) -> None:
    for pieces in ([f"k = '{key}'"], list(f"k = '{key}'")):
        text, cut = shown(pieces)
        assert cut is Reason.SECRET
        assert f"k = '{key}".startswith(text)
        mark = max(
            (mark for mark in ("github_pat_", "sk-ant-", "sk-proj-", "sk_live_", key[:4]) if key.startswith(mark)),
            key=len,
        )
        assert len(text) <= len("k = '") + len(mark) + SHOWN_OF_A_KEY + 2
    half = len(key) // 2 + 4
    assert shown([key[half:]], prefix=f"k = '{key[:half]}") == ("", Reason.SECRET)
    assert shown(["', other"], prefix=f"k = '{key}") == ("', other", None)


@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_begins_like_a_key_is_shown(word: str) -> None:
    for pieces in ([f"f('{word}')"], list(f"f('{word}')")):
        assert shown(pieces) == (f"f('{word}')", None)
    for at in range(1, len(word)):
        assert shown([f"{word[at:]}')"], prefix=f"f('{word[:at]}") == (f"{word[at:]}')", None)


@pytest.mark.parametrize(
    ("mark", "alphabet", "length"),
    [("hf_", string.ascii_letters, 34), ("npm_", ALPHANUMERIC, 36), ("ghp_", ALPHANUMERIC, 36)],
)
def test_a_token_of_letters_alone_is_told_from_a_name_before_much_of_it_is_shown(
    mark: str, alphabet: str, length: int
) -> None:
    rng = random.Random(1)
    shares = []
    for _ in range(1_000):
        token = mark + "".join(rng.choices(alphabet, k=length))
        text, cut = shown([token])
        assert cut is Reason.SECRET
        assert (text, cut) == shown(list(token))
        shares.append(len(text.removeprefix(mark)))
    assert max(shares) < length - 6
    assert sorted(shares)[len(shares) * 95 // 100] <= length * 3 // 5


@settings(max_examples=300, deadline=None)
@given(
    mark=st.sampled_from(("hf_", "npm_", "gho_", "AKIA", "ASIA", "glpat-", "pypi-")),
    run=st.text(st.sampled_from("abXYZ37_-"), max_size=30),
    places=cuts,
)
def test_a_key_is_cut_at_the_same_sign_in_whatever_pieces_it_comes(mark: str, run: str, places: list[int]) -> None:
    text = f"x = {mark}{run};"
    assert shown(split(text, places)) == shown([text]) == shown(list(text))


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
def test_a_private_key_is_not_shown(kind: str) -> None:
    head = f"-----BEGIN {kind}PRIVATE KEY-----"
    assert shown([f'"""{head}\nMIIEvQIBADAN\n']) == (f'"""{head}', Reason.SECRET)
    assert shown(["MIIEvQIBADAN"], prefix=f"{head}\n") == ("", Reason.SECRET)
    assert shown([f'if "{head}" in text:']) == (f'if "{head}" in text:', None)


def test_line_ends_come_as_one_sign() -> None:
    for pieces in (["a\r\nb\rc\nd"], list("a\r\nb\rc\nd"), ["a\r", "\nb\r", "c\nd"]):
        assert shown(pieces) == ("a\nb\nc\nd", None)


def test_a_long_stream_is_looked_at_once() -> None:
    stream = CleanStream(Window("x" * 10_000, "y" * 10_000))
    piece = "value = compute(first, second)\n"
    for _ in range(3_000):
        assert stream.feed(piece) == piece
    assert len(stream._tail) <= 128  # all that is kept of it, however much came
