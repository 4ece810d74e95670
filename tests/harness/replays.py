"""How six editors begin a session, message by message, as each of them writes it.

`capabilities/NAME.json` has what a client says of itself; here is what else stands in its `initialize`, where its ids and
versions start, what it sends before it asks, and in what form it asks. Read in the clients' sources: vscode-languageclient
11, Neovim 0.12 (`vim/lsp/client.lua`), lsp-mode 10, eglot of Emacs 30.2, Helix 25.07, coc.nvim.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.harness.editor import load_client
from tests.harness.text import Encoding, units

Message = dict[str, Any]

URI = "file:///project/module.py"
LINE = "# 😀 é x"
TEXT = f"{LINE}\nfor i in "


@dataclass(frozen=True, slots=True)
class Client:
    """One editor's habits, and what a server must make of it."""

    name: str
    encoding: Encoding
    ghost_text: bool  # asks for inlineCompletion by itself
    first_id: int = 1
    version: int = 0
    initialize: Message = field(default_factory=dict)
    configuration: Message | None = None  # the settings that it pushes after `initialized`
    range_length: bool = True
    context: Message = field(default_factory=lambda: {"triggerKind": 2})

    def opening(self, **changes: Any) -> list[Message]:
        """From initialize to didOpen; `changes` go over the params of initialize."""
        said = load_client(self.name)
        opened = {"uri": URI, "languageId": "python", "version": self.version, "text": TEXT}
        messages: list[Message] = [
            {"id": self.first_id, "method": "initialize", "params": {**self.initialize, **said, **changes}},
            {"method": "initialized", "params": {}},
        ]
        if self.configuration is not None:
            settings = {"settings": self.configuration}
            messages.append({"method": "workspace/didChangeConfiguration", "params": settings})
        messages.append({"method": "textDocument/didOpen", "params": {"textDocument": opened}})
        return [{"jsonrpc": "2.0", **message} for message in messages]

    def key(self) -> list[Message]:
        """One key in the line with the emoji, and what is asked then. The request's id is the first one plus 1."""
        at = {"line": 0, "character": self.column(len(LINE))}
        after = {"line": 0, "character": self.column(len(LINE)) + 1}
        change: Message = {"range": {"start": at, "end": at}, "text": "="}
        if self.range_length:
            change["rangeLength"] = 0
        edit = {"textDocument": {"uri": URI, "version": self.version + 1}, "contentChanges": [change]}
        method = "textDocument/inlineCompletion" if self.ghost_text else "textDocument/completion"
        params = {"textDocument": {"uri": URI}, "position": after, "context": self.context}
        return [
            {"jsonrpc": "2.0", "method": "textDocument/didChange", "params": edit},
            {"jsonrpc": "2.0", "id": self.first_id + 1, "method": method, "params": params},
        ]

    def column(self, characters: int) -> int:
        """The client's units before a column of `LINE`."""
        return units(LINE[:characters], self.encoding)


ROOT = {"rootPath": "/project", "rootUri": "file:///project"}
FOLDERS = {"workspaceFolders": [{"uri": "file:///project", "name": "project"}]}

CLIENTS = (
    Client(
        "vscode",
        "utf-16",
        ghost_text=True,
        first_id=0,
        version=1,
        initialize={"processId": None, **ROOT, **FOLDERS, "initializationOptions": {}, "trace": "off"},
        configuration={"starfill": {}},
    ),
    Client(
        "neovim-0.12",
        "utf-8",
        ghost_text=True,
        initialize={"processId": None, **ROOT, "workspaceFolders": None, "workDoneToken": "1"},
    ),
    Client(
        "lsp-mode-10",
        "utf-32",
        ghost_text=True,
        initialize={"processId": None, **ROOT, "initializationOptions": None, "workDoneToken": "1"},
        configuration={},
    ),
    Client(
        "eglot",
        "utf-32",
        ghost_text=False,
        initialize={"processId": None, **ROOT, **FOLDERS, "initializationOptions": {}},
        configuration={},
        context={"triggerKind": 1},
    ),
    Client(
        "helix",
        "utf-8",
        ghost_text=False,
        first_id=0,
        range_length=False,
        initialize={"processId": None, **ROOT, **FOLDERS, "initializationOptions": None},
        context={"triggerKind": 1},
    ),
    Client(
        "coc",
        "utf-16",
        ghost_text=True,
        first_id=0,
        version=1,
        initialize={"processId": None, **ROOT, **FOLDERS, "initializationOptions": {}, "trace": "off"},
    ),
)


def on_the_wire(message: Message) -> bytes:
    """As all six write it: text in UTF-8, unescaped."""
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
