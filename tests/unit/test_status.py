"""What the user gets to know, and how often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from engine.launcher import FAILED, READY
from lsp_server.features.status import BUSY_AFTER, EngineState, Status
from lsp_server.reasons import Reason
from lsp_server.state.outcome import Item, Outcome

DONE = Outcome(items=(Item("x", None),), generated=3)


class Screen:
    """An editor that writes down what it is told, and a progress display."""

    def __init__(self) -> None:
        self.said: list[Mapping[str, Any]] = []
        self.boxes: list[str] = []
        self.stages: list[str] = []
        self.timers: list[Callable[[], None]] = []

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        assert seconds == BUSY_AFTER
        self.timers.append(callback)

    def pass_time(self) -> None:
        while self.timers:
            self.timers.pop(0)()

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        assert method == "didChangeStatus"
        self.said.append(params)

    def message(self, text: str, *, error: bool) -> None:
        self.boxes.append(text)

    def begin(self, message: str) -> None:
        self.stages.append(f"begin {message}")

    def report(self, message: str) -> None:
        self.stages.append(message)

    def end(self, message: str) -> None:
        self.stages.append(f"end {message}")


def _status(*, wanted: bool = True, progress: bool = True) -> tuple[Status, Screen]:
    screen = Screen()
    status = Status(screen, lambda: screen if progress else None, later=screen.later)
    status.wanted = wanted
    return status, screen


def test_a_request_is_busy_and_then_not() -> None:
    status, screen = _status()
    status.began()
    screen.pass_time()
    status.ended(DONE)
    assert [said["busy"] for said in screen.said] == [True, False]
    assert all(said["kind"] == "Normal" and "reason" not in said for said in screen.said)


def test_two_requests_are_busy_until_both_have_ended_and_nothing_is_said_twice() -> None:
    status, screen = _status()
    status.began()
    status.began()
    screen.pass_time()
    status.ended(Outcome(reason=Reason.SUPERSEDED))
    status.ended(None)
    assert [said["busy"] for said in screen.said] == [True, False]


def test_what_is_answered_at_once_makes_nobody_look() -> None:
    status, screen = _status()
    for _ in range(5):
        status.began()
        status.ended(DONE)
    said = [{"message": "", "kind": "Normal", "busy": False}]
    assert screen.said == said
    status.began()  # the timers of those that have ended are not its own
    screen.timers.pop()
    screen.pass_time()
    assert screen.said == said


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Reason.EXCLUDED, "Inactive"),
        (Reason.TOO_LARGE, "Inactive"),
        (Reason.LANGUAGE_OFF, "Inactive"),
        (Reason.MID_WORD, "Normal"),
        (Reason.BUSY, "Warning"),
        (Reason.FAILED, "Warning"),
        (Reason.ENGINE_DOWN, "Error"),
    ],
)
def test_each_reason_has_its_kind_and_its_sentence(reason: Reason, kind: str) -> None:
    status, screen = _status()
    status.began()
    status.ended(Outcome(reason=reason))
    assert screen.said[-1] == {"message": reason.text, "kind": kind, "busy": False, "reason": reason}
    status.began()
    status.ended(DONE)
    assert screen.said[-1] == {"message": "", "kind": "Normal", "busy": False}


def test_loading_shows_progress_and_ends_it() -> None:
    status, screen = _status()
    status.loading("starting")
    status.loading("loading")
    assert (screen.said[-1]["reason"], screen.said[-1]["busy"]) == (Reason.LOADING, True)
    status.ready()
    assert screen.stages == ["begin starting", "loading", "end ready"]
    assert screen.said[-1] == {"message": "", "kind": "Normal", "busy": False}


@pytest.mark.parametrize(("last", "state"), [(READY, "ready"), (FAILED, "down")])
def test_a_start_that_a_request_asked_for_ends_too(last: str, state: str) -> None:
    """An engine that had left is started again by whoever needs it; nobody warms it up then."""
    status, screen = _status()
    status.began()
    status.loading("starting")
    status.loading("loading")
    status.loading(last)
    status.ended(None)
    assert screen.stages == ["begin starting", "loading", f"end {last}"]
    assert status.account()["engine"] == state
    assert not screen.said[-1]["busy"]


def test_an_engine_that_was_there_all_along_shows_nothing() -> None:
    status, screen = _status()
    status.loading(READY)
    assert (screen.said, screen.stages) == ([{"message": "", "kind": "Normal", "busy": False}], [])


def test_what_settings_refused_is_forgotten_when_they_change() -> None:
    status, screen = _status()
    status.began()
    status.ended(Outcome(reason=Reason.DISABLED))
    status.settled()
    assert screen.said[-1] == {"message": "", "kind": "Normal", "busy": False}
    status.began()
    status.ended(Outcome(reason=Reason.NOTHING_TO_ADD))
    status.settled()
    assert screen.said[-1]["reason"] == Reason.NOTHING_TO_ADD


def test_where_there_is_no_progress_nothing_fails() -> None:
    status, screen = _status(wanted=False, progress=False)
    status.loading("starting")
    status.ready()
    assert (screen.said, screen.stages, screen.boxes) == ([], [], [])


def test_an_engine_that_cannot_be_had_is_told_once() -> None:
    status, screen = _status(wanted=False)
    for _ in range(3):
        status.down("the model directory is empty")
    assert screen.boxes == ["starfill: the model directory is empty"]
    assert status.account()["engine"] == EngineState.DOWN
    status.began()
    status.ended(DONE)
    assert status.account()["engine"] == EngineState.READY


def test_what_an_engine_says_is_not_shown_for_it_may_quote_the_request() -> None:
    status, screen = _status()
    for reason in (Reason.REFUSED, Reason.ENGINE_DOWN, Reason.BUSY):
        status.began()
        status.ended(Outcome(reason=reason, detail="cannot parse: secret text"))
    assert "secret" not in str(screen.said)
    assert "secret" not in str(screen.boxes)
    assert len(screen.boxes) == 1


def test_the_account_has_reasons_and_counts_and_no_text() -> None:
    status, _ = _status()
    status.began()
    status.ended(Outcome(items=(Item("secret", None),), generated=3, total=0.25))
    account = status.account()
    assert "secret" not in str(account)
    assert account["asked"]["ms"] == {"first": None, "total": 250.0}
    status.began()
    status.ended(Outcome(reason=Reason.MID_WORD))
    assert status.account()["last"]["reason"] == "mid_word"
    assert status.account()["asked"]["generated"] == 3


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"starfill": {"status": True}}, True),
        ({"status": True}, True),
        ({"editorInfo": {"name": "x"}, "editorPluginInfo": {"name": "y"}}, True),
        ({"starfill": {"status": 1}}, False),
        ({"starfill": None}, False),
        ({}, False),
        (None, False),
        ([], False),
    ],
)
def test_who_asks_for_status(options: Any, wanted: bool) -> None:
    assert Status.asked_for(options) is wanted
