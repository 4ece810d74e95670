"""The requests that are not over, document by document in their order, and the one answer of each. Part of `life`; pure."""

from __future__ import annotations

from collections.abc import Callable

from lsp_server.reasons import Reason
from lsp_server.state.ask import RequestId
from lsp_server.state.effects import Answer, Effect, Fail
from lsp_server.state.outcome import Outcome
from lsp_server.state.stages import Request, Stage


class Requests:
    """Of all documents; knows no streams. What it wants done goes to `emit`."""

    def __init__(self, emit: Callable[[Effect], None]) -> None:
        self._emit = emit
        self._lines: dict[str, list[Request]] = {}

    def enter(self, request: Request) -> None:
        """A new one."""
        self._lines.setdefault(request.ask.document, []).append(request)

    def find(self, number: RequestId | None) -> Request | None:
        """A request by its number."""
        for line in self._lines.values():
            for request in line:
                if request.id == number:
                    return request
        return None

    def of(self, document: str) -> list[Request]:
        """A document's, the oldest first."""
        return self._lines.get(document, []).copy()

    def next_of(self, document: str) -> Request | None:
        """The one of a document that has not begun, once the replies to all others are out."""
        line = self._lines.get(document, ())
        queued = next((request for request in line if request.stage is Stage.QUEUED), None)
        return queued if all(request.replied or request is queued for request in line) else None

    @property
    def at_work(self) -> bool:
        """Whether any of them wants something yet."""
        return any(request.stage is not Stage.DONE for line in self._lines.values() for request in line)

    @property
    def empty(self) -> bool:
        """Whether there are none."""
        return not self._lines

    # -- the one answer ----------------------------------------------------------------------------------------------

    def answer(self, request: Request, outcome: Outcome) -> None:
        """This is what became of it, which is its answer if it has none."""
        self.reply(request, outcome)
        self.end(request)

    def fail(self, request: Request, error: Exception) -> None:
        """The same for an error that nobody foresaw."""
        if request.outcome is None:
            request.outcome = Outcome(reason=Reason.ENGINE_DOWN)
            self._emit(Fail(request.id, error))
        self.end(request)

    def reply(self, request: Request, outcome: Outcome) -> None:
        """Answer, if it has no answer, and let it go on."""
        if request.outcome is None:
            request.outcome = outcome
            self._emit(Answer(request.id, outcome))

    def take_back(self, request: Request, outcome: Outcome) -> None:
        """Unless its reply is out, nothing may be shown for it any more."""
        if not request.replied and (request.outcome is None or request.outcome.items):
            request.outcome = outcome
            self._emit(Answer(request.id, outcome))

    def replied(self, request: Request) -> None:
        """Its reply is out."""
        request.replied = True
        self._leave_if_over(request)

    def end(self, request: Request) -> None:
        """Nothing more is done for it."""
        request.stage = Stage.DONE
        self._leave_if_over(request)

    def _leave_if_over(self, request: Request) -> None:
        line = self._lines.get(request.ask.document, [])
        if request.replied and request.stage is Stage.DONE and request in line:
            line.remove(request)
            if not line:
                del self._lines[request.ask.document]
