"""One completion at a cursor, whichever method of the protocol asks for it: admitted, completed, offered, accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from lsp_server.attribution.attributor import Attributor
from lsp_server.attribution.origin import Origin
from lsp_server.buffer import Position
from lsp_server.calibration import LEAST_IN_PROSE
from lsp_server.completer import Completer, Policy
from lsp_server.features.acceptance import Acceptance
from lsp_server.features.confidence import Confidence
from lsp_server.features.documents import Document
from lsp_server.features.neighbours import Neighbours
from lsp_server.features.offers import Offers
from lsp_server.features.status import Status
from lsp_server.privacy.admission import Admission
from lsp_server.privacy.uris import local_path
from lsp_server.settings import LiveSettings, names_another_engine
from lsp_server.state.events import Outcome
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
        completer: Completer,
        admission: Admission,
        status: Status,
        offers: Offers,
        acceptance: Acceptance,
        confidence: Confidence,
        neighbours: Neighbours,
        attributor: Attributor,
        model_window: Callable[[], int | None],
        change_engine: Callable[[], None],
    ) -> None:
        """`model_window`: see `completer.Engine.window`. `change_engine` is called when the settings name another engine than
        before.
        """
        self.offers = offers
        self._settings = settings
        self._completer = completer
        self._admission = admission
        self._status = status
        self._acceptance = acceptance
        self._confidence = confidence
        self._neighbours = neighbours
        self._attributor = attributor
        self._model_window = model_window
        self._change_engine = change_engine
        self._settled = settings.current
        self.settle()

    def settle(self, roots: Iterable[str] | None = None) -> None:
        """Settings changed, or the workspace's folders did: let everything go by them."""
        settings, roots = self._settings.current, None if roots is None else tuple(roots)
        self._admission.configure(settings, roots)
        self._neighbours.configure(settings.context, roots)
        self._attributor.configure(settings)
        model = f"{settings.engine} {settings.model} {settings.dtype}"
        self._acceptance.enabled = settings.statistics
        self._confidence.configure(enabled=settings.statistics, model=model)
        self._completer.configure(
            max_tokens=settings.max_tokens,
            policy=Policy(speculate=settings.speculate),
            scope=model,
        )
        self._require()
        before, self._settled = self._settled, settings
        if names_another_engine(before, settings):
            self._change_engine()
        self._status.settled()
        self.tell_notices()

    def _require(self) -> None:
        """Have what is learned of confidence go for the next request."""
        wanted = self._settings.current.min_confidence
        if wanted == "auto":
            self._completer.require(self._confidence.least(), LEAST_IN_PROSE)
        else:
            self._completer.require(wanted, wanted)

    def refresh(self) -> None:
        """Let everything go by the user's own file, should it have changed."""
        if self._settings.refresh():
            self.settle()

    def tell_notices(self) -> None:
        """Tell the user what is wrong with their settings, once each."""
        for notice in self._settings.take_notices():
            self._status.tell(f"starfill: {notice.text}", error=False)

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
        self.refresh()
        self._require()
        self.tell_notices()
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
