"""pygls' protocol with our buffers in place of its workspace, and with the ledger asked before each reply."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams
from pygls.protocol import LanguageServerProtocol
from pygls.protocol.language_server import lsp_method

from lsp_server.gate import INTERNAL_ERROR, INVALID_PARAMS, Ledger, RequestId

_WORDS = {INTERNAL_ERROR: "this server failed", INVALID_PARAMS: "no such command, or params that are not as specified"}
"""In place of pygls' own, which quote what they were sent and add the traceback."""

_READ_CAPABILITIES = ("general", "window")


class DocumentEvents(Protocol):
    """Who keeps the documents."""

    def did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        """The editor has opened one."""
        ...

    def did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        """Its text has changed."""
        ...

    def did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        """The editor has closed it."""
        ...


class StarfillProtocol(LanguageServerProtocol):
    """One session's. `ledger`, `documents` and `replied` are set by the server that it belongs to."""

    ledger: Ledger
    documents: Callable[[], DocumentEvents]
    replied: Callable[[RequestId], None]
    """Called when a reply has been written."""

    @lsp_method(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        """Our own buffers, not pygls' workspace."""
        self.documents().did_open(params)

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        """Our own buffers, not pygls' workspace."""
        self.documents().did_change(params)

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        """Our own buffers, not pygls' workspace."""
        self.documents().did_close(params)

    @lsp_method(types.WORKSPACE_EXECUTE_COMMAND)
    async def lsp_workspace__execute_command(  # type: ignore[override]  # pygls takes any kind of handler
        self, params: types.ExecuteCommandParams
    ) -> Any:
        """As a task, which a cancel reaches: pygls' own leaves the command running and answers that it is cancelled."""
        handler = self.fm.commands.get(params.command)
        arguments = params.arguments or []
        if handler is None or not _takes(handler, arguments):
            raise JsonRpcInvalidParams
        result = handler(*arguments)
        return await result if inspect.isawaitable(result) else result

    def structure_message(self, data: dict[str, Any]) -> Any:
        """Leave out of `initialize` what nobody reads: building pygls' hundred capability classes costs 40 ms.

        The ledger keeps what the client really sent.
        """
        if data.get("method") == types.INITIALIZE and isinstance(data.get("params"), dict):
            sent = data["params"].get("capabilities")
            if isinstance(sent, dict):
                read = {key: sent[key] for key in _READ_CAPABILITIES if key in sent}
                data = data | {"params": data["params"] | {"capabilities": read}}
        return super().structure_message(data)

    def _send_response(
        self, msg_id: RequestId, result: Any | None = None, error: types.ResponseError | None = None
    ) -> None:
        if self.ledger.settle(msg_id, failed=error is not None):
            if error is not None and error.code in _WORDS:
                error = types.ResponseError(error.code, _WORDS[error.code])
            super()._send_response(msg_id, result, error)
            self.replied(msg_id)

    def send_request(
        self,
        method: str,
        params: Any | None = None,
        callback: Callable[[Any], None] | None = None,
        msg_id: RequestId | None = None,
    ) -> Future[Any]:
        """The ledger lets in one reply to it."""
        msg_id = str(uuid.uuid4()) if msg_id is None else msg_id
        self.ledger.ask(msg_id)
        return super().send_request(method, params, callback, msg_id)


def _takes(handler: Callable[..., Any], arguments: Sequence[Any]) -> bool:
    """Whether a command can be called with so many arguments."""
    try:
        inspect.signature(handler).bind(*arguments)
    except TypeError:
        return False
    return True
