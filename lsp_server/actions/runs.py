"""One action while it is under way, and what it came to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from lsp_server.actions.asking import Said
from lsp_server.actions.tasks import Task
from lsp_server.actions.wanted import Wanted
from lsp_server.attribution.origin import Origin
from lsp_server.reasons import Reason


@dataclass(slots=True)
class Run:
    """An action under way. `stopped`: why its work was ended from outside."""

    wanted: Wanted
    work: asyncio.Task[Said | None] | None = None
    stopped: Reason | None = None

    def begin(self, work: Coroutine[Any, Any, Said | None]) -> asyncio.Task[Said | None]:
        """Start its work."""
        self.work = asyncio.create_task(work)
        self.work.add_done_callback(_looked_at)
        return self.work

    def stop(self, reason: Reason) -> None:
        """End it; the first reason counts."""
        if self.stopped is not None:
            return
        self.stopped = reason
        if (work := self.work) is None:
            return
        by_itself = work is asyncio.current_task()
        if by_itself:
            work.cancel()
        else:
            # From a timer, as all streams are: in the turn in which its next piece arrives the HTTP library would fail.
            asyncio.get_running_loop().call_later(0, work.cancel)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an action came to. `applied` is None where there was no edit to apply."""

    text: str = ""
    reason: Reason | None = None
    detail: str | None = None
    applied: bool | None = None
    said: Said = field(default_factory=Said)
    origins: tuple[Origin, ...] = ()
    """Where it stands verbatim."""

    def reply(self, task: Task, model: str | None, terms: str | None) -> dict[str, Any]:
        """The command's reply."""
        return {
            "task": task,
            "text": self.text,
            "applied": self.applied,
            "reason": self.reason,
            "message": None if self.reason is None else self.reason.text,
            "detail": self.detail,
            "model": model,
            "terms": terms,
            "usage": self.said.usage,
            "cached": self.said.cached,
            "computed": self.said.computed,
            "attribution": [origin.as_dict() for origin in self.origins],
        }


def _looked_at(work: asyncio.Task[Said | None]) -> None:
    """Nobody may be left to hear of its error."""
    if not work.cancelled():
        work.exception()
