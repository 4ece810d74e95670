"""What goes along with a request besides the document itself: pieces of other open documents, and what things are called."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator

from lsp_server.buffer import Position
from lsp_server.context import MOST_TOKENS, Context, Other
from lsp_server.features.documents import Document
from lsp_server.privacy.admission import Admission
from lsp_server.privacy.uris import local_path, place_of
from lsp_server.state.ask import Surroundings
from lsp_server.window import Window

ENOUGH = 4_096
"""Tokens of a model's window from which other documents go along where the setting `context` is auto."""


class Neighbours:
    """One session's. Engines that are not known to be ours get nothing: what they would make of it nobody knows."""

    def __init__(self, documents: Iterable[Document], admission: Admission, clock: Callable[[], float]) -> None:
        self._documents = documents
        self._admission = admission
        self._clock = clock
        self._context = Context()
        self._wanted = "auto"
        self._roots: tuple[str, ...] = ()

    def configure(self, wanted: str, roots: Iterable[str] | None = None) -> None:
        """The setting `context`, and the URIs of the workspace's folders if they changed."""
        self._wanted = wanted
        if roots is not None:
            found = [path for root in roots if (path := local_path(root)) is not None]
            self._roots = tuple(sorted(found, key=len, reverse=True))

    def around(self, document: Document, cursor: Position, window: Window, model_window: int | None) -> Surroundings:
        """What goes along with a request there. `model_window` is in tokens; None for an engine that is not ours."""
        language = document.buffer.language or None
        enough = model_window is not None and (self._wanted == "on" or model_window >= ENOUGH)
        if model_window is None or self._wanted == "off" or not enough:
            return Surroundings(language=language)
        pieces = self._context.around(
            document.uri,
            window,
            cursor.line,
            self._clock(),
            budget_of(model_window),
            lambda: self._others(document),
            self._admission.may_be_read_beside,
        )
        path, repository = self._called(document.uri)
        return Surroundings(path=path, repository=repository, language=language, context=pieces)

    def forget(self, uri: str) -> None:
        """A document was closed."""
        self._context.forget(uri)

    def _others(self, document: Document) -> Iterator[Other]:
        for other in sorted(self._documents, key=lambda each: -each.revision):
            if other.uri != document.uri and self._admission.may_be_read_beside(other.uri):
                path, _ = self._called(other.uri)
                yield Other(other.uri, path, other.buffer.lines, other.revision, other.edited)

    def _called(self, uri: str) -> tuple[str, str | None]:
        """A document's path below its workspace folder and that folder's name; elsewhere its bare name alone."""
        place = place_of(uri)
        path = place.path if place is not None else ""
        root = next((root for root in self._roots if path.startswith(root.rstrip("/") + "/")), None)
        if root is None:
            return posixpath.basename(path), None
        return posixpath.relpath(path, root), posixpath.basename(root.rstrip("/")) or None


def budget_of(model_window: int) -> int:
    """Tokens for pieces of other documents: a quarter of the window, less what names take."""
    return min(MOST_TOKENS, model_window // 4 - 64)
