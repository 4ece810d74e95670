"""`textDocument/completion`: an entry in the completion menu, for editors without ghost text.

Their menus hold back what other servers answered until we have answered too, some of them for as long as it takes. So the
wait is bounded; what the model says after that is kept for the next key, and `isIncomplete` has the editor ask again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lsprotocol import types
from lsprotocol.types import Range as LspRange

from lsp_server.attribution.origin import Origin, sentence
from lsp_server.buffer import Position
from lsp_server.features.documents import Document
from lsp_server.messages import ACCEPT_COMMAND

PATIENCE = 0.1
"""Seconds that a menu waits for us: what a person does not notice."""

PATIENCE_OF_MERGERS = 1.0
"""Seconds for editors that show the answers of others meanwhile, and take in ours when it comes."""

_MERGERS = frozenset({"helix"})
_LABEL = 80  # characters of a line in the menu
_WORD = re.compile(r"\w+\Z")


@dataclass(frozen=True, slots=True)
class MenuClient:
    """What an editor's menu can do."""

    patience: float = PATIENCE
    markdown: bool = False
    as_is: bool = False
    """Whether it can be told to leave the indentation alone."""

    @classmethod
    def of(cls, params: Any) -> MenuClient:
        """From the raw params of `initialize`."""
        name = _of(params, "clientInfo", "name")
        item = _of(params, "capabilities", "textDocument", "completion", "completionItem")
        formats, modes = _of(item, "documentationFormat"), _of(item, "insertTextModeSupport", "valueSet")
        return cls(
            PATIENCE_OF_MERGERS if isinstance(name, str) and name.lower() in _MERGERS else PATIENCE,
            isinstance(formats, list) and "markdown" in formats,
            isinstance(modes, list) and 1 in modes,
        )


def menu_items(
    client: MenuClient,
    document: Document,
    cursor: Position,
    texts: Sequence[str],
    identifiers: Sequence[str],
    origins: Sequence[Sequence[Origin]] = (),
) -> list[types.CompletionItem]:
    """Entries that replace the word before the cursor by itself and what follows it.

    Menus match the word against `filterText` and drop what does not begin with it; an edit that begins at the cursor would
    be matched against nothing. `texts` have the document's line ends. `origins`: where each stands verbatim.
    """
    if not texts:
        return []  # the text may be another by now, without the cursor's line
    before = document.buffer.before(cursor)
    match = _WORD.search(before)
    word = match[0] if match else ""
    start = Position(cursor.line, cursor.column - len(word))
    replaced = LspRange(document.lsp(start), document.lsp(cursor))
    items = []
    for number, text in enumerate(texts):
        whole = word + text
        plain = whole.replace("\r\n", "\n").replace("\r", "\n")
        shown = _first_line(plain)
        documentation, found = None, origins[number] if origins else ()
        if len(shown) < len(plain.strip()) or len(shown) > _LABEL or found:
            documentation = _documentation(client, plain, document.buffer.language, sentence(found) if found else "")
        items.append(
            types.CompletionItem(
                label=shown if len(shown) <= _LABEL else shown[: _LABEL - 1] + "…",
                kind=types.CompletionItemKind.Text,
                detail=f"starfill, as in {found[0].package} ({found[0].licence})" if found else "starfill",
                documentation=documentation,
                # Some menus show the filter text where the label does not begin with it.
                filter_text=shown if shown.startswith(word) else word + shown,
                sort_text=f"~{number}",  # after what language servers know for sure
                insert_text_format=types.InsertTextFormat.PlainText,
                insert_text_mode=types.InsertTextMode.AsIs if client.as_is else None,
                text_edit=types.TextEdit(replaced, whole),
                command=types.Command("Accept", ACCEPT_COMMAND, arguments=[identifiers[number]]),
            )
        )
    return items


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].rstrip()


def _documentation(client: MenuClient, text: str, language: str, note: str) -> types.MarkupContent | str:
    if not client.markdown:
        return f"{text}\n\n{note}" if note else text
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    name = re.sub(r"[^\w+#.-]", "", language)
    below = "\n\n" + re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", note) if note else ""
    return types.MarkupContent(types.MarkupKind.Markdown, f"{fence}{name}\n{text}\n{fence}{below}")


def _of(found: Any, *path: str) -> Any:
    """A value deep in what a client sent; None where it is not what was expected."""
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found
