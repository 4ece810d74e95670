"""However a stream is cut into pieces, the user sees the same, and never what stands in the document already."""

from __future__ import annotations

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lsp_server.shaping import MAX_LINES, Reason, Scope, Shaper, scope_at, without_overlap
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
TEXTS = st.lists(LINES, max_size=MAX_LINES + 4).map("\n".join)


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[str]]:
    text = draw(TEXTS)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return text, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def pair(text: str) -> tuple[str, list[str]]:
    return text, [text[:7], text[7:]]


def shown(window: Window, pieces: list[str]) -> tuple[str, Reason | None]:
    """What a reader shows who stops the stream as soon as there is enough."""
    shaper = Shaper(window)
    for piece in pieces:
        if shaper.feed(piece).enough:
            break
    return shaper.finish()


@given(window=WINDOWS, stream=streams())
@example(Window("def f():", "\n"), pair("".join(f"\n    {'a' if n in (1, 5, 12) else n}()" for n in range(1, 14))))
@example(Window("def f():\n    ", "\n"), pair("    go()\n" * 6))
@example(Window("x = ", "\n"), pair("f(None, None, None, first_value, second_value, third_value, fourth)\n"))
@settings(max_examples=400, deadline=None)
def test_the_text_is_the_same_in_whatever_pieces_it_comes(window: Window, stream: tuple[str, list[str]]) -> None:
    text, pieces = stream
    assert shown(window, pieces) == shown(window, [text]) == shown(window, list(text))


@given(window=WINDOWS, text=TEXTS)
@settings(max_examples=200, deadline=None)
def test_what_is_shown_is_the_models_own_text_from_its_start(window: Window, text: str) -> None:
    ghost, reason = shown(window, [text])
    assert text.startswith(ghost)
    assert bool(ghost) != bool(reason)
    assert ghost.count("\n") < MAX_LINES
    if scope_at(window) is Scope.LINE:
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
    accepted = shown(Window("x = ", rest + "\n"), [text + rest + "\n"])[0] + rest
    assert accepted in (text + rest, rest)


@given(rest=st.text(st.sampled_from("ab)]:;\"'"), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_the_rest_of_the_line_alone_is_never_shown(rest: str) -> None:
    assert shown(Window("x = ", rest + "\n"), [rest + "\n"]) == ("", Reason.DUPLICATE)
