"""What surrounds the cursor: everything while it is small, else cut at 96-line marks, never more than 64 KiB a side."""

from __future__ import annotations

import itertools

import pytest

from lsp_server.buffer import Buffer, Position
from lsp_server.window import MARK, MAX_SIDE, Window, window_at

LINE = "x" * 127 + "\n"


def numbered(lines: int, width: int = 128) -> str:
    return "".join(f"{n:06d} ".ljust(width - 1, "x") + "\n" for n in range(lines))


def first_line(text: str) -> int:
    return int(text[:6])


def at(text: str, line: int, column: int) -> Window:
    return window_at(Buffer(text), Position(line, column))


def test_a_small_document_is_there_from_end_to_end() -> None:
    text = "def f():\n    return 1\n\nprint(f())\n"
    window = at(text, 1, 6)
    assert (window.prefix, window.suffix) == ("def f():\n    re", "turn 1\n\nprint(f())\n")
    assert (window.line_before, window.rest_of_line) == ("    re", "turn 1")


@pytest.mark.parametrize(
    ("text", "line", "column", "prefix", "suffix"),
    [
        ("", 0, 0, "", ""),
        ("a", 0, 1, "a", ""),
        ("a\n", 1, 0, "a\n", ""),
        ("a\r\nb\r\n", 1, 1, "a\nb", "\n"),
        ("a\rb\rc", 1, 0, "a\n", "b\nc"),
        ("a\r\n", 0, 1, "a", "\n"),
        ("a\r\r\nb", 1, 0, "a\n", "\nb"),
        ("x\x0cy\u2028z", 0, 3, "x\x0cy", "\u2028z"),
    ],
)
def test_every_line_end_becomes_a_newline_and_nothing_else_changes(
    text: str, line: int, column: int, prefix: str, suffix: str
) -> None:
    assert at(text, line, column) == Window(prefix, suffix)


def test_a_long_document_is_cut_at_marks_counted_from_the_top_and_from_the_end() -> None:
    lines = 4_000
    text = numbered(lines)
    for line in (1_999, 2_000, 2_047, 2_048, 2_049):
        window = at(text, line, 10)
        top = first_line(window.prefix)
        assert top % MARK == 0
        assert MAX_SIDE - MARK * 128 < len(window.prefix) <= MAX_SIDE
        kept = line + 1 + window.suffix.count("\n", 128 - 10)
        assert (lines + 1 - kept) % MARK == 0  # a buffer has one more line, empty, after the last line end
        assert MAX_SIDE - MARK * 128 < len(window.suffix) <= MAX_SIDE
        assert text[top * 128 :].startswith(window.prefix + window.suffix)


def test_typing_moves_the_top_only_by_whole_marks_and_seldom() -> None:
    buffer = Buffer(numbered(600))
    cursor, tops = Position(599, 0), []
    for _ in range(400):
        window = window_at(buffer, cursor)
        tops.append(first_line(window.prefix))
        buffer.replace(cursor, cursor, "typed text, line after line\n" if len(tops) % 8 == 0 else "k")
        cursor = Position(cursor.line + 1, 0) if len(tops) % 8 == 0 else Position(cursor.line, cursor.column + 1)
    moves = [after - before for before, after in itertools.pairwise(tops) if after != before]
    assert all(move > 0 and move % MARK == 0 for move in moves)
    assert len(moves) <= 2


def test_walking_down_leaves_the_end_where_it_is_between_marks() -> None:
    lines, text = 3_000, numbered(3_000)
    ends = [line + at(text, line, 0).suffix.count("\n") for line in range(1_000, 1_200)]
    assert ends == sorted(ends)
    assert {(lines + 1 - end) % MARK for end in ends} == {0}
    assert len(set(ends)) <= 200 // MARK + 2


@pytest.mark.parametrize("sign", ["x", "\u00e9", "\u4e16", "\U0001f600"])
def test_a_giant_line_is_cut_to_what_one_side_may_have(sign: str) -> None:
    text = "first\n" + sign * 200_000 + "\nlast\n"
    window = at(text, 1, 100_000)
    for side in (window.prefix, window.suffix):
        assert set(side) == {sign}
        assert MAX_SIDE // 2 < len(side.encode()) <= MAX_SIDE


def test_typing_in_a_giant_line_does_not_slide_the_cut_at_every_key() -> None:
    text = "".join(f"{n:07d};" for n in range(20_000))
    starts = {at(text, 0, 100_000 + typed).prefix[:64] for typed in range(64)}
    assert len(starts) <= 2


def test_lines_around_a_giant_line_are_kept_whole_or_not_at_all() -> None:
    giant = "y" * (MAX_SIDE + 1)
    text = f"{giant}\none\ntwo\nthree\n{giant}\n"
    assert at(text, 2, 1) == Window("one\nt", "wo\nthree\n")


def test_half_a_surrogate_pair_does_not_leave_the_window() -> None:
    window = at("a = '\ud83d'\nb = '\udc00'\n", 0, 8)
    assert (window.prefix + window.suffix).encode().decode() == "a = '\ufffd'\nb = '\ufffd'\n"


def test_a_cursor_in_long_lines_of_wide_characters_stays_within_both_limits() -> None:
    text = "\u4e16" * 1_000 + "\n"
    window = at(text * 300, 150, 500)
    assert window.prefix.endswith("\n" + "\u4e16" * 500)
    assert window.suffix.startswith("\u4e16" * 500 + "\n")
    for side in (window.prefix, window.suffix):
        assert MAX_SIDE // 2 < len(side.encode()) <= MAX_SIDE


def test_a_key_joins_no_line_but_its_own() -> None:
    buffer = Buffer("line of text\n" * 2_000)
    cursor = Position(1_000, 4)
    window_at(buffer, cursor)
    above, below = buffer.stretches.above(1_000), buffer.stretches.below(1_000)
    assert above is not None
    assert below is not None
    for column in range(4, 40):
        buffer.replace(Position(1_000, column), Position(1_000, column), "x")
        window_at(buffer, Position(1_000, column + 1))
    assert buffer.stretches.above(1_000) is above
    assert buffer.stretches.below(1_000) is below
    buffer.replace(Position(900, 0), Position(901, 0), "")
    assert buffer.stretches.above(999) is None
    assert buffer.stretches.below(1_000) is below


@pytest.mark.parametrize("line", [499, 500, 501])
@pytest.mark.parametrize("text", ["y", "", "\n", "z" * 600, "z" * 70_000])
def test_an_edit_next_to_the_cursor_is_seen(line: int, text: str) -> None:
    buffer = Buffer(("x" * 99 + "\n") * 1_000)
    for at in (Position(500, 0), Position(500, 99)):
        window_at(buffer, at)
        buffer.replace(Position(line, 1), Position(line, 3), text)
        assert window_at(buffer, at) == window_at(Buffer(buffer.text), at)


def test_a_line_that_grows_leaves_less_room_above_and_below_it_and_more_when_it_shrinks() -> None:
    buffer = Buffer(("x" * 99 + "\n") * 1_000)
    for width in (0, 3_000, 9_000, 40_000, 66_000, 9_000, 0):
        end = Position(500, len(buffer.lines[500]) - 1)
        buffer.replace(Position(500, 0), end, "w" * width)
        for cursor in (Position(500, width), Position(500, 0)):
            assert window_at(buffer, cursor) == window_at(Buffer(buffer.text), cursor)
