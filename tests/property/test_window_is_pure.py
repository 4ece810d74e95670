"""The window is a function of text and cursor: bounded, faithful, and the same at every time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_server.buffer import Buffer, Position
from lsp_server.window import MARK, MAX_SIDE, window_at

LINES = st.lists(
    st.tuples(
        st.text(st.sampled_from("ab\u00e9\u4e16\U0001f600\x0c\u2028 "), max_size=6),
        st.sampled_from((1, 7, 300, 3_000)),
        st.sampled_from(("\n", "\r\n", "\r")),
    ).map(lambda line: line[0] * line[1] + line[2]),
    max_size=12,
)


@st.composite
def places(draw: st.DrawFn) -> tuple[str, Position]:
    text = "".join(draw(LINES)) * draw(st.sampled_from((1, 1, 30)))
    lines = Buffer(text).lines
    line = draw(st.integers(0, len(lines) - 1))
    return text, Position(line, draw(st.integers(0, len(lines[line].rstrip("\r\n")))))


def unified(text: str) -> str:
    return "\n".join(text.replace("\r\n", "\n").split("\r"))


@given(place=places())
@settings(max_examples=150, deadline=None)
def test_both_sides_meet_at_the_cursor_are_bounded_and_belong_to_the_text(place: tuple[str, Position]) -> None:
    text, cursor = place
    buffer = Buffer(text)
    window = window_at(buffer, cursor)
    before = unified("".join(buffer.lines[: cursor.line]) + buffer.before(cursor))
    after = unified(buffer.lines[cursor.line][cursor.column :] + "".join(buffer.lines[cursor.line + 1 :]))
    assert before.endswith(window.prefix)
    assert after.startswith(window.suffix)
    assert len(window.prefix.encode()) <= MAX_SIDE
    assert len(window.suffix.encode()) <= MAX_SIDE
    if len(text.encode()) <= MAX_SIDE:
        assert (window.prefix, window.suffix) == (before, after)
    assert window == window_at(Buffer(text), cursor)


@given(
    lines=st.integers(700, 1_500), width=st.integers(90, 200), at=st.floats(0, 1), typed=st.text("ab (", max_size=20)
)
@settings(max_examples=60, deadline=None)
def test_a_key_moves_the_cut_by_whole_marks_or_not_at_all(lines: int, width: int, at: float, typed: str) -> None:
    buffer = Buffer(("x" * (width - 1) + "\n") * lines)
    cursor = Position(round(at * (lines - 1)), width // 2)
    before = window_at(buffer, cursor)
    buffer.replace(cursor, cursor, typed)
    after = window_at(buffer, Position(cursor.line, cursor.column + len(typed)))
    dropped = before.prefix.count("\n") - after.prefix.count("\n")
    assert dropped in (0, MARK)
    assert (cursor.line - after.prefix.count("\n")) % MARK == 0
    assert before.suffix == after.suffix


WIDE = st.sampled_from(
    ("", "\n", "\r", "\r\n", "x", "\u00e9\n" * 40, ("w" * 900 + "\n") * 70, "y" * 70_000, "\r\n" * 200)
)
STEPS = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.booleans(), WIDE, st.floats(0, 1)), min_size=1, max_size=12
)


def _at(buffer: Buffer, part: float) -> Position:
    line = round(part * (len(buffer.lines) - 1))
    return Position(line, round(part * len(buffer.lines[line].rstrip("\r\n"))))


@given(start=WIDE, steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_whatever_was_edited_and_looked_at_before_the_window_is_that_of_the_text(
    start: str, steps: list[tuple[float, float, bool, str, float]]
) -> None:
    buffer = Buffer(start * 3)
    for first, second, near, text, look in steps:
        begin = _at(buffer, first)
        buffer.replace(begin, begin if near else _at(buffer, second), text)
        for cursor in (_at(buffer, first), _at(buffer, look)):
            assert window_at(buffer, cursor) == window_at(Buffer(buffer.text), cursor)
    buffer.set_text(start)
    assert window_at(buffer, _at(buffer, 1.0)) == window_at(Buffer(start), _at(buffer, 1.0))
