"""Whatever an editor sends, the buffer holds what the editor holds, in each of the three encodings."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_server.buffer import Buffer, Encoding, split_lines
from tests.harness.text import position_at, span, splice, units

ENCODINGS: tuple[Encoding, ...] = ("utf-8", "utf-16", "utf-32")
SIGNS = "ab \t\n\r\x0c\x0b\x85\x1c\u2028\u2029\u0301\u00e9\u4e16\U0001f600\U0010ffff"


@st.composite
def pieces(draw: st.DrawFn, half: str) -> str:
    """Short texts, line ends often; `half` is a lone surrogate that no other half can complete."""
    return draw(
        st.text(st.sampled_from(SIGNS + half + "\r\n"), max_size=8).map(lambda text: text.replace("ab", "\r\n"))
    )


@st.composite
def scripts(draw: st.DrawFn, edits: int) -> tuple[str, list[tuple[float, float, str]]]:
    half = draw(st.sampled_from(("\ud83d", "\ude00")))
    places = st.floats(0, 1)
    return (
        draw(pieces(half)) + draw(pieces(half)),
        draw(st.lists(st.tuples(places, places, pieces(half)), min_size=1, max_size=edits)),
    )


def play(script: tuple[str, list[tuple[float, float, str]]], encoding: Encoding) -> None:
    text, edits = script
    buffer = Buffer(text, encoding=encoding)
    for first, second, new in edits:
        low, high = sorted(round(place * len(text)) for place in (first, second))
        start, end = position_at(text, low, encoding), position_at(text, high, encoding)
        where = span(start["line"], start["character"], end["line"], end["character"])
        buffer.replace(
            buffer.position(start["line"], start["character"]), buffer.position(end["line"], end["character"]), new
        )
        text = splice(text, where, new, encoding)
        assert buffer.text == text
        assert list(buffer.lines) == split_lines(text)
        assert buffer.size == len(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(script=scripts(edits=20))
@settings(max_examples=100, deadline=None)
def test_the_buffer_equals_the_editors_text_after_every_edit(
    encoding: Encoding, script: tuple[str, list[tuple[float, float, str]]]
) -> None:
    play(script, encoding)


SCRIPTS, EDITS = 300, 200


@pytest.mark.slow
def test_the_buffer_equals_the_editors_text_after_each_of_180_000_edits() -> None:
    played = 0

    @given(seed=st.integers(0, 2**64 - 1))
    @settings(max_examples=SCRIPTS, deadline=None, database=None)
    def script(encoding: Encoding, seed: int) -> None:
        nonlocal played
        random = Random(seed)
        signs = SIGNS + random.choice(("\ud83d", "\ude00")) + "\r\n\r\n"

        def piece() -> str:
            return "".join(random.choices(signs, k=random.randrange(6)))

        places = [sorted((random.random(), random.random())) for _ in range(EDITS)]
        play((piece(), [(low, low + (high - low) / 4, piece()) for low, high in places]), encoding)
        played += EDITS

    for encoding in ENCODINGS:
        script(encoding=encoding)
    assert played == len(ENCODINGS) * SCRIPTS * EDITS == 180_000


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=st.text(st.sampled_from(SIGNS), max_size=30), line=st.integers(0, 40), character=st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_any_position_lands_on_one_that_the_editor_has_too(
    encoding: Encoding, text: str, line: int, character: int
) -> None:
    found = Buffer(text, encoding=encoding).position(line, character)
    before = "".join(split_lines(text)[: found.line]) + split_lines(text)[found.line][: found.column]
    assert text.startswith(before)
    assert not (before.endswith("\r") and text[len(before) :].startswith("\n"))
    assert position_at(text, len(before), encoding) == {
        "line": found.line,
        "character": units(split_lines(text)[found.line][: found.column], encoding),
    }
