"""Streamed text with stop strings is what a reader of the whole text would have cut."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.generation import Finish, Generation
from engine.step import Sample
from engine.tokenizer import Tokenizer
from tests.unit.vocabularies import vocabulary

STOPS = st.lists(st.text("abr\n\u00e9", min_size=1, max_size=4), max_size=3).map(tuple)


@st.composite
def token_lists(draw: st.DrawFn) -> list[int]:
    """Random tokens, and texts that the stop strings above are likely to meet, in tokens of one byte or of many."""
    tokenizer = vocabulary("starter")
    tokens: list[int] = []
    for text in draw(st.lists(st.text("abr\n\u00e9 ", max_size=8) | st.sampled_from(("return", "bar\n")), max_size=5)):
        if draw(st.booleans()):
            tokens += tokenizer.encode(text)
        else:
            tokens += [token for byte in text.encode() for token in tokenizer.tokens_along(bytes([byte]))[:1]]
    return tokens + draw(st.lists(st.integers(7, 8_191), max_size=2))


def naive(tokenizer: Tokenizer, tokens: list[int], stop: tuple[str, ...], limit: int) -> tuple[str, Finish | None, int]:
    """-> (text, why it ended, tokens taken), by decoding everything so far at each step."""
    for count in range(1, len(tokens) + 1):
        data = b"".join(map(tokenizer.bytes_of, tokens[:count]))
        ended = count == limit
        text = data.decode("utf-8", "replace") if ended else whole_characters(data)
        found = [text.index(each) for each in stop if each in text]
        if found:
            return text[: min(found)], Finish.STOP, count
        if ended:
            return text, Finish.LENGTH, count
    return b"".join(map(tokenizer.bytes_of, tokens)).decode("utf-8", "replace"), None, len(tokens)


def whole_characters(data: bytes) -> str:
    """The text of `data` but for a character at its end that more bytes could complete."""
    unfinished = next((n for n in (3, 2, 1) if n <= len(data) and could_begin(data[-n:])), 0)
    return data[: len(data) - unfinished].decode("utf-8", "replace")


def could_begin(tail: bytes) -> bool:
    """Whether `tail` is an unfinished character."""
    for last in (b"\x80", b"\xbf", b"\x80\x80", b"\xbf\xbf", b"\x80\x80\x80", b"\xbf\xbf\xbf"):
        try:
            if len((tail + last).decode()) == 1:
                return True
        except UnicodeDecodeError:
            continue
    return False


@given(tokens=token_lists(), stop=STOPS, limit=st.integers(1, 60))
@example(tokens=[133, 133], stop=(), limit=3)  # the first bytes of two characters
@settings(max_examples=200, deadline=None)
def test_the_stream_shows_what_cutting_the_whole_text_would(
    tokens: list[int], stop: tuple[str, ...], limit: int
) -> None:
    tokenizer = vocabulary("starter")
    target = Generation(1, tokenizer, [5], limit, tokenizer.is_control, stop=stop)
    text, finish, taken = "", None, 0
    for token in tokens:
        delta = target.accept(Sample(token, 0.0))
        text, finish, taken = text + delta.text, delta.finish, taken + 1
        if finish:
            break
    expected, why, count = naive(tokenizer, tokens, stop, limit)
    if why is None:
        text += target.close().text
        if any(each in expected for each in stop):
            return  # the last, broken character became part of a stop string: cut at the very end
    assert (text, finish, taken) == (expected, why, count)


@given(tokens=token_lists(), stop=STOPS)
@settings(max_examples=200, deadline=None)
def test_nothing_that_was_shown_is_ever_part_of_a_stop_string(tokens: list[int], stop: tuple[str, ...]) -> None:
    tokenizer = vocabulary("starter")
    target = Generation(1, tokenizer, [5], 1_000, tokenizer.is_control, stop=stop)
    shown = ""
    for token in tokens:
        delta = target.accept(Sample(token, 0.0))
        shown += delta.text
        assert not any(each in shown for each in stop)
        if delta.finish:
            return
    shown += target.close().text
    assert not any(each in shown for each in stop)
