"""`FakeEditor`: a language client that does what editors do and forgives nothing.

Usage::

    async with await FakeEditor.start(argv) as editor:
        await editor.initialize("neovim-0.12")
        editor.open(uri, "python", text)
        reply = await editor.inline(uri, 1, 4).result()
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from tests.harness.handlers import Call
from tests.harness.jsonrpc import Pending, ServerError, SessionError
from tests.harness.session import Session
from tests.harness.text import Encoding, Position, Range, apply_item, offset_at, position, position_at, span, splice

__all__ = [
    "Call",
    "Document",
    "Encoding",
    "FakeEditor",
    "Pending",
    "Position",
    "Range",
    "ServerError",
    "SessionError",
    "apply_item",
    "capability_names",
    "load_client",
    "position",
    "span",
]

_CAPABILITIES = Path(__file__).parent / "capabilities"


def capability_names() -> list[str]:
    """The editors whose capabilities are known, as `initialize` takes them."""
    return sorted(path.stem for path in _CAPABILITIES.glob("*.json"))


def load_client(name: str) -> dict[str, Any]:
    """`clientInfo` and `capabilities` of an editor, as it sends them."""
    loaded: dict[str, Any] = json.loads((_CAPABILITIES / f"{name}.json").read_text("utf-8"))
    return loaded


@dataclass(slots=True)
class Document:
    """The editor's own copy of an open document."""

    language_id: str
    text: str
    version: int


class FakeEditor(Session):
    """A session with documents. The editor's copy of a text is the truth that the server's buffer must equal.

    Positions are in the encoding that `initialize` negotiated. On leaving the context the server is shut down and the
    session judged: every request answered once, every message of the server looked at, exit status 0.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout)
        self.documents: dict[str, Document] = {}
        self.encoding: Encoding = "utf-16"
        self.server_capabilities: dict[str, Any] = {}
        self.settings: dict[str | None, Any] = {}  # what workspace/configuration answers, by section
        self.registrations: list[dict[str, Any]] = []
        self._initialized = False
        self._shut_down = False
        self.on_request("window/workDoneProgress/create", lambda params: None)
        self.on_request("window/showMessageRequest", lambda params: None)
        self.on_request("workspace/configuration", self._configuration)
        self.on_request("client/registerCapability", self._register)
        self.on_request("client/unregisterCapability", lambda params: None)

    # Life of the session

    async def initialize(
        self,
        capabilities: str | Mapping[str, Any] = "vscode",
        *,
        options: Any = None,
        root_uri: str | None = None,
        timeout: float | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """`initialize` and `initialized`; -> the result. `capabilities`: an editor's name or the object itself;
        `more` goes into the params as it is."""
        client = load_client(capabilities) if isinstance(capabilities, str) else {"capabilities": dict(capabilities)}
        params = {
            "processId": os.getpid(),
            "rootUri": root_uri,
            "workspaceFolders": [{"uri": root_uri, "name": "root"}] if root_uri else None,
            **client,
            **({} if options is None else {"initializationOptions": options}),
            **more,
        }
        result: dict[str, Any] = await self.request("initialize", params).result(timeout)
        self.server_capabilities = result["capabilities"]
        offered = (client["capabilities"].get("general") or {}).get("positionEncodings") or ["utf-16"]
        chosen = self.server_capabilities.get("positionEncoding", "utf-16")
        if chosen not in offered:
            raise self.failure(f"the server chose encoding {chosen}, the editor offered {offered}")
        self.encoding = cast("Encoding", chosen)
        self.notify("initialized", {})
        self._initialized = True
        return result

    async def shutdown(self, timeout: float | None = None) -> None:
        """Send `shutdown` and wait for its reply."""
        self._shut_down = True
        result = await self.request("shutdown").result(timeout)
        if result is not None:
            raise self.failure(f"shutdown must answer null, not {result!r}")

    async def exit(self, timeout: float | None = None) -> int:
        """Send `exit` and wait for the process to end; -> its exit status."""
        self._dismissed = True
        self.notify("exit")
        return await self.wait_exit(timeout)

    async def _leave(self) -> None:
        if self._dismissed or self.returncode is not None:
            await self.wait_exit()
            return
        if not self._initialized:
            await self.disconnect()
            return
        if not self._shut_down:
            await self.shutdown()
        if (status := await self.exit()) != 0:
            raise self.failure(f"the server ended with status {status} after shutdown and exit")

    # Documents

    def open(self, uri: str, language_id: str, text: str, *, version: int = 1) -> None:
        """didOpen; lsp-mode and copilot.el start at version 0."""
        self.documents[uri] = Document(language_id, text, version)
        item = {"uri": uri, "languageId": language_id, "version": version, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": item})

    def change(self, uri: str, where: Range | None, text: str) -> None:
        """didChange with one edit; None replaces the whole text."""
        self.change_many(uri, [(where, text)])

    def change_many(self, uri: str, edits: Sequence[tuple[Range | None, str]]) -> None:
        """didChange with several edits, each in terms of the text that the one before it left."""
        document = self.documents[uri]
        document.version += 1
        events: list[dict[str, Any]] = []
        for where, new in edits:
            document.text = new if where is None else splice(document.text, where, new, self.encoding)
            events.append({"text": new} if where is None else {"range": where, "text": new})
        self.notify(
            "textDocument/didChange",
            {"textDocument": {"uri": uri, "version": document.version}, "contentChanges": events},
        )

    def type(self, uri: str, line: int, character: int, text: str) -> Position:
        """Type at a position, one didChange per key (CRLF is one); -> where the cursor stands then."""
        cursor = position(line, character)
        for key in re.findall(r"\r\n|.", text, re.DOTALL):
            end = offset_at(self.documents[uri].text, cursor, self.encoding) + len(key)
            self.change(uri, span(cursor["line"], cursor["character"]), key)
            cursor = self.cursor(uri, end)
        return cursor

    def close_document(self, uri: str) -> None:
        """didClose."""
        del self.documents[uri]
        self.notify("textDocument/didClose", {"textDocument": {"uri": uri}})

    def save(self, uri: str) -> None:
        """didSave, with the text if the server asked for it."""
        params: dict[str, Any] = {"textDocument": {"uri": uri}}
        sync = self.server_capabilities.get("textDocumentSync")
        wish = sync.get("save") if isinstance(sync, dict) else None
        if isinstance(wish, dict) and wish.get("includeText"):
            params["text"] = self.documents[uri].text
        self.notify("textDocument/didSave", params)

    # Completion

    def inline(
        self,
        uri: str,
        line: int,
        character: int,
        *,
        kind: Literal[1, 2] = 1,
        partial: bool = False,
        selected: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Pending:
        """`textDocument/inlineCompletion`: kind 1 invoked, 2 automatic; `selected`: what the popup shows."""
        context = {"triggerKind": kind, **({} if selected is None else {"selectedCompletionInfo": selected})}
        params = {**self._at(uri, line, character), "context": context, **more}
        return self.request("textDocument/inlineCompletion", params, partial=partial)

    def completion(self, uri: str, line: int, character: int, *, trigger: str | None = None) -> Pending:
        """`textDocument/completion`, invoked or by a trigger character."""
        context = {"triggerKind": 1} if trigger is None else {"triggerKind": 2, "triggerCharacter": trigger}
        return self.request("textDocument/completion", {**self._at(uri, line, character), "context": context})

    def accept(self, uri: str, item: Mapping[str, Any]) -> Pending | None:
        """Insert an item as an editor does and run its command, whose pending reply is returned."""
        edit = item.get("textEdit")
        where: Range = edit["range"] if edit else item["range"]
        expected = apply_item(self.documents[uri].text, item, self.encoding)
        self.change(uri, where, edit["newText"] if edit else item["insertText"])
        assert self.documents[uri].text == expected
        if not (command := item.get("command")):
            return None
        arguments = {"command": command["command"], "arguments": command.get("arguments", [])}
        return self.request("workspace/executeCommand", arguments)

    def text(self, uri: str) -> str:
        """The editor's copy of a document."""
        return self.documents[uri].text

    def cursor(self, uri: str, offset: int) -> Position:
        """The position of a code point offset in a document."""
        return position_at(self.documents[uri].text, offset, self.encoding)

    def _at(self, uri: str, line: int, character: int) -> dict[str, Any]:
        return {"textDocument": {"uri": uri}, "position": position(line, character)}

    def _configuration(self, params: Any) -> list[Any]:
        return [self.settings.get(item.get("section")) for item in params["items"]]

    def _register(self, params: Any) -> None:
        self.registrations += params["registrations"]
