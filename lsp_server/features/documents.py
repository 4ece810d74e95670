"""The open documents, as the editor has them, and what their edits mean for completions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lsprotocol import types
from lsprotocol.types import Position as LspPosition

from lsp_server.buffer import Buffer, Encoding, Position
from lsp_server.completer import Completer
from lsp_server.features.trail import Trail
from lsp_server.state.events import Typed
from lsp_server.window import window_at

_PASTE = 48
"""Characters from which an edit may be worth computing before anybody asks."""


@dataclass(slots=True)
class Document:
    """An open document, and where its author writes."""

    uri: str
    buffer: Buffer
    trail: Trail = field(default_factory=Trail)
    revision: int = 0
    """Another number after each edit of any document, the highest of the one that changed last."""
    edited: int | None = None
    """The line of the last edit."""

    def at(self, position: LspPosition) -> Position:
        """A client's position in the buffer; the author writes there."""
        return self.buffer.position(position.line, position.character)

    def lsp(self, position: Position) -> LspPosition:
        """The client's units for a position."""
        return LspPosition(position.line, self.buffer.character(position))


class Documents:
    """By URI. Those that no editor opened are not there, and are never read."""

    def __init__(self, completer: Completer, encoding: Encoding) -> None:
        self._encoding = encoding
        self._completer = completer
        self.closed: Callable[[str], None] = lambda _uri: None
        """Hears of each document that was closed."""
        self._open: dict[str, Document] = {}
        self._revision = 0

    def get(self, uri: str) -> Document | None:
        """An open document."""
        return self._open.get(uri)

    def __iter__(self) -> Iterator[Document]:
        return iter(self._open.values())

    def did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        """Take a document over from the editor."""
        opened = params.text_document
        buffer = Buffer(opened.text, language=opened.language_id, version=opened.version, encoding=self._encoding)
        if opened.uri in self._open:
            self._completer.forget(opened.uri)
        self._revision += 1
        self._open[opened.uri] = Document(opened.uri, buffer, revision=self._revision)

    def did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        """Apply edits; what was asked for the older text is answered empty."""
        document = self._open.get(params.text_document.uri)
        if document is None:
            return
        edits = [_apply(document, change) for change in params.content_changes]
        document.buffer.version = params.text_document.version
        self._revision += 1
        document.revision = self._revision
        typed = [edit for edit in edits if edit is not None]
        followed = len(typed) == len(edits)
        self._completer.edited(document.uri, tuple(typed) if followed else None)
        caret = document.trail.caret
        if followed and caret is not None and len(typed) == 1 and len(typed[0].inserted) > _PASTE:
            self._completer.pasted(document.uri, window_at(document.buffer, caret))

    def did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        """Forget a document."""
        if self._open.pop(params.text_document.uri, None) is not None:
            self._completer.forget(params.text_document.uri)
            self.closed(params.text_document.uri)


def _apply(document: Document, change: types.TextDocumentContentChangeEvent) -> Typed | None:
    """Bring the buffer up to date -> the edit, if it was made where the author writes."""
    buffer = document.buffer
    if not isinstance(change, types.TextDocumentContentChangePartial):
        buffer.set_text(change.text)
        document.trail.caret = None
        document.edited = None
        return None
    start, end = document.at(change.range.start), document.at(change.range.end)
    start, end = min(start, end), max(start, end)
    replaced = buffer.before(end)[start.column :] if start.line == end.line else ""
    buffer.replace(start, end, change.text)
    document.edited = start.line
    text = change.text.replace("\r\n", "\n").replace("\r", "\n")
    return document.trail.follow(start, end, replaced, text)
