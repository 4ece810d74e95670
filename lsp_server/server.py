"""Feature registration, capability answers, wiring. Decides nothing about completions."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from lsprotocol import types
from lsprotocol.types import Position as LspPosition
from lsprotocol.types import Range as LspRange
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol, default_converter
from pygls.protocol.language_server import lsp_method

from engine import __version__
from engine.errors import EngineUnavailable
from lsp_server.buffer import Buffer, Encoding, Position
from lsp_server.completer import Completer, Item, Outcome
from lsp_server.engines import connect
from lsp_server.gate import Ledger, RequestId
from lsp_server.settings import Settings, with_editor
from lsp_server.window import window_at

log = logging.getLogger(__name__)

STATUS_COMMAND = "starfill.status"
_WORD = re.compile(r"\w+\Z")


class StarfillProtocol(LanguageServerProtocol):
    """pygls' protocol with our buffers in place of its workspace, and with the ledger asked before each reply."""

    ledger: Ledger

    @lsp_method(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        """Our own buffers, not pygls' workspace."""
        cast("StarfillServer", self._server).did_open(params)

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        """Our own buffers, not pygls' workspace."""
        cast("StarfillServer", self._server).did_change(params)

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        """Our own buffers, not pygls' workspace."""
        cast("StarfillServer", self._server).did_close(params)

    def structure_message(self, data: dict[str, Any]) -> Any:
        """Leave out of `initialize` what nobody reads: building pygls' hundred capability classes costs 40 ms.

        The ledger keeps what the client really sent.
        """
        if data.get("method") == types.INITIALIZE and isinstance(data.get("params"), dict):
            sent = data["params"].get("capabilities")
            if isinstance(sent, dict):
                read = {key: sent[key] for key in ("general", "window") if key in sent}
                data = data | {"params": data["params"] | {"capabilities": read}}
        return super().structure_message(data)

    def _send_response(
        self, msg_id: RequestId, result: Any | None = None, error: types.ResponseError | None = None
    ) -> None:
        if self.ledger.settle(msg_id):
            super()._send_response(msg_id, result, error)


class StarfillServer(LanguageServer):
    """One editor window's server."""

    protocol: StarfillProtocol

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            "starfill",
            __version__,
            text_document_sync_kind=types.TextDocumentSyncKind.Incremental,
            protocol_cls=StarfillProtocol,
            converter_factory=default_converter,
        )
        self.settings = settings
        self.protocol.ledger = Ledger()
        self._documents: dict[str, Buffer] = {}
        self._engine = connect(settings, trust_folder=False)
        self._completer = Completer(self._engine, settings.max_tokens, time.perf_counter)
        self._warm_up: asyncio.Task[None] | None = None
        self._last: Outcome | None = None
        self._last_asked: Outcome | None = None
        self._register()

    def _register(self) -> None:
        # pygls marks the functions that it is given, which methods do not allow.
        @self.feature(types.INITIALIZE)
        def initialize(params: types.InitializeParams) -> None:
            self._initialize(params)

        @self.feature(types.INITIALIZED)
        def initialized(_: types.InitializedParams) -> None:
            self._warm_up = asyncio.create_task(self._warm())

        @self.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
        async def inline_completion(params: types.InlineCompletionParams) -> types.InlineCompletionList:
            return await self._inline_completion(params)

        @self.command(STATUS_COMMAND)
        def status() -> dict[str, Any]:
            return self._status()

    def _offer_completion(self) -> None:
        @self.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(resolve_provider=False))
        async def completion(params: types.CompletionParams) -> types.CompletionList:
            return await self._completion(params)

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Log the kind alone: pygls would show the message, which may hold user text, to the user."""
        log.error("a handler failed: %s", type(error).__name__)

    # -- life cycle --------------------------------------------------------------------------------------------------

    def _initialize(self, _: types.InitializeParams) -> None:
        raw = self.protocol.ledger.params(self.protocol.msg_id)
        self.settings = with_editor(self.settings, raw.get("initializationOptions"))
        self._completer = Completer(self._engine, self.settings.max_tokens, time.perf_counter)
        capabilities = (raw.get("capabilities") or {}).get("textDocument") or {}
        # A client that knows inline completion has the key, even if its value is null.
        inline = isinstance(capabilities, dict) and "inlineCompletion" in capabilities
        if self.settings.completion == "on" or (self.settings.completion == "auto" and not inline):
            self._offer_completion()

    async def _warm(self) -> None:
        """Have the engine ready before the first key, with progress where the client shows it."""
        window = self.client_capabilities.window
        report: Callable[[str], None] | None = None
        token = f"starfill-{id(self)}"
        if window is not None and window.work_done_progress:
            with suppress(JsonRpcException):
                await self.work_done_progress.create_async(token)

                def report(stage: str) -> None:
                    if token not in begun:
                        begun.add(token)
                        self.work_done_progress.begin(
                            token, types.WorkDoneProgressBegin(title="starfill", message=stage)
                        )
                    else:
                        self.work_done_progress.report(token, types.WorkDoneProgressReport(message=stage))

        begun: set[str] = set()
        message = "ready"
        try:
            await self._engine.ready(invoked=True, progress=report)
        except EngineUnavailable as error:
            message = "failed"
            log.warning("%s", error)
        finally:
            if begun:
                self.work_done_progress.end(token, types.WorkDoneProgressEnd(message=message))

    async def aclose(self) -> None:
        """Stop what is running and let go of the engine."""
        if self._warm_up is not None:
            self._warm_up.cancel()
            with suppress(asyncio.CancelledError):
                await self._warm_up
        await self._engine.aclose()

    # -- documents ---------------------------------------------------------------------------------------------------

    def did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        """Take a document over from the editor."""
        document = params.text_document
        encoding = cast("Encoding", str(types.PositionEncodingKind(self.protocol.workspace.position_encoding).value))
        self._documents[document.uri] = Buffer(
            document.text, language=document.language_id, version=document.version, encoding=encoding
        )

    def did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        """Apply edits; what was asked for the older text is answered empty."""
        buffer = self._documents.get(params.text_document.uri)
        if buffer is None:
            return
        self._completer.outdate(params.text_document.uri)
        for change in params.content_changes:
            if isinstance(change, types.TextDocumentContentChangePartial):
                start = buffer.position(change.range.start.line, change.range.start.character)
                end = buffer.position(change.range.end.line, change.range.end.character)
                buffer.replace(start, end, change.text)
            else:
                buffer.set_text(change.text)
        buffer.version = params.text_document.version

    def did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        """Forget a document."""
        self._completer.forget(params.text_document.uri)
        self._documents.pop(params.text_document.uri, None)

    # -- completion --------------------------------------------------------------------------------------------------

    async def _inline_completion(self, params: types.InlineCompletionParams) -> types.InlineCompletionList:
        raw = self.protocol.ledger.params(self.protocol.msg_id)
        buffer = self._documents.get(params.text_document.uri)
        if buffer is None:
            return types.InlineCompletionList(items=[])
        cursor = buffer.position(params.position.line, params.position.character)
        at = _lsp_position(buffer, cursor)

        def items(texts: list[str]) -> list[types.InlineCompletionItem]:
            lines = (text.replace("\n", buffer.end_of_line) for text in texts)
            return [types.InlineCompletionItem(insert_text=text, range=LspRange(at, at)) for text in lines]

        token = raw.get("partialResultToken")
        on_text: Callable[[str], None] | None = None
        if isinstance(token, int | str):

            def on_text(text: str) -> None:
                self.progress(types.ProgressParams(token=token, value=items([text])))

        invoked = params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked
        found = await self._complete(params.text_document.uri, buffer, cursor, invoked=invoked, on_text=on_text)
        return types.InlineCompletionList(items=items([item.text for item in found]))

    async def _completion(self, params: types.CompletionParams) -> types.CompletionList:
        buffer = self._documents.get(params.text_document.uri)
        if buffer is None:
            return types.CompletionList(is_incomplete=False, items=[])
        cursor = buffer.position(params.position.line, params.position.character)
        match = _WORD.search(buffer.before(cursor))
        word = match[0] if match else ""
        start = Position(cursor.line, cursor.column - len(word))
        replaced = LspRange(_lsp_position(buffer, start), _lsp_position(buffer, cursor))
        found = await self._complete(params.text_document.uri, buffer, cursor, invoked=False, on_text=None)
        items = []
        for number, item in enumerate(found):
            text = word + item.text
            first = text.strip().partition("\n")[0]
            items.append(
                types.CompletionItem(
                    label=first,
                    kind=types.CompletionItemKind.Text,
                    detail="starfill",
                    documentation=types.MarkupContent(types.MarkupKind.Markdown, _fenced(text, buffer.language)),
                    filter_text=first if first.startswith(word) else word + first,
                    sort_text=f"~{number}",
                    text_edit=types.TextEdit(replaced, text.replace("\n", buffer.end_of_line)),
                )
            )
        return types.CompletionList(is_incomplete=True, items=items)

    async def _complete(
        self, uri: str, buffer: Buffer, cursor: Position, *, invoked: bool, on_text: Callable[[str], None] | None
    ) -> tuple[Item, ...]:
        outcome = await self._completer.complete(uri, window_at(buffer, cursor), invoked=invoked, on_text=on_text)
        self._last = outcome
        if outcome.generated:
            self._last_asked = outcome
        if outcome.detail is not None:
            log.info("nothing shown: %s", outcome.reason)
        return outcome.items

    def _status(self) -> dict[str, Any]:
        """What the last request came to, and the last one that the model was asked for; counts only."""
        return {"last": _account(self._last), "asked": _account(self._last_asked)}


def _account(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    return {
        "items": len(outcome.items),
        "reason": outcome.reason,
        "detail": outcome.detail,
        "layout": outcome.layout,
        "cached": outcome.cached,
        "computed": outcome.computed,
        "generated": outcome.generated,
        "reused": outcome.reused,
        "ms": {"first": _ms(outcome.first), "total": _ms(outcome.total)},
    }


def _lsp_position(buffer: Buffer, position: Position) -> LspPosition:
    return LspPosition(position.line, buffer.character(position))


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
