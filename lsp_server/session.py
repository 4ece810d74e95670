"""All that one editor window's server is made of, wired up. Made once `initialize` is answered: it takes time to import."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lsprotocol import types

from engine import paths
from engine.errors import EngineLoading, EngineUnavailable, StarfillError
from lsp_server.actions.desk import ActionDesk, Editor
from lsp_server.attribution.attributor import Attributor
from lsp_server.buffer import Encoding
from lsp_server.completer import Completer
from lsp_server.engines import Engine, connect
from lsp_server.features.acceptance import Acceptance
from lsp_server.features.commands import Commands
from lsp_server.features.confidence import Confidence
from lsp_server.features.desk import Desk, Offered
from lsp_server.features.documents import Documents
from lsp_server.features.in_force import InForce
from lsp_server.features.inline import Partial, inline_items, selected_entry
from lsp_server.features.menu import MenuClient, menu_items
from lsp_server.features.neighbours import Neighbours
from lsp_server.features.offers import Offers
from lsp_server.features.status import Progress, Status
from lsp_server.latency import Trip
from lsp_server.privacy.admission import Admission
from lsp_server.reasons import Reason
from lsp_server.settings import LiveSettings
from lsp_server.state.outcome import Outcome
from lsp_server.tasks import Tasks

log = logging.getLogger(__name__)


class Link(Editor, Protocol):
    """The way to the editor."""

    def message(self, text: str, *, error: bool) -> None:
        """Show a message box."""
        ...

    def progress(self, params: types.ProgressParams) -> None:
        """Send a partial result."""
        ...

    def work_done(self) -> Progress | None:
        """A progress display, if the editor has such."""
        ...


class Session:
    """From `initialized` to the end."""

    def __init__(
        self,
        link: Link,
        settings: LiveSettings,
        engine: Engine | None,
        client: Mapping[str, Any],
        encoding: Encoding,
        folders: Sequence[str],
    ) -> None:
        """`client` are the raw params of `initialize`; `engine` takes the place of the one that the settings name."""
        self._link = link
        self._settings = settings
        self._engine = connect(settings.current, trust_folder=False) if engine is None else engine
        self.status = Status(link, link.work_done)
        self.status.wanted = self.status.asked_for(client.get("initializationOptions"))
        self._completer = Completer(self._engine, settings.current.max_tokens, time.perf_counter, self.status.loading)
        kept = paths.models_dir().parent
        self._confidence = Confidence(kept / "confidence.json", time.monotonic)
        self._acceptance = Acceptance(kept / "acceptance.json", time.monotonic, self._confidence)
        self._menu = MenuClient.of(client)
        self._tasks = Tasks()
        offers, admission = Offers(), Admission(time.monotonic)
        self.documents = Documents(self._completer, encoding)
        self.commands = Commands(offers, self._acceptance, self._confidence, self.status, self._facts)
        neighbours = Neighbours(self.documents, admission, time.monotonic)
        self.documents.closed = neighbours.forget
        attributor = Attributor(paths.attribution_index(), lambda text: self.status.tell(text, error=False))
        self.in_force = InForce(
            settings,
            self._completer,
            admission,
            self.status,
            self._acceptance,
            self._confidence,
            neighbours,
            attributor,
            self._change_engine,
        )
        self.in_force.settle(folders)
        self.desk = Desk(
            settings,
            self.in_force,
            self._completer,
            admission,
            self.status,
            offers,
            self._acceptance,
            neighbours,
            attributor,
            lambda: self._engine.window,
        )
        self.actions = ActionDesk(
            link,
            settings,
            self.documents,
            admission,
            self.status,
            attributor,
            lambda: self._engine,
            self.in_force.refresh,
            client,
        )

    def start(self) -> None:
        """Have the engine ready before the first key."""
        self._tasks.start(self._warm_up())

    async def inline_completion(
        self, params: types.InlineCompletionParams, raw: Mapping[str, Any], trip: Trip
    ) -> types.InlineCompletionList:
        """Ghost text; `raw` are the params as they came, `trip` is told when there is text."""
        document = self.documents.get(params.text_document.uri)
        if document is None:
            self._not_open()
            return types.InlineCompletionList(items=[])
        cursor = document.at(params.position)
        selected = selected_entry(document, cursor, params.context.selected_completion_info)
        token = raw.get("partialResultToken")
        partial: Partial | None = None
        identifier: str | None = None
        if isinstance(token, int | str) and not isinstance(token, bool):
            identifier = self.desk.offers.name()
            partial = Partial(token, document, cursor, selected, identifier, self._link.progress, trip.hand_over)
        offered = await self.desk.complete(
            document,
            cursor,
            invoked=params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked,
            on_text=partial,
            identifier=identifier,
            selected=selected,
        )
        _note(trip, offered)
        start = cursor if selected is None else selected.start
        return types.InlineCompletionList(
            inline_items(document, start, cursor, offered.texts, offered.identifiers, offered.origins)
        )

    async def completion(self, params: types.CompletionParams, trip: Trip) -> types.CompletionList:
        """An entry in the completion menu."""
        document = self.documents.get(params.text_document.uri)
        if document is None:
            self._not_open()
            return types.CompletionList(is_incomplete=False, items=[])
        cursor = document.at(params.position)
        offered = await self.desk.complete(document, cursor, invoked=False, patience=self._menu.patience)
        _note(trip, offered)
        items = menu_items(self._menu, document, cursor, offered.texts, offered.identifiers, offered.origins)
        return types.CompletionList(is_incomplete=True, items=items)

    def flush(self) -> None:
        """Write down what was counted."""
        self._acceptance.flush()
        self._confidence.flush()

    async def aclose(self) -> None:
        """Stop what is running and let go of the engine."""
        await self._tasks.aclose()
        await self.actions.aclose()
        await self._completer.aclose()
        self.flush()
        await self._engine.aclose()

    async def _warm_up(self) -> None:
        """With progress where the client shows it."""
        try:
            await self._engine.ready(invoked=True, progress=self.status.loading)
        except EngineLoading:
            return
        except EngineUnavailable as error:
            log.warning("%s", error)
            self.status.down(str(error))
        else:
            self.status.ready()
            if self._settings.current.engine == "auto":
                await self.actions.learn()

    def _change_engine(self) -> None:
        """The user's own file names another engine now."""
        try:
            engine = connect(self._settings.current, trust_folder=False)
        except StarfillError as error:
            self.status.tell(f"starfill: {error}", error=True)
            return
        former, self._engine = self._engine, engine
        self._completer.use(engine)
        self._tasks.start(former.aclose())
        self._tasks.start(self._warm_up())

    def _not_open(self) -> None:
        self.status.began()
        self.status.ended(Outcome(reason=Reason.NOT_OPEN))

    def _facts(self) -> dict[str, Any]:
        return {"notice": getattr(self._engine, "notice", None), "counts": self._completer.counts()}


def _note(trip: Trip, offered: Offered) -> None:
    if offered.texts:
        trip.waited, trip.memory = offered.outcome.waited, offered.outcome.reused
