"""Code with a cursor and what the model says -> what the user sees, or the reason why nothing is shown."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lsp_server.reasons import Reason
from lsp_server.rules.languages import PLAIN, by_id
from lsp_server.rules.overlap import repeats_what_follows, without_overlap
from lsp_server.rules.scope import Scope, place_at
from lsp_server.shaping import MAX_LINES, Shaper, wanted
from lsp_server.window import Window

CURSOR = "<|cursor|>"


def window(code: str) -> Window:
    prefix, cursor, suffix = code.partition(CURSOR)
    assert cursor, "a fixture needs a cursor"
    return Window(prefix, suffix)


def scope_at(code: str) -> Scope:
    return place_at(window(code), PLAIN).scope


def show(code: str, model: str) -> str | Reason:
    shaper = Shaper(window(code))
    shaper.feed(model)
    text, reason = shaper.finish()
    assert bool(text) != bool(reason), "either a text or a reason, never both"
    return text or reason or ""


LINE_CASES = {
    "the rest of a line": ("x = <|cursor|>\n", "1 + 2\ny = 3\n", "1 + 2"),
    "to the end of the text": ("x = <|cursor|>", "1 + 2", "1 + 2"),
    "blanks at the end go": ("x = <|cursor|>\n", "1  \n", "1"),
    "blanks alone are nothing": ("x = <|cursor|>\n", "   \n", Reason.NOTHING_TO_ADD),
    "a line end alone is nothing": ("x = 1<|cursor|>\n", "\ny = 2\n", Reason.NOTHING_TO_ADD),
    "silence is nothing": ("x = <|cursor|>\n", "", Reason.NOTHING_TO_ADD),
    "a closed bracket is not doubled": ("f(<|cursor|>)\n", "a, b)\n", "a, b"),
    "the model may leave the bracket out": ("f(<|cursor|>)\n", "a, b\n", "a, b"),
    "several closers": ('d = {"a": [<|cursor|>]}\n', "1, 2]}\n", "1, 2"),
    "only the first of the closers": ("f(g(<|cursor|>))\n", "x)\n", "x"),
    "the bracket and the colon": ("def f(<|cursor|>):\n", "self, x):\n", "self, x"),
    "a string that was closed": ("name = '<|cursor|>'\n", "starfill'\n", "starfill"),
    "a whole rest of line": ("return <|cursor|> + offset\n", "base + offset\n", "base"),
    "a word that only looks alike stays": ("x = <|cursor|>e\n", "value\n", "valu"),
    "a bracket of its own stays": ("f(<|cursor|>)\n", "g(x))\n", "g(x)"),
    "one more bracket of the same kind": ("f(g(x<|cursor|>)\n", "))\n", ")"),
    "an indented statement": ("def f():\n    a = <|cursor|>\n    return a\n", "1\n    return a\n", "1"),
    "the next line again": ("a = 1\n<|cursor|>\nb = load(a)\n", "b = load(a)\n", Reason.DUPLICATE),
    "the next line again, begun already": ("a = 1\nb = <|cursor|>\nb = load(a)\n", "load(a)\n", Reason.DUPLICATE),
    "the next line of a block": ("if a:\n    <|cursor|>\n    log(a)\n", "log(a)\n", Reason.DUPLICATE),
    "the next line that has text": ("a = 1\nb<|cursor|>\n\n\n  b = load(a)\n", " = load(a)\n", Reason.DUPLICATE),
    "a short line may come twice": ("x = 1\n  <|cursor|>\n  y\n", "y\n", "y"),
    "a brace that stands below": ("x = 1\n  <|cursor|>\n  }\n", "}\n", Reason.NOTHING_TO_ADD),
    "words in a loop": ("x = <|cursor|>\n", "a and not b and not b and not b and not b\n", "a and not b"),
    "a loop from the start": ("x = <|cursor|>\n", "not b not b not b not b not b\n", Reason.REPETITION),
    "signs in a row are no loop": ("# <|cursor|>\n", "-" * 40 + "\n", "-" * 40),
    "the very rest of the line": ("print(<|cursor|>value)\n", "value)\n", Reason.DUPLICATE),
    "the very rest of the line, a bracket": ("f(x<|cursor|>)\n", ")\n", Reason.DUPLICATE),
    "a form feed is a character": ("a = '\x0c'\nx = <|cursor|>\n", "'\x0c'\n", "'\x0c'"),
    "a line separator is a character": ("x = <|cursor|>\na = '\u2028'\n", "'\u2028'\ny", "'\u2028'"),
    "what is not seen is not shown": ("x = <|cursor|>\n", "f(1)\u202e # a\n", "f(1)"),
    "nor is a key": ("token = <|cursor|>\n", "load()  # AKIAIOSFODNN7EXAMPLE\n", "load()  # AKIAIOSFODNN"),
    "nothing but what is not seen": ("x = <|cursor|>\n", "\u200bf(1)\n", Reason.UNSAFE),
}

BLOCK_CASES = {
    "a body": ("def f(x):<|cursor|>\n", "\n    return x\n\nprint(f(1))\n", "\n    return x"),
    "a body, from the next line": (
        "def f(x):\n    <|cursor|>\n",
        "y = x\n    return y\nz = 1\n",
        "y = x\n    return y",
    ),
    "a body, from the first column": ("def f(x):\n<|cursor|>", "    return x\n", "    return x"),
    "nested blocks": (
        "for a in b:<|cursor|>\n",
        "\n    if a:\n        print(a)\n    else:\n        pass\ndone()\n",
        "\n    if a:\n        print(a)\n    else:\n        pass",
    ),
    "braces close their block": ("int f() {<|cursor|>\n", "\n    return 1;\n}\nint g() {\n", "\n    return 1;\n}"),
    "one blank line inside": (
        "def f():<|cursor|>\n",
        "\n    a = 1\n\n    return a\n\n\n",
        "\n    a = 1\n\n    return a",
    ),
    "a start of file": ("<|cursor|>", "import os\nimport sys\n", "import os\nimport sys"),
    "tabs count as indentation": ("func f() {<|cursor|>\n", "\n\treturn 1\n}\n\nfunc g() {\n", "\n\treturn 1\n}"),
    "a deeper cursor ends sooner": (
        "class A:\n    def f(self):\n        <|cursor|>\n",
        "return 1\n\n    def g(self):\n        return 2\n",
        "return 1",
    ),
    "lines for the third time are a loop": (
        "def f():\n    <|cursor|>\n",
        "one()\n    go()\n    two()\n    go()\n    two()\n    go()\n    two()\n",
        "one()\n    go()\n    two()",
    ),
    "a short line three times in a row is a loop": (
        "def f():\n    <|cursor|>\n",
        "one()\n    x\n    x\n    x\n    two()\n",
        "one()\n    x",
    ),
    "a line for the third time is none, after others": (
        "def f():\n    <|cursor|>\n",
        "one()\n    go()\n    two()\n    go()\n    three()\n    go()\n    four()\n",
        "one()\n    go()\n    two()\n    go()\n    three()\n    go()\n    four()",
    ),
    "one line again and again": ("def f():\n    <|cursor|>\n", "go()\n" + "    go()\n" * 6, "go()"),
    "only blanks": ("def f():<|cursor|>\n", "\n    \n\n\n", Reason.NOTHING_TO_ADD),
}


@pytest.mark.parametrize(("code", "model", "shown"), LINE_CASES.values(), ids=LINE_CASES)
def test_a_line_is_completed(code: str, model: str, shown: str | Reason) -> None:
    assert scope_at(code) is not Scope.BLOCK
    assert show(code, model) == shown


@pytest.mark.parametrize(("code", "model", "shown"), BLOCK_CASES.values(), ids=BLOCK_CASES)
def test_a_block_is_completed(code: str, model: str, shown: str | Reason) -> None:
    assert scope_at(code) is Scope.BLOCK
    assert show(code, model) == shown


@pytest.mark.parametrize(
    ("code", "scope"),
    [
        ("<|cursor|>", Scope.BLOCK),
        ("\n\n<|cursor|>\n", Scope.BLOCK),
        ("if a:<|cursor|>", Scope.BLOCK),
        ("if a:  <|cursor|>", Scope.BLOCK),
        ("if a:\n<|cursor|>", Scope.BLOCK),
        ("if a:\n    <|cursor|>", Scope.BLOCK),
        ("if a:\n\n\n    <|cursor|>\n", Scope.BLOCK),
        ("x = [\n    <|cursor|>\n]", Scope.BLOCK),
        ("if a:\n    b()\n<|cursor|>", Scope.STATEMENT),
        ("if a:\n    b()\n    <|cursor|>", Scope.STATEMENT),
        ("x = f(<|cursor|>", Scope.LINE),
        ("x = {<|cursor|>", Scope.BLOCK),
        ("x = {<|cursor|>}", Scope.LINE),
        ("if a<|cursor|>:", Scope.LINE),
        ("x = 1\n<|cursor|>\ny = 2\n", Scope.STATEMENT),
    ],
)
def test_a_block_is_offered_only_where_the_author_has_opened_one(code: str, scope: Scope) -> None:
    assert scope_at(code) is scope


def test_a_block_has_at_most_so_many_lines() -> None:
    model = "".join(f"\n    step_{n}()" for n in range(40))
    shaper = Shaper(window("def f():<|cursor|>\n"))
    assert shaper.feed(model).enough
    text, _ = shaper.finish()
    assert text.count("\n") == MAX_LINES - 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("va<|cursor|>lue\n", Reason.MID_WORD),
        ("<|cursor|>_x\n", Reason.MID_WORD),
        ("a<|cursor|>\u00e9\n", Reason.MID_WORD),
        ("x<|cursor|>1\n", Reason.MID_WORD),
        ("value<|cursor|>\n", None),
        ("value<|cursor|>", None),
        ("f(a<|cursor|>)\n", None),
        ("a<|cursor|> = b\n", None),
    ],
)
def test_automatic_completions_are_not_wanted_inside_a_word_but_at_its_end(code: str, reason: Reason | None) -> None:
    assert wanted(window(code)) is reason


@pytest.mark.parametrize(
    ("code", "language", "reason"),
    [
        ("x = call(a, <|cursor|> + b)\n", "python", None),
        ("x = <|cursor|>)  # one\n", "python", None),
        ("# once <|cursor|> a time\n", "python", Reason.MID_TEXT),
        ("# once upon<|cursor|>\n", "python", None),
        ("x = 'once <|cursor|> a time'\n", "python", Reason.MID_TEXT),
        ("x = 'once upon<|cursor|>')\n", "python", None),
        ('"""Once\n<|cursor|>, upon a time.\n"""\n', "python", Reason.MID_TEXT),
        ("// once <|cursor|> a time\n", "python", None),
        ("// once <|cursor|> a time\n", "go", Reason.MID_TEXT),
        ("let x = `one <|cursor|> ${two}`;\n", "javascript", Reason.MID_TEXT),
        ("/* once\n <|cursor|> upon a time */\n", "c", Reason.MID_TEXT),
    ],
)
def test_in_the_middle_of_a_line_of_text_none_is_wanted_and_of_code_it_is(
    code: str, language: str, reason: Reason | None
) -> None:
    assert wanted(window(code), by_id(language)) is reason


@pytest.mark.parametrize(
    ("code", "language", "prose"),
    [
        ("x = <|cursor|>\n", "python", False),
        ("# a <|cursor|>\n", "python", True),
        ('"""A <|cursor|>\n"""\n', "python", True),
        ("x = 'a <|cursor|>'\n", "python", False),
        ("let x = `a <|cursor|>`\n", "javascript", False),
        ("-- a <|cursor|>\n", "lua", True),
        ("<!-- a <|cursor|>\n-->\n", "html", True),
    ],
)
def test_comments_and_texts_of_several_lines_are_prose(code: str, language: str, prose: bool) -> None:
    shaper = Shaper(window(code), by_id(language))
    shaper.feed("b")
    assert shaper.in_prose is prose


def test_the_model_is_stopped_when_it_has_said_enough() -> None:
    line = Shaper(window("x = <|cursor|>\n"))
    assert [line.feed(text).enough for text in ("1", " + 2", "\n")] == [False, False, True]
    block = Shaper(window("def f():<|cursor|>\n"))
    pieces = ("\n", "    return", " 1\n", "\n", "pr")
    assert [block.feed(text).enough for text in pieces] == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("text", "rest", "left"),
    [
        ("a)", ")", "a"),
        ("a)", "", "a)"),
        ("a)", "   ", "a)"),
        ("a\nb)", ")", "a\nb)"),
        ("a", "b", "a"),
        ("value", "e", "valu"),
        ("value", "ex", "value"),
        ("value = 1  # one", "  # one", "value = 1"),
        ("value)  ", ")  ", "value"),
    ],
)
def test_overlap_is_what_stands_right_of_the_cursor_already(text: str, rest: str, left: str) -> None:
    assert without_overlap(text, rest) == left


def test_the_following_line_is_compared_as_a_whole() -> None:
    assert repeats_what_follows("load(a)", window("b = <|cursor|>\nb = load(a)\n"))
    assert not repeats_what_follows("load(a)", window("b = <|cursor|>\nb = load(a, 1)\n"))
    assert not repeats_what_follows("load(a)\nc = 2", window("b = <|cursor|>\nb = load(a)\n"))


@pytest.mark.parametrize("lines_above", [0, 2_000])
@pytest.mark.parametrize(
    ("code", "model", "shown"),
    [
        ("print(<|cursor|>", "x)\n", "x)"),
        ("print(<|cursor|>)\n", "x)\n", "x"),
        ("print(f(<|cursor|>)\n", "x))\n", "x)"),
        ("y = [a, (<|cursor|>]\n", "b, c)]\n", "b, c)"),
    ],
)
def test_a_long_file_closes_its_brackets_like_a_short_one(lines_above: int, code: str, model: str, shown: str) -> None:
    above = "value = compute(1)\n" * lines_above
    assert show(above + code, model) == shown


def test_no_grammar_is_imported_before_there_is_something_to_shape() -> None:
    code = (
        "import sys, lsp_server.stdio, lsp_server.completer, lsp_server.shaping\n"
        "print([m for m in sys.modules if m.startswith(('tree_sitter', 'rapidfuzz'))])"
    )
    child = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


def test_what_was_invoked_is_trimmed_to_what_parses_or_shown_as_it_is() -> None:
    def shown(model: str, *, invoked: bool) -> tuple[str, Reason | None]:
        shaper = Shaper(window("x = 1<|cursor|>\n"), by_id("python"), invoked=invoked)
        shaper.feed(model)
        return shaper.finish()

    assert shown(" + * 2\n", invoked=False) == ("", Reason.DOES_NOT_PARSE)
    assert shown(" + * 2\n", invoked=True) == (" + * 2", None)
    for invoked in (False, True):
        block = Shaper(window("def f():<|cursor|>\n"), by_id("python"), invoked=invoked)
        block.feed("\n    a = 1\n    b = 2 + * 3\n")
        assert block.finish() == ("\n    a = 1", None)
    assert shown("", invoked=True) == ("", Reason.NOTHING_TO_ADD)
