"""A completion taken word by word or line by line goes on with the rest of what was shown, and a long output with what was
said beyond it; the model is asked once.
"""

from __future__ import annotations

import re

import pytest

from engine.client import Chunk
from lsp_server.completer import Completer
from lsp_server.shaping import MAX_LINES
from lsp_server.state.ask import Surroundings
from lsp_server.state.events import Typed
from lsp_server.window import Window
from tests.harness.aio import async_test
from tests.unit.scripted_engine import ScriptedEngine, turns

PYTHON = Surroundings(language="python")
LINE = ('print(f"{name}: ', '{total(first, second)!r}", file=log)\n')
BLOCK = (
    "def total(items):\n    ",
    "count = 0\n    for item in items:\n        count += item.price\n    return count\nprint(1)\n",
)


def words(text: str) -> list[int]:
    """Where editors stop that accept by word."""
    return [match.end() for match in re.finditer(r"\w+|[^\w\s]+|\s+", text)][:-1]


def lines(text: str) -> list[int]:
    """Where editors stop that accept by line: before a line's text, or at its end."""
    ends = [match.start() for match in re.finditer("\n", text)]
    return sorted(ends + [match.end() for match in re.finditer(r"\n\s*", text)])


@pytest.mark.parametrize(("prefix", "said"), [LINE, BLOCK], ids=["line", "block"])
@pytest.mark.parametrize("steps", [words, lines])
@async_test()
async def test_each_step_leaves_the_rest_of_what_was_shown(prefix: str, said: str, steps: object) -> None:
    engine = ScriptedEngine(Chunk(text=said), Chunk(text="", finish_reason="stop"))
    completer = Completer(engine, 64, engine.clock)
    shown = (await completer.complete("a", Window(prefix, "\n"), invoked=False, surroundings=PYTHON)).items[0].text
    places = words(shown) if steps is words else lines(shown)
    before = 0
    for at in places:
        await turns(2)  # the reply is out
        completer.edited("a", (Typed(shown[before:at]),))
        window = Window(prefix + shown[:at], "\n")
        outcome = await completer.complete("a", window, invoked=False, surroundings=PYTHON)
        text = outcome.items[0].text
        assert text == shown[at:], "what is shown does not change under the author's hands"
        assert outcome.reused
        before = at
    assert len(engine.requests) == 1


@async_test()
async def test_a_long_output_is_cut_and_the_rest_is_kept_for_the_next_request() -> None:
    whole = "".join(f"\n    step_{number}()" for number in range(3 * MAX_LINES))
    engine = ScriptedEngine(Chunk(text=whole + "\n"), Chunk(text="", finish_reason="stop"))
    completer = Completer(engine, 1_024, engine.clock)
    prefix = "def run():"
    for part in range(2):
        outcome = await completer.complete("a", Window(prefix, "\n"), invoked=False, surroundings=PYTHON)
        text = outcome.items[0].text
        assert text.count("step_") == MAX_LINES - 1, "whole lines, as many as are worth reading"
        assert whole.startswith(prefix.removeprefix("def run():") + text)
        assert outcome.reused is (part > 0)
        await turns(2)
        completer.edited("a", (Typed(text),))
        prefix += text
    assert len(engine.requests) == 1


@async_test()
async def test_what_the_token_limit_cut_off_in_a_line_is_kept_too() -> None:
    engine = ScriptedEngine(Chunk(text="a = 1\n    b = lo"), Chunk(text="ad(", finish_reason="length"))
    completer = Completer(engine, 8, engine.clock)
    first = await completer.complete("a", Window("def f():\n    ", "\n"), invoked=False, surroundings=PYTHON)
    assert first.items[0].text == "a = 1"
    await turns(2)
    completer.edited("a", (Typed("a = 1\n    "),))
    window = Window("def f():\n    a = 1\n    ", "\n")
    rest = await completer.complete("a", window, invoked=True, surroundings=PYTHON)
    assert rest.items[0].text == "b = load("
    assert rest.reused
    assert len(engine.requests) == 1
