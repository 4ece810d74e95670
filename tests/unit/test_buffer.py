"""The buffer: what a line is, where out-of-range positions land, what an edit does and what it costs."""

from __future__ import annotations

import time

import pytest

from lsp_server.buffer import Buffer, Encoding, Position, column_of, split_lines, units_of

ENCODINGS: tuple[Encoding, ...] = ("utf-8", "utf-16", "utf-32")

TEXTS = (
    "",
    "\n",
    "\r",
    "\r\n",
    "\n\r",
    "\r\r\n\n",
    "abc",
    "abc\n",
    "abc\r\ndef",
    "a\rb\r\nc\n",
    "\U0001f600",
    "a\U0001f600b\r\n\U0001f600",
    "e\u0301\r\u00e9\n",
    "x\x0cy\n\x0b\x85z\u2028w\u2029",
    "\ud83d",
    "a\udc00b\n",
    "\udc00\ud83d\r\n",
    "\u4e16\u754c\n\u00df",
)


def naive_position(text: str, line: int, character: int, encoding: Encoding) -> tuple[int, int]:
    """(line, column in code points) by the protocol's own words, walking the text from its start."""
    lines, at = [""], 0
    while at < len(text):
        if text[at] == "\r":
            at += 2 if text[at + 1 : at + 2] == "\n" else 1
            lines.append("")
        elif text[at] == "\n":
            at += 1
            lines.append("")
        else:
            lines[-1] += text[at]
            at += 1
    if line < 0:
        return 0, 0
    if line >= len(lines):
        return len(lines) - 1, len(lines[-1])
    width = {"utf-8": 1, "utf-16": 2, "utf-32": 4}[encoding]
    codec = {"utf-8": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}[encoding]
    column = 0
    for stop in range(len(lines[line]) + 1):
        if sum(len(c.encode(codec, "surrogatepass")) // width for c in lines[line][:stop]) <= max(0, character):
            column = stop
    return line, column


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


@pytest.mark.parametrize(
    ("encoding", "text", "line", "character", "expected"),
    [
        ("utf-16", "abc\r\ndef", 0, 3, (0, 3)),
        ("utf-16", "abc\r\ndef", 0, 4, (0, 3)),
        ("utf-16", "abc\r\ndef", 0, 5, (0, 3)),
        ("utf-16", "abc\r\ndef", 1, 99, (1, 3)),
        ("utf-16", "abc\r\ndef", 2, 0, (1, 3)),
        ("utf-16", "abc\n", 1, 5, (1, 0)),
        ("utf-16", "abc\n", 7, 7, (1, 0)),
        ("utf-16", "abc", -1, 2, (0, 0)),
        ("utf-16", "abc", 0, -1, (0, 0)),
        ("utf-16", "", 0, 1, (0, 0)),
        ("utf-16", "a\U0001f600b", 0, 2, (0, 1)),
        ("utf-16", "a\U0001f600b", 0, 3, (0, 2)),
        ("utf-8", "a\U0001f600b", 0, 4, (0, 1)),
        ("utf-8", "a\U0001f600b", 0, 5, (0, 2)),
        ("utf-32", "a\U0001f600b", 0, 2, (0, 2)),
        ("utf-8", "\u00e9\u4e16", 0, 1, (0, 0)),
        ("utf-8", "\u00e9\u4e16", 0, 2, (0, 1)),
        ("utf-8", "\u00e9\u4e16", 0, 5, (0, 2)),
        ("utf-16", "\x0c\u2028x", 0, 2, (0, 2)),
    ],
)
def test_positions_by_hand(encoding: Encoding, text: str, line: int, character: int, expected: tuple[int, int]) -> None:
    assert Buffer(text, encoding=encoding).position(line, character) == Position(*expected)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_every_position_around_a_small_text_is_clamped_as_the_protocol_says(text: str, encoding: Encoding) -> None:
    buffer = Buffer(text, encoding=encoding)
    for line in range(-1, len(buffer.lines) + 3):
        for character in range(-1, units_of(text, encoding) + 3):
            found = buffer.position(line, character)
            expected = naive_position(text, line, character, encoding)
            assert (found.line, found.column) == expected, (line, character)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
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
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
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
