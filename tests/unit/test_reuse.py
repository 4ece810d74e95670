"""What was typed agrees with what the model said: no model is asked."""

from __future__ import annotations

import pytest

from engine.client import Chunk
from lsp_server.completer import Completer
from lsp_server.reasons import Reason
from lsp_server.reuse import Remembered, ReuseStore
from lsp_server.window import Window
from tests.harness.aio import async_test
from tests.unit.scripted_engine import ScriptedEngine

SUFFIX = "\nprint(i)\n"
SAID = "range(10):\n    "


def _store(prefix: str = "for i in ", suffix: str = SUFFIX, text: str = SAID) -> ReuseStore:
    store = ReuseStore()
    store.remember("a", Window(prefix, suffix), Remembered(text, False, False, -0.5, "anchored"))
    return store


@pytest.mark.parametrize("typed", ["", "r", "range(", "range(10)", "range(10):\n   "])
def test_typed_through_text_is_followed_by_the_rest(typed: str) -> None:
    found = _store().find("a", Window("for i in " + typed, SUFFIX))
    assert found is not None
    assert typed + found.rest == SAID


@pytest.mark.parametrize(
    ("document", "prefix", "suffix"),
    [
        ("a", "for i in ra(", SUFFIX),
        ("a", "for j in r", SUFFIX),
        ("a", "for i in r", "\nprint(j)\n"),
        ("b", "for i in r", SUFFIX),
        ("a", "for i in " + SAID, SUFFIX),
        ("a", "for i in", SUFFIX),
        ("a", "", SUFFIX),
    ],
)
def test_what_disagrees_is_not_offered(document: str, prefix: str, suffix: str) -> None:
    assert _store().find(document, Window(prefix, suffix)) is None


def test_a_bracket_that_the_editor_closed_is_no_disagreement() -> None:
    found = _store().find("a", Window("for i in range(", ")" + SUFFIX))
    assert found is not None
    assert found.rest == "10):\n    "


def test_of_repeated_text_no_more_is_offered_than_is_left() -> None:
    found = _store("x = ", text="ababab;").find("a", Window("x = abab", SUFFIX))
    assert found is not None
    assert found.rest == "ab;"


def test_the_window_may_have_scrolled() -> None:
    lines = "".join(f"line_{n} = {n}\n" for n in range(2_000))
    found = _store(lines + "x = ", text="first\n").find("a", Window(lines[5_000:] + "x = fi", SUFFIX))
    assert found is not None
    assert found.rest == "rst\n"


def test_a_closed_document_is_forgotten() -> None:
    store = _store()
    store.forget("a")
    assert store.find("a", Window("for i in ", SUFFIX)) is None


@async_test()
async def test_typing_what_was_suggested_asks_no_model() -> None:
    engine = ScriptedEngine(Chunk(text="range("), Chunk(text="10):"), Chunk(text="\n    x"))
    completer = Completer(engine, 64, engine.clock)
    shown = (await completer.complete("a", Window("for i in ", SUFFIX), invoked=True)).items[0].text
    assert shown == "range(10):"
    asked = len([event for event in engine.events if event.startswith("open")])
    for typed in range(1, len(shown)):
        outcome = await completer.complete("a", Window("for i in " + shown[:typed], SUFFIX), invoked=False)
        assert outcome.reused
        assert outcome.items[0].text == shown[typed:]
    again = await completer.complete("a", Window("for i in ", SUFFIX), invoked=False)  # all deleted
    assert again.items[0].text == shown
    assert len([event for event in engine.events if event.startswith("open")]) == asked
    other = await completer.complete("a", Window("for i in xr", SUFFIX), invoked=False)
    assert not other.reused


@async_test()
async def test_an_answer_that_was_empty_is_not_asked_for_again() -> None:
    engine = ScriptedEngine(Chunk(text="\n"), Chunk(text="y"))
    completer = Completer(engine, 64, engine.clock)
    for reused in (False, True):
        outcome = await completer.complete("a", Window("x = 1", SUFFIX), invoked=False)
        assert (outcome.items, outcome.reason, outcome.reused) == ((), Reason.NOTHING_TO_ADD, reused)
