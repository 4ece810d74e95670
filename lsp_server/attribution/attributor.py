"""Marks completions with where they stand verbatim, or withholds them, as the user has set it. No text leaves it.

The index is opened when the first completion is there, and anew when it was replaced. Without one nothing is marked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engine.errors import StarfillError
from lsp_server.attribution import passages
from lsp_server.attribution.index import Index
from lsp_server.attribution.origin import Origin, sentence
from lsp_server.privacy.small_files import Stamp, stamp_of
from lsp_server.reasons import Reason
from lsp_server.settings import Settings
from lsp_server.state.outcome import Item, Outcome


class Attributor:
    """One session's. `tell` is how the user hears of an index that cannot be used, and of origins if they want a message."""

    def __init__(self, file: Path, tell: Callable[[str], None]) -> None:
        self._file = file
        self._tell = tell
        self._stamp: Stamp | None = None
        self._index: Index | None = None
        self._settings = Settings()

    def configure(self, settings: Settings) -> None:
        """Let it go by these settings."""
        self._settings = settings

    @property
    def withholds(self) -> bool:
        """Whether a passage must not be shown."""
        return self._settings.attribution == "withhold"

    def mark(self, outcome: Outcome, before: str, path: str) -> Outcome:
        """Add to each item where it stands, after the text before the cursor of the file at `path`; or take it out."""
        if not outcome.items:
            return outcome
        items = tuple(replace(item, origins=self.origins(before, item.text, path)) for item in outcome.items)
        if self.withholds:
            return _withheld(outcome, items)
        if self._settings.attribution == "notice":
            for item in items:
                if item.origins:
                    self._tell(f"starfill: a completion stands verbatim in {item.origins[0].text}")
        return replace(outcome, items=items)

    def origins(self, before: str, text: str, path: str, known: str = "") -> tuple[Origin, ...]:
        """Where a completion stands, the longest passage first. `known` is what its author had written already."""
        if self._settings.attribution == "off" or (index := self._current()) is None:
            return ()
        try:
            found = passages.of_completion(index, before, text, self._settings.attribution_length, path, known)
            return tuple(passages.origin_of(each) for each in found)
        except StarfillError as error:
            self._index = None  # until it is replaced
            self._tell(f"starfill: {error}; completions are not attributed until then")
            return ()

    def _current(self) -> Index | None:
        """The index as it is now."""
        stamp = stamp_of(self._file)
        if stamp != self._stamp:
            self._stamp, self._index = stamp, None
            if stamp is not None:
                try:
                    self._index = Index(self._file)
                except StarfillError as error:
                    self._tell(f"starfill: {error}; completions are not attributed until then")
        return self._index


def _withheld(outcome: Outcome, items: tuple[Item, ...]) -> Outcome:
    shown = tuple(item for item in items if not item.origins)
    if shown:
        return replace(outcome, items=shown)
    return replace(outcome, items=(), reason=Reason.VERBATIM, detail=sentence(items[0].origins))
