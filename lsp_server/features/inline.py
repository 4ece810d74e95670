"""`textDocument/inlineCompletion`: ghost text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lsprotocol import types
from lsprotocol.types import Range as LspRange

from lsp_server.attribution.origin import Origin
from lsp_server.buffer import Position
from lsp_server.features.desk import Selected
from lsp_server.features.documents import Document
from lsp_server.messages import ACCEPT_COMMAND, AttributedItem


def inline_items(
    document: Document,
    start: Position,
    cursor: Position,
    texts: Sequence[str],
    identifiers: Sequence[str],
    origins: Sequence[Sequence[Origin]] = (),
) -> list[types.InlineCompletionItem]:
    """Items that put texts in place of what stands from `start` to the cursor, each with the command that tells of its
    acceptance, and with `origins` if it has any.

    There is always a range, and it is empty unless a menu's entry is to be replaced: some clients fail without one, others
    hide what it covers.
    """
    if not texts:
        return []  # the text may be another by now, without the cursor's line
    replaced = LspRange(document.lsp(start), document.lsp(cursor))
    items: list[types.InlineCompletionItem] = []
    for text, id_, found in zip(texts, identifiers, origins or [()] * len(texts), strict=True):
        command = types.Command("Accept", ACCEPT_COMMAND, arguments=[id_])
        if found:
            attribution = [origin.as_dict() for origin in found]
            items.append(AttributedItem(text, range=replaced, command=command, attribution=attribution))
        else:
            items.append(types.InlineCompletionItem(text, range=replaced, command=command))
    return items


def selected_entry(document: Document, cursor: Position, info: types.SelectedCompletionInfo | None) -> Selected | None:
    """The menu's selected entry, if it would replace what stands just before the cursor."""
    if info is None or "\n" in info.text or "\r" in info.text:
        return None
    start, end = document.at(info.range.start), document.at(info.range.end)
    return Selected(start, info.text) if end == cursor and start.line == cursor.line else None


class Partial:
    """Sends what there is so far to a client that gave a token for it. Each value replaces the one before.

    The item's id stays the same from the first piece to the final answer.
    """

    def __init__(
        self,
        token: int | str,
        document: Document,
        cursor: Position,
        selected: Selected | None,
        identifier: str,
        progress: Callable[[types.ProgressParams], Any],
        sent: Callable[[], None],
    ) -> None:
        """`sent` is called when `progress` has been."""
        self._token = token
        self._document = document
        self._cursor = cursor
        self._selected = selected
        self._identifier = identifier
        self._progress = progress
        self._sent = sent

    def __call__(self, text: str) -> None:
        """Send it."""
        selected, start = ("", self._cursor) if self._selected is None else (self._selected.text, self._selected.start)
        text = selected + text.replace("\n", self._document.buffer.end_of_line)
        items = inline_items(self._document, start, self._cursor, [text], [self._identifier])
        self._progress(types.ProgressParams(self._token, types.InlineCompletionList(items)))
        self._sent()
