"""Feature registration and capability answers. What it takes to complete is imported once `initialize` is answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer

from engine import __version__
from lsp_server import messages
from lsp_server.features.progress import WorkDone
from lsp_server.gate import Ledger
from lsp_server.protocol import DocumentEvents, StarfillProtocol
from lsp_server.settings import LiveSettings
from lsp_server.structuring import quick_converter

if TYPE_CHECKING:
    from lsp_server.buffer import Encoding
    from lsp_server.completer import Engine
    from lsp_server.session import Session

log = logging.getLogger(__name__)


class StarfillServer(LanguageServer):
    """One editor window's server."""

    protocol: StarfillProtocol

    def __init__(self, settings: LiveSettings, engine: Engine | None = None) -> None:
        """`engine` in place of the one that the settings name."""
        super().__init__(
            "starfill",
            __version__,
            text_document_sync_kind=types.TextDocumentSyncKind.Incremental,
            protocol_cls=StarfillProtocol,
            converter_factory=quick_converter,
        )
        self.protocol.ledger = Ledger()
        self.protocol.documents = self._documents
        self._settings = settings
        self._given_engine = engine
        self._client: dict[str, Any] = {}
        self._folders: list[str] = []
        self._opened: Session | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._register()

    @property
    def _session(self) -> Session:
        if self._opened is None:
            from lsp_server.session import Session

            encoding = types.PositionEncodingKind(self.protocol.workspace.position_encoding).value
            self._opened = Session(
                self, self._settings, self._given_engine, self._client, cast("Encoding", str(encoding)), self._folders
            )
        return self._opened

    def _documents(self) -> DocumentEvents:
        return self._session.documents

    def _register(self) -> None:
        # pygls marks the functions that it is given, which methods do not allow.
        @self.feature(types.INITIALIZE)
        def initialize(params: types.InitializeParams) -> None:
            self._initialize(params)

        @self.feature(types.INITIALIZED)
        def initialized(_: types.InitializedParams) -> None:
            self._session.start()
            self._start(self._pull_settings())

        @self.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
        async def inline_completion(params: types.InlineCompletionParams) -> types.InlineCompletionList:
            raw = self.protocol.ledger.params(self.protocol.msg_id)
            return await self._session.inline_completion(params, raw)

        @self.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)
        def did_change_configuration(params: types.DidChangeConfigurationParams) -> None:
            self._configuration(params.settings)

        @self.feature(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)
        def did_change_folders(_: types.DidChangeWorkspaceFoldersParams) -> None:
            self._session.desk.settle(list(self.workspace.folders))

        @self.feature(messages.DID_SHOW)
        def did_show(params: Any) -> None:
            self._session.commands.did_show(params)

        @self.feature(messages.DID_PARTIALLY_ACCEPT)
        def did_partially_accept(params: Any) -> None:
            self._session.commands.did_partially_accept(params)

        @self.command(messages.ACCEPT_COMMAND)
        def accept(*arguments: Any) -> None:
            self._session.commands.accept(arguments[0] if arguments else None)

        @self.command(messages.STATUS_COMMAND)
        def status() -> dict[str, Any]:
            return self._session.commands.status()

        @self.command(messages.STATISTICS_COMMAND)
        def statistics() -> dict[str, Any]:
            return self._session.commands.statistics()

    def _offer_completion(self) -> None:
        @self.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(resolve_provider=False))
        async def completion(params: types.CompletionParams) -> types.CompletionList:
            return await self._session.completion(params)

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Log the kind alone: pygls would show the message, which may hold user text, to the user."""
        log.error("a handler failed: %s", type(error).__name__)

    async def aclose(self) -> None:
        """Stop what is running and let go of the engine."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._opened is not None:
            await self._opened.aclose()

    def _initialize(self, params: types.InitializeParams) -> None:
        self._client = self.protocol.ledger.params(self.protocol.msg_id)
        self._settings.initialize(self._client.get("initializationOptions"))
        roots = [params.root_uri] if params.root_uri else []
        self._folders = [folder.uri for folder in params.workspace_folders or ()] or roots
        offered, document = self._settings.current.completion, self._capability("textDocument")
        # A client that knows inline completion has the key, even if its value is null.
        inline = isinstance(document, dict) and "inlineCompletion" in document
        if offered == "on" or (offered == "auto" and not inline):
            self._offer_completion()

    def _capability(self, *path: str) -> Any:
        found: Any = self._client.get("capabilities")
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    # -- settings ----------------------------------------------------------------------------------------------------

    def _configuration(self, settings: Any) -> None:
        """The editor's settings changed: they are in the notification, or are to be asked for."""
        if self._settings.configure(settings):
            self._session.desk.settle()
        elif not settings:
            self._start(self._pull_settings())
        self._session.desk.tell_notices()

    async def _pull_settings(self) -> None:
        if not self._capability("workspace", "configuration"):
            return
        item = types.ConfigurationItem(section="starfill")
        with suppress(JsonRpcException):
            found = await self.workspace_configuration_async(types.ConfigurationParams([item]))
            if self._settings.configure_section(found[0] if found else None):
                self._session.desk.settle()
            self._session.desk.tell_notices()

    # -- the way to the editor ---------------------------------------------------------------------------------------

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """See `session.Link`."""
        self.protocol.notify(method, dict(params))

    def message(self, text: str, *, error: bool) -> None:
        """See `session.Link`."""
        kind = types.MessageType.Error if error else types.MessageType.Warning
        self.window_show_message(types.ShowMessageParams(kind, text))

    def work_done(self) -> WorkDone | None:
        """See `session.Link`."""
        window = self.client_capabilities.window
        return WorkDone(self) if window is not None and window.work_done_progress else None

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
