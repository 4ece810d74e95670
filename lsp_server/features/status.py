"""What the user gets to know: is it working, is it loading, why did nothing come. Never any of their text.

`didChangeStatus` goes to clients that asked for it, progress to those that show it, and a message box only for what
needs the user, once each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from engine.launcher import FAILED, READY
from lsp_server.attribution.origin import sentence
from lsp_server.messages import DID_CHANGE_STATUS
from lsp_server.reasons import Reason
from lsp_server.state.outcome import Outcome


class Kind(StrEnum):
    """The kinds of `didChangeStatus`."""

    NORMAL = "Normal"
    WARNING = "Warning"
    ERROR = "Error"
    INACTIVE = "Inactive"


class EngineState(StrEnum):
    """How the engine is, as far as this server has heard."""

    UNKNOWN = "unknown"
    LOADING = "loading"
    READY = "ready"
    DOWN = "down"


class Editor(Protocol):
    """Where the user looks."""

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification."""
        ...

    def message(self, text: str, *, error: bool) -> None:
        """Show a message box."""
        ...


class Progress(Protocol):
    """A progress display of the editor's."""

    def begin(self, message: str) -> None:
        """Show it."""
        ...

    def report(self, message: str) -> None:
        """Change its message."""
        ...

    def end(self, message: str) -> None:
        """Take it away."""
        ...


_INACTIVE = frozenset({
    Reason.DISABLED, Reason.LANGUAGE_OFF, Reason.MANUAL_ONLY, Reason.EXCLUDED, Reason.SECRET, Reason.TOO_LARGE,
    Reason.GENERATED, Reason.NOT_OPEN,
})  # fmt: skip
_WARNING = frozenset({Reason.LOADING, Reason.BUSY, Reason.FAILED})
_ERROR = frozenset({Reason.ENGINE_DOWN, Reason.REFUSED})
_PASSING = frozenset({Reason.SUPERSEDED, Reason.OUTDATED, Reason.CANCELLED, Reason.PENDING})
"""Reasons that a newer request, which is under way, makes uninteresting."""

BUSY_AFTER = 0.1
"""Seconds for which requests are under way before anybody is told: most keys are answered sooner, and a sign that
comes and goes with each of them is a flicker.
"""

Later = Callable[[float, Callable[[], None]], object]


class Status:
    """One session's. `wanted`: the client asked to hear of changes."""

    def __init__(self, editor: Editor, progress: Callable[[], Progress | None], *, later: Later | None = None) -> None:
        """`progress` makes a display, or says that there can be none; `later(seconds, callback)` is the running loop's."""
        self.wanted = False
        self.engine = EngineState.UNKNOWN
        self.last: Outcome | None = None
        self.last_asked: Outcome | None = None
        self._editor = editor
        self._new_progress = progress
        self._progress: Progress | None = None
        self._later = later
        self._under_way = 0
        self._busy = False
        self._turn = 0  # of requests under way with no pause between them
        self._reason: Reason | None = None
        self._detail: str | None = None
        self._sent: dict[str, Any] = {}
        self._told: set[str] = set()

    @staticmethod
    def asked_for(options: Any) -> bool:
        """Whether the raw initialization options ask for `didChangeStatus`, in our way or in the customary one."""
        if not isinstance(options, Mapping):
            return False
        ours = options.get("starfill", options)
        if isinstance(ours, Mapping) and ours.get("status") is True:
            return True
        return "editorPluginInfo" in options

    # -- the engine --------------------------------------------------------------------------------------------------

    def loading(self, stage: str) -> None:
        """The engine has come to a stage of its start, whoever asked for it; READY or FAILED is the last."""
        if stage in (READY, FAILED):
            if self.engine is EngineState.LOADING:
                self.engine = EngineState.READY if stage == READY else EngineState.DOWN
            self._end_progress(stage)
            self._changed()
            return
        self.engine = EngineState.LOADING
        if self._progress is None:
            self._progress = self._new_progress()
            if self._progress is not None:
                self._progress.begin(stage)
        else:
            self._progress.report(stage)
        self._changed()

    def ready(self) -> None:
        """The engine can complete."""
        self.engine = EngineState.READY
        self._reason = self._detail = None
        self._end_progress(READY)
        self._changed()

    def down(self, why: str) -> None:
        """The engine cannot be had; only the user can do something about it."""
        self.engine = EngineState.DOWN
        self._reason, self._detail = Reason.ENGINE_DOWN, why
        self._end_progress(FAILED)
        self.tell(f"starfill: {why}", error=True)
        self._changed()

    # -- requests ----------------------------------------------------------------------------------------------------

    def began(self) -> None:
        """A request is under way."""
        self._under_way += 1
        if self._under_way == 1 and self.wanted:
            self._turn += 1
            later = self._later or asyncio.get_running_loop().call_later
            later(BUSY_AFTER, partial(self._still, self._turn))

    def ended(self, outcome: Outcome | None) -> None:
        """It was answered, or cancelled if None."""
        self._under_way -= 1
        self._busy = self._busy and self._under_way > 0
        if outcome is not None:
            self.last = outcome
            if outcome.generated:
                self.last_asked = outcome
                self.engine = EngineState.READY
            if outcome.reason not in _PASSING:
                self._reason, self._detail = outcome.reason, _attribution(outcome)
            if outcome.reason is Reason.ENGINE_DOWN:
                self.engine = EngineState.DOWN
            elif outcome.reason is Reason.REFUSED:
                self.tell("starfill: the engine refused a request; the command starfill.status says why", error=False)
        self._changed()

    def settled(self) -> None:
        """Settings changed: what was refused because of them may be wanted now."""
        if self._reason in _INACTIVE:
            self._reason = self._detail = None
            self._changed()

    def tell(self, text: str, *, error: bool) -> None:
        """Show a message box, unless it was shown before."""
        if text not in self._told:
            self._told.add(text)
            self._editor.message(text, error=error)

    def account(self) -> dict[str, Any]:
        """For the status command: counts and reasons."""
        return {"engine": self.engine, "last": _account(self.last), "asked": _account(self.last_asked)}

    def _end_progress(self, message: str) -> None:
        if self._progress is not None:
            self._progress.end(message)
            self._progress = None

    def _still(self, turn: int) -> None:
        if turn == self._turn and self._under_way > 0:
            self._busy = True
            self._changed()

    def _changed(self) -> None:
        if not self.wanted:
            return
        loading = self.engine is EngineState.LOADING
        reason, detail = (Reason.LOADING, None) if loading else (self._reason, self._detail)
        status: dict[str, Any] = {
            "message": detail or ("" if reason is None else reason.text),
            "kind": _kind(reason),
            "busy": self._busy or loading,
        }
        if reason is not None:
            status["reason"] = reason
        if status != self._sent:
            self._sent = status
            self._editor.notify(DID_CHANGE_STATUS, status)


def _attribution(outcome: Outcome) -> str | None:
    """Where what is shown, or was withheld, stands verbatim. No other detail is told: an engine's may quote the request."""
    if outcome.items and (origins := outcome.items[0].origins):
        return sentence(origins)
    return outcome.detail if outcome.reason is Reason.VERBATIM else None


def _kind(reason: Reason | None) -> Kind:
    if reason in _ERROR:
        return Kind.ERROR
    if reason in _WARNING:
        return Kind.WARNING
    return Kind.INACTIVE if reason in _INACTIVE else Kind.NORMAL


def _account(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    return {
        "items": len(outcome.items),
        "reason": outcome.reason,
        "text": None if outcome.reason is None else outcome.reason.text,
        "detail": outcome.detail,
        "layout": outcome.layout,
        "cached": outcome.cached,
        "computed": outcome.computed,
        "generated": outcome.generated,
        "reused": outcome.reused,
        "ms": {"first": _ms(outcome.first), "total": _ms(outcome.total)},
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
