"""However a stream is cut into pieces, the user sees the same, and never what stands in the document already."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lsp_server.reasons import Reason
from lsp_server.rules.languages import LANGUAGES, PLAIN, Language, by_id
from lsp_server.rules.overlap import without_overlap
from lsp_server.rules.scope import Scope, place_at
from lsp_server.shaping import MAX_LINES, Shaper
from lsp_server.window import Window

WINDOWS = st.sampled_from(
    (
        Window("def f(x):", "\n"),
        Window("def f(x):\n    ", "\n\nprint(1)\n"),
        Window("class A:\n    def f(self):\n        ", ""),
        Window("int f() {\n\t", "\n}\n"),
        Window("", ""),
        Window("x = ", "\ny = 1\n"),
        Window("f(", ")\n"),
        Window("if a:\n    go()\n    ", "\n    go()\n"),
    )
)
LINES = st.sampled_from(
    (
        "",
        "    ",
        "\t",
        "    go()",
        "    a = 1",
        "        b()",
        "}",
        "    }",
        "go()",
        ")",
        "y = 1",
        "\u00e9\U0001f600",
        "  x",
    )
)
ROWS = st.sampled_from((PLAIN, by_id("python"), by_id("c"), by_id("html")))
TEXTS = st.lists(LINES, max_size=MAX_LINES + 4).map("\n".join)


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[str]]:
    text = draw(TEXTS)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return text, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def pair(text: str) -> tuple[str, list[str]]:
    return text, [text[:7], text[7:]]


def shown(window: Window, pieces: list[str], language: Language = PLAIN) -> tuple[str, Reason | None]:
    """What a reader shows who stops the stream as soon as there is enough."""
    shaper = Shaper(window, language)
    for piece in pieces:
        if shaper.feed(piece).enough:
            break
    return shaper.finish()


@given(window=WINDOWS, stream=streams(), language=ROWS)
@example(
    Window("def f():", "\n"), pair("".join(f"\n    {'a' if n in (1, 5, 12) else n}()" for n in range(1, 14))), PLAIN
)
@example(Window("def f():\n    ", "\n"), pair("    go()\n" * 6), PLAIN)
@example(Window("x = ", "\n"), pair("f(None, None, None, first_value, second_value, third_value, fourth)\n"), PLAIN)
@settings(max_examples=400, deadline=None)
def test_the_text_is_the_same_in_whatever_pieces_it_comes(
    window: Window, stream: tuple[str, list[str]], language: Language
) -> None:
    text, pieces = stream
    whole = shown(window, [text], language)
    assert shown(window, pieces, language) == whole == shown(window, list(text), language)


@given(window=WINDOWS, text=TEXTS, language=ROWS)
@settings(max_examples=300, deadline=None)
def test_what_is_shown_is_the_models_own_text_but_for_its_indentation(
    window: Window, text: str, language: Language
) -> None:
    shaper = Shaper(window, language)
    shaper.feed(text)
    ghost, reason = shaper.finish()
    assert shaper.raw.startswith(ghost)
    assert shaper.raw.split() == text.split()
    assert bool(ghost) != bool(reason)
    assert ghost.count("\n") < MAX_LINES
    if place_at(window, language).scope is Scope.LINE and not {"(", "{", "[", '"', "'"} & set(text):
        assert "\n" not in ghost


@given(window=WINDOWS, stream=streams())
@settings(max_examples=200, deadline=None)
def test_enough_is_said_once_and_for_all(window: Window, stream: tuple[str, list[str]]) -> None:
    shaper, final = Shaper(window), None
    for piece in stream[1]:
        now = shaper.feed(piece)
        if final is not None:
            assert now == final
        final = now if now.enough else None


@given(text=st.text(st.sampled_from("ab (),:"), max_size=8), rest=st.text(st.sampled_from("ab )]:;  "), max_size=5))
@settings(max_examples=400, deadline=None)
def test_a_model_that_repeats_the_rest_of_the_line_adds_only_what_comes_before_it(text: str, rest: str) -> None:
    assume(rest.strip())
    assert without_overlap(text + rest.rstrip(), rest) == text


@given(
    text=st.text(st.sampled_from("ab, +."), max_size=8),
    rest=st.text(st.sampled_from("ab)]:; \"'"), min_size=1, max_size=5).filter(str.strip),
)
@settings(max_examples=400, deadline=None)
def test_accepting_a_completion_that_says_the_rest_of_the_line_does_not_double_it(text: str, rest: str) -> None:
    ghost, _ = shown(Window("x = ", rest + "\n"), [text + rest + "\n"])
    assert (text + rest).startswith(ghost)
    assert len(ghost.rstrip()) <= len(text)


@given(rest=st.text(st.sampled_from("ab)]:;\"'"), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_the_rest_of_the_line_alone_is_never_shown(rest: str) -> None:
    assert shown(Window("x = ", rest + "\n"), [rest + "\n"]) == ("", Reason.DUPLICATE)


@given(
    row=st.sampled_from(LANGUAGES),
    prefix=st.text(max_size=60),
    suffix=st.text(max_size=60),
    text=st.text(max_size=60),
)
@settings(max_examples=300, deadline=None)
def test_no_text_in_any_language_makes_shaping_fail(row: Language, prefix: str, suffix: str, text: str) -> None:
    ghost, reason = shown(Window(prefix, suffix), [text], row)
    assert bool(ghost.strip()) == (reason is None)


def test_a_signs_work_does_not_grow_with_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: lines of Python run per sign, early and late in a stream that no rule ends."""
    monkeypatch.setattr("lsp_server.shaping.MAX_LINES", 10**6)
    shaper = Shaper(Window("def f():\n", ""), by_id("python"))
    shaper.feed("    ")
    early = work(shaper, range(400))
    shaper.feed("".join(f"    x{n} = {n * 7919}\n" for n in range(400, 4_000)))
    late = work(shaper, range(4_000, 4_400))
    assert late < 1.2 * early


def work(shaper: Shaper, numbers: range) -> int:
    lines = 0

    def count(_frame: FrameType, event: str, _argument: object) -> Callable[..., Any]:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        for n in numbers:
            for piece in (f"    x{n % 1_000}", " =", f" {n * 7919}", "\n"):
                assert not shaper.feed(piece).enough
    finally:
        sys.settrace(before)
    return lines


def test_a_token_costs_a_fraction_of_a_millisecond() -> None:
    """10,000 tokens of code, stream after stream; processor time of this thread, so that a busy machine counts less."""
    windows = [
        Window("def f(x):\n    ", "\n\nprint(1)\n"),
        Window("value = call(", ")\nother = 1\n"),
        Window("x = ", ""),
    ]
    pieces = ["result", " =", " self", ".", "_read", "(", "path", ",", " mode", '="', "rb", '")', "\n    "]
    costs: list[int] = []
    for number in range(10_000 // 50):
        shaper = Shaper(windows[number % 3], by_id("python"))
        shaper.feed("")
        for token in range(50):
            started = time.thread_time_ns()
            shaper.feed(pieces[(token + number) % len(pieces)])
            costs.append(time.thread_time_ns() - started)
    assert sorted(costs)[len(costs) // 2] < 200_000
