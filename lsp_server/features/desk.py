"""One completion at a cursor, whichever method of the protocol asks for it: admitted, completed, offered, accounted for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lsp_server.attribution.attributor import Attributor
from lsp_server.attribution.origin import Origin
from lsp_server.buffer import Position
from lsp_server.completer import Completer
from lsp_server.features.acceptance import Acceptance
from lsp_server.features.documents import Document
from lsp_server.features.in_force import InForce
from lsp_server.features.neighbours import Neighbours
from lsp_server.features.offers import Offers
from lsp_server.features.status import Status
from lsp_server.privacy.admission import Admission
from lsp_server.privacy.uris import local_path
from lsp_server.settings import LiveSettings
from lsp_server.state.outcome import Outcome
from lsp_server.window import window_at


@dataclass(frozen=True, slots=True)
class Offered:
    """What goes to the editor: texts with the document's line ends, and their ids."""

    texts: tuple[str, ...]
    identifiers: tuple[str, ...]
    outcome: Outcome

    @property
    def origins(self) -> tuple[tuple[Origin, ...], ...]:
        """Where each text is known to stand verbatim."""
        return tuple(item.origins for item in self.outcome.items)


@dataclass(frozen=True, slots=True)
class Selected:
    """The entry that is selected in the completion menu, which would take the place of what stands from `start` to the
    cursor, in the same line. What is offered is what follows it.
    """

    start: Position
    text: str


class Desk:
    """One session's."""

    def __init__(
        self,
        settings: LiveSettings,
        in_force: InForce,
        completer: Completer,
        admission: Admission,
        status: Status,
        offers: Offers,
        acceptance: Acceptance,
        neighbours: Neighbours,
        attributor: Attributor,
        model_window: Callable[[], int | None],
    ) -> None:
        """`model_window`: see `engines.Engine.window`."""
        self.offers = offers
        self._settings = settings
        self._in_force = in_force
        self._completer = completer
        self._admission = admission
        self._status = status
        self._acceptance = acceptance
        self._neighbours = neighbours
        self._attributor = attributor
        self._model_window = model_window

    async def complete(
        self,
        document: Document,
        cursor: Position,
        *,
        invoked: bool,
        on_text: Callable[[str], None] | None = None,
        identifier: str | None = None,
        patience: float | None = None,
        selected: Selected | None = None,
    ) -> Offered:
        """Complete there. `identifier` is the first item's id, if it was told already."""
        self._in_force.renew()
        self._status.began()
        outcome: Outcome | None = None
        try:
            outcome = await self._outcome(document, cursor, invoked, on_text, patience, selected)
        finally:
            self._status.ended(outcome)
        texts, identifiers = [], []
        for item in outcome.items:
            text = (selected.text if selected else "") + item.text.replace("\n", document.buffer.end_of_line)
            texts.append(text)
            language = document.buffer.language
            identifiers.append(self.offers.add(item, text, language, identifier, by_hand=invoked))
            identifier = None
        if not outcome.reused and identifiers and (offer := self.offers.get(identifiers[0])) is not None:
            self._acceptance.offered(offer)
        return Offered(tuple(texts), tuple(identifiers), outcome)

    async def _outcome(
        self,
        document: Document,
        cursor: Position,
        invoked: bool,
        on_text: Callable[[str], None] | None,
        patience: float | None,
        selected: Selected | None,
    ) -> Outcome:
        document.trail.caret = None if selected else cursor
        buffer = document.buffer
        if (reason := self._admission.refusal(document.uri, buffer, cursor, invoked=invoked)) is not None:
            return Outcome(reason=reason)
        window = window_at(buffer, cursor)
        if selected is not None:
            typed = cursor.column - selected.start.column
            window = replace(window, prefix=window.prefix[: len(window.prefix) - typed] + selected.text)
        # Asked again by hand where a completion is shown already, others are wanted.
        again = invoked and self._completer.shown_at(document.uri, window)
        path = local_path(document.uri) or ""
        if on_text is not None and self._attributor.withholds:
            on_text = self._unless_verbatim(on_text, window.prefix, path)
        outcome = await self._completer.complete(
            document.uri,
            window,
            invoked=invoked,
            on_text=on_text,
            candidates=self._settings.current.candidates if again else 1,
            patience=patience,
            surroundings=self._neighbours.around(document, cursor, window, self._model_window()),
        )
        return self._attributor.mark(outcome, window.prefix, path)

    def _unless_verbatim(self, on_text: Callable[[str], None], before: str, path: str) -> Callable[[str], None]:
        def show(text: str) -> None:
            if not self._attributor.origins(before, text, path):
                on_text(text)

        return show
