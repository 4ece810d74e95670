"""The buffer: what a line is, where out-of-range positions land, what an edit does and what it costs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from lsp_server.buffer import Buffer, Encoding, Position, column_of, split_lines, units_of

ENCODINGS: tuple[Encoding, ...] = ("utf-8", "utf-16", "utf-32")


@dataclass(slots=True)
class Case:
    """One text of the table, and where each (line, character) around it lands."""

    text: str
    before: tuple[int, int]
    past: tuple[int, int]
    rows: dict[tuple[int, str], list[int]]  # columns for the characters from -1 on, by line and encoding


def read_table() -> list[Case]:
    cases: list[Case] = []
    for line in (Path(__file__).parent / "data" / "positions.txt").read_text("utf-8").split("\n"):
        if not line or line.startswith("#"):
            continue
        name, _, rest = line.partition(" ")
        if name == "text":
            cases.append(Case(json.loads(rest), (-1, -1), (-1, -1), {}))
        elif name in ("before", "past"):
            row, _, column = rest.partition(":")
            setattr(cases[-1], name, (int(row), int(column)))
        else:
            encodings, _, columns = rest.partition(" ")
            first, inside, after = columns.split("|")
            assert (len(first), len(after)) == (1, 3)
            for encoding in ENCODINGS if encodings == "all" else encodings.split(","):
                cases[-1].rows[int(name), encoding] = [int(digit) for digit in first + inside + after]
    return cases


CASES = read_table()


def test_the_table_is_whole() -> None:
    assert len(CASES) == len({case.text for case in CASES}) >= 40
    for case in CASES:
        lines = max(line for line, _ in case.rows) + 1
        assert set(case.rows) == {(line, encoding) for line in range(lines) for encoding in ENCODINGS}
    every = "".join(case.text for case in CASES)
    assert {"\f", "\x0b", "\x1c", "\x85", "\u2028", "\u2029", "\u0301", "\ud83d", "\U0010ffff"} <= set(every)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.text))
def test_every_position_around_a_small_text_lands_where_the_table_says(case: Case, encoding: Encoding) -> None:
    buffer = Buffer(case.text, encoding=encoding)
    rows = {line: columns for (line, of), columns in case.rows.items() if of == encoding}
    assert len(buffer.lines) == len(rows)
    widest = max(map(len, rows.values()))
    for line in range(-1, len(rows) + 4):
        for character in range(-1, len(rows.get(line, range(widest))) - 1):
            expected = case.before if line < 0 else case.past
            if line in rows:
                expected = (line, rows[line][character + 1])
            assert buffer.position(line, character) == Position(*expected), (line, character)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_character_far_past_the_end_is_the_end(encoding: Encoding) -> None:
    buffer = Buffer("a\U0001f600\r\nb", encoding=encoding)
    for far in (99, 2**31 - 1, 2**64, 10**40):
        assert buffer.position(0, far) == Position(0, 2)
        assert buffer.position(far, 0) == buffer.position(far, far) == Position(1, 1)
        assert buffer.position(-far, far) == Position(0, 0)
        assert buffer.position(1, -far) == Position(1, 0)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("a", ["a"]),
        ("a\n", ["a\n", ""]),
        ("\r\n\r\n", ["\r\n", "\r\n", ""]),
        ("\n\r", ["\n", "\r", ""]),
        ("a\r\rb", ["a\r", "\r", "b"]),
        ("a\x0cb\x0bc\x85d\u2028e\u2029f\x1cg\x1eh", ["a\x0cb\x0bc\x85d\u2028e\u2029f\x1cg\x1eh"]),
    ],
)
def test_a_line_ends_at_lf_crlf_and_cr_and_at_nothing_else(text: str, lines: list[str]) -> None:
    assert split_lines(text) == lines
    assert list(Buffer(text).lines) == lines


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", [case.text for case in CASES], ids=ascii)
def test_an_insertion_anywhere_leaves_line_ends_and_characters_whole(text: str, encoding: Encoding) -> None:
    pairs = text.count("\r\n")
    for line in range(-1, len(split_lines(text)) + 1):
        for character in range(-1, units_of(text, encoding) + 2):
            buffer = Buffer(text, encoding=encoding)
            at = buffer.position(line, character)
            buffer.replace(at, at, "#")
            assert buffer.text.count("\r\n") == pairs
            assert buffer.text.replace("#", "") == text
            assert list(buffer.lines) == split_lines(buffer.text)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", [case.text for case in CASES], ids=ascii)
def test_a_position_given_back_to_the_client_is_the_one_that_it_would_send(text: str, encoding: Encoding) -> None:
    buffer = Buffer(text, encoding=encoding)
    for line, content in enumerate(buffer.lines):
        for column in range(len(content.rstrip("\r\n")) + 1):
            at = Position(line, column)
            assert buffer.position(line, buffer.character(at)) == at
            assert buffer.before(at) + buffer.after(at) == content.rstrip("\r\n")
            assert len(buffer.before(at)) == column


@pytest.mark.parametrize(
    ("text", "start", "end", "new", "expected"),
    [
        ("a\rb\nc", (1, 0), (1, 1), "", "a\r\nc"),  # what is left of two ends becomes one
        ("a\r", (1, 0), (1, 0), "\n", "a\r\n"),
        ("a\r\n\nb", (0, 1), (1, 0), "", "a\nb"),
        ("a\nb", (0, 1), (0, 1), "\r", "a\r\nb"),
        ("a\r\nb", (0, 1), (0, 1), "x\r", "ax\r\r\nb"),
        ("abc", (0, 2), (0, 1), "X", "aXc"),
        ("", (0, 0), (0, 0), "x\ny", "x\ny"),
        ("one\ntwo\nthree", (0, 0), (2, 5), "", ""),
        ("one\ntwo\nthree", (0, 3), (1, 3), "", "one\nthree"),
        ("one\n", (1, 0), (1, 0), "\n", "one\n\n"),
    ],
)
def test_edits_at_the_seams_of_line_ends(
    text: str, start: tuple[int, int], end: tuple[int, int], new: str, expected: str
) -> None:
    buffer = Buffer(text)
    buffer.replace(Position(*start), Position(*end), new)
    assert buffer.text == expected
    assert list(buffer.lines) == split_lines(expected)


def test_two_halves_of_a_surrogate_pair_that_come_in_two_edits_are_one_character() -> None:
    buffer = Buffer("ab", encoding="utf-16")
    buffer.replace(Position(0, 1), Position(0, 1), "\ud83d")
    after_first = buffer.position(0, 2)
    buffer.replace(after_first, after_first, "\ude00")
    assert buffer.text == "a\U0001f600b"
    assert buffer.position(0, 2) == Position(0, 1)
    assert buffer.position(0, 3) == Position(0, 2)


def test_a_buffer_knows_its_line_end_language_and_version() -> None:
    assert [Buffer(text).end_of_line for text in ("", "a", "a\n", "a\r\nb\n", "a\rb\n")] == [
        "\n",
        "\n",
        "\n",
        "\r\n",
        "\r",
    ]
    buffer = Buffer("a", language="python", version=7)
    assert (buffer.language, buffer.version) == ("python", 7)
    buffer.set_text("b\nc")
    assert list(buffer.lines) == ["b\n", "c"]


def test_units_count_what_each_encoding_counts() -> None:
    text = "a\u00e9\u4e16\U0001f600\ud800"
    assert [units_of(text, encoding) for encoding in ENCODINGS] == [1 + 2 + 3 + 4 + 3, 1 + 1 + 1 + 2 + 1, 5]
    assert [column_of(text, 9, encoding) for encoding in ENCODINGS] == [3, 5, 5]


def test_an_edit_costs_the_same_in_a_long_file_as_in_a_short_one() -> None:
    def seconds(lines: int) -> float:
        buffer = Buffer("    value = compute(value, 1)\r\n" * lines)
        best = float("inf")
        for _ in range(7):
            started = time.perf_counter()
            for n in range(300):
                at = buffer.position(lines // 2 + n % 50, 12)
                buffer.replace(at, at, "x")
                buffer.replace(at, buffer.position(at.line, 13), "")
            best = min(best, time.perf_counter() - started)
        return best

    assert seconds(50_000) < 5 * seconds(1_000)
