"""Other files of a hole's folder, as if they were open: what of them would go along with a request there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from lsp_server.context import Context, Other, Piece
from lsp_server.evaluation.holes import Hole
from lsp_server.evaluation.runner import window_of
from lsp_server.evaluation.sources import Source

OPEN = 8
"""Files of a folder that are taken as open."""


class Folders:
    """Files by folder. `budget` is in tokens."""

    def __init__(self, sources: Iterable[Source], budget: int) -> None:
        self._folders: dict[str, list[Source]] = defaultdict(list)
        for source in sources:
            self._folders[_folder(source.path)].append(source)
        self._budget = budget

    def around(self, hole: Hole) -> tuple[Piece, ...]:
        """Path and text of each piece that the language server would choose."""
        near = [source for source in self._folders.get(_folder(hole.path), []) if source.path != hole.path][:OPEN]
        others = [Other(source.path, source.path, source.text.splitlines(keepends=True)) for source in near]
        line = hole.prefix.count("\n")
        return Context().around(hole.path, window_of(hole), line, 0.0, self._budget, lambda: others)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
