"""Traces: what their events are, and that their edits make each text of the one before."""

from __future__ import annotations

import inspect
import shlex
import textwrap
from collections.abc import Iterable

import pytest

from tests.harness.traces import TRACES, Event, edits_between, two_files_trace

SOURCE, OTHER = inspect.getsource(shlex), inspect.getsource(textwrap)
KINDS = {
    "typing": {"jump", "char", "newline", "autoclose", "overtype", "delete", "accept"},
    "walking": {"walk", "char"},
    "renaming": {"jump", "rename", "walk", "char"},
    "undoing": {"jump", "char", "undo", "redo", "delete"},
    "importing": {"import", "jump", "char", "newline"},
    "two files": {"switch", "jump", "char"},
}


def events_of(name: str, seed: int) -> list[Event]:
    return list(two_files_trace(SOURCE, OTHER, seed) if name == "two files" else TRACES[name](SOURCE, seed))


@pytest.mark.parametrize("name", KINDS)
def test_a_trace_has_events_of_its_kinds_and_is_the_same_every_time(name: str) -> None:
    events = events_of(name, 7)
    assert {event.kind for event in events} >= KINDS[name]
    assert events == events_of(name, 7)
    assert events != events_of(name, 8)
    assert len(events) > 40


@pytest.mark.parametrize("name", KINDS)
def test_the_edits_between_two_events_make_the_later_text_and_are_small(name: str) -> None:
    texts: dict[str, str] = {}
    for event in events_of(name, 3):
        before = texts.get(event.document, event.text)
        edits = list(edits_between(before, event.text, len(event.prefix)))
        text, last = before, len(before) + 1
        for edit in edits:
            assert edit.end <= last
            text, last = text[: edit.start] + edit.text + text[edit.end :], edit.start + 1
        assert text == event.text
        if event.kind in {"char", "newline", "undo", "redo", "delete", "overtype"}:
            assert len(edits) <= 1
        texts[event.document] = event.text


def test_a_rename_is_many_edits_and_an_import_is_two() -> None:
    def most(events: Iterable[Event], kind: str) -> int:
        text, found = "", 0
        for event in events:
            if event.kind == kind:
                found = max(found, len(list(edits_between(text, event.text, len(event.prefix)))))
            text = event.text
        return found

    assert most(TRACES["renaming"](SOURCE, 7), "rename") >= 4
    assert most(TRACES["importing"](SOURCE, 7), "import") == 2
