"""Feature registration and capability answers. What it takes to complete is imported once `initialize` is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer

from engine import __version__
from lsp_server import messages
from lsp_server.actions.tasks import KINDS, Task
from lsp_server.actions.wanted import Wanted
from lsp_server.features.progress import WorkDone
from lsp_server.gate import Ledger
from lsp_server.latency import Latency
from lsp_server.protocol import DocumentEvents, StarfillProtocol
from lsp_server.settings import LiveSettings
from lsp_server.structuring import quick_converter
from lsp_server.tasks import Tasks

if TYPE_CHECKING:
    from lsp_server.buffer import Encoding
    from lsp_server.engines import Engine
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
        self.latency = Latency()
        self.protocol.replied = self.latency.replied
        self._settings = settings
        self._given_engine = engine
        self._client: dict[str, Any] = {}
        self._folders: list[str] = []
        self._opened: Session | None = None
        self._tasks = Tasks()
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
            self._tasks.start(self._pull_settings())

        @self.feature(types.SHUTDOWN)
        def shutdown(_: None) -> None:
            if self._opened is not None:  # some editors end the process before it can say goodbye
                self._opened.flush()
                log.info("%s", self.latency.line())

        @self.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
        async def inline_completion(params: types.InlineCompletionParams) -> types.InlineCompletionList:
            number = self.protocol.msg_id
            trip = self.latency.begin(number)
            return await self._session.inline_completion(params, self.protocol.ledger.params(number), trip)

        @self.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)
        def did_change_configuration(params: types.DidChangeConfigurationParams) -> None:
            self._configuration(params.settings)

        @self.feature(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)
        def did_change_folders(_: types.DidChangeWorkspaceFoldersParams) -> None:
            self._session.in_force.settle(list(self.workspace.folders))

        @self.feature(messages.DID_SHOW)
        def did_show(params: Any) -> None:
            self._session.commands.did_show(params)

        @self.feature(messages.DID_PARTIALLY_ACCEPT)
        def did_partially_accept(params: Any) -> None:
            self._session.commands.did_partially_accept(params)

        @self.command(messages.ACCEPT_COMMAND)
        def accept(*arguments: Any) -> None:
            self._session.commands.accept(arguments[0] if arguments else None)

        @self.command(messages.ACTION_COMMAND)
        async def action(*arguments: Any) -> dict[str, Any]:
            return await self._perform(arguments, None)

        @self.command(messages.REWRITE_COMMAND)
        async def rewrite(*arguments: Any) -> dict[str, Any]:
            return await self._perform(arguments, Task.REWRITE)

        @self.command(messages.STATUS_COMMAND)
        def status() -> dict[str, Any]:
            return {**self._session.commands.status(), "latency": self.latency.summary()}

        @self.command(messages.STATISTICS_COMMAND)
        def statistics() -> dict[str, Any]:
            return self._session.commands.statistics()

        @self.command(messages.RESET_STATISTICS_COMMAND)
        def reset_statistics() -> None:
            self._session.commands.reset_statistics()

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
        if self._settings.current.actions != "off":
            self._offer_actions()

    def _capability(self, *path: str) -> Any:
        found: Any = self._client.get("capabilities")
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def _offer_completion(self) -> None:
        @self.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(resolve_provider=False))
        async def completion(params: types.CompletionParams) -> types.CompletionList:
            return await self._session.completion(params, self.latency.begin(self.protocol.msg_id))

    def _offer_actions(self) -> None:
        @self.feature(types.TEXT_DOCUMENT_CODE_ACTION, types.CodeActionOptions(code_action_kinds=list(KINDS)))
        async def code_action(params: types.CodeActionParams) -> list[types.CodeAction | types.Command]:
            return await self._session.actions.offered(params)

    async def _perform(self, arguments: tuple[Any, ...], task: Task | None) -> dict[str, Any]:
        wanted = Wanted.read(arguments[0] if arguments else None, task)
        if wanted is None:
            raise JsonRpcInvalidParams
        token = self.protocol.ledger.params(self.protocol.msg_id).get("workDoneToken")
        named = isinstance(token, int | str) and not isinstance(token, bool)
        return await self._session.actions.perform(wanted, token if named else None)

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Log the kind alone: pygls would show the message, which may hold user text, to the user."""
        log.error("a handler failed: %s", type(error).__name__)

    async def aclose(self) -> None:
        """Stop what is running and let go of the engine."""
        await self._tasks.aclose()
        if self._opened is not None:
            await self._opened.aclose()
            if not self.protocol.ledger.shut_down:
                log.info("%s", self.latency.line())

    # -- settings ----------------------------------------------------------------------------------------------------

    def _configuration(self, settings: Any) -> None:
        """The editor's settings changed: they are in the notification, or are to be asked for."""
        if self._settings.configure(settings):
            self._session.in_force.settle()
        elif not settings:
            self._tasks.start(self._pull_settings())
        self._session.in_force.tell_notices()

    async def _pull_settings(self) -> None:
        if not self._capability("workspace", "configuration"):
            return
        item = types.ConfigurationItem(section="starfill")
        with suppress(JsonRpcException):
            found = await self.workspace_configuration_async(types.ConfigurationParams([item]))
            if self._settings.configure_section(found[0] if found else None):
                self._session.in_force.settle()
            self._session.in_force.tell_notices()

    # -- the way to the editor ---------------------------------------------------------------------------------------

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """See `session.Link`."""
        self.protocol.notify(method, dict(params))

    def message(self, text: str, *, error: bool) -> None:
        """See `session.Link`."""
        kind = types.MessageType.Error if error else types.MessageType.Warning
        self.window_show_message(types.ShowMessageParams(kind, text))

    def inform(self, text: str) -> None:
        """See `actions.desk.Editor`."""
        self.window_show_message(types.ShowMessageParams(types.MessageType.Info, text))

    async def apply(self, edit: types.WorkspaceEdit, label: str) -> bool:
        """See `actions.desk.Editor`."""
        with suppress(JsonRpcException):
            result = await self.workspace_apply_edit_async(types.ApplyWorkspaceEditParams(edit=edit, label=label))
            return bool(result.applied)
        return False

    def working(self, title: str, token: str | int | None, cancel: Callable[[], None]) -> WorkDone | None:
        """See `actions.desk.Editor`."""
        if token is None and not self._shows_work:
            return None
        return WorkDone(self, title, token=token, cancel=cancel)

    def work_done(self) -> WorkDone | None:
        """See `session.Link`."""
        return WorkDone(self) if self._shows_work else None

    @property
    def _shows_work(self) -> bool:
        window = self.client_capabilities.window
        return window is not None and bool(window.work_done_progress)
