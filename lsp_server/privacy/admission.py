"""Whether a document is completed at all: settings, exclusions and limits, asked before anything is read of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from lsp_server.buffer import Buffer, Position
from lsp_server.privacy.exclusions import Exclusions
from lsp_server.privacy.generated_files import is_generated
from lsp_server.privacy.ignore_files import IgnoreFiles
from lsp_server.reasons import Reason
from lsp_server.settings import Settings


class Admission:
    """For the settings and folders of one session."""

    def __init__(self, clock: Callable[[], float], home: Path | None = None) -> None:
        self._clock = clock
        self._files = IgnoreFiles(home or Path.home())
        self._roots: tuple[str, ...] = ()
        self._settings = Settings()
        self._exclusions = self._fresh()

    def configure(self, settings: Settings, roots: Iterable[str] | None = None) -> None:
        """Settings changed, or the workspace's folders did."""
        roots = self._roots if roots is None else tuple(roots)
        changed = settings.exclude != self._settings.exclude or roots != self._roots
        self._settings, self._roots = settings, roots
        if changed:
            self._exclusions = self._fresh()

    def refusal(self, uri: str, buffer: Buffer, cursor: Position, *, invoked: bool) -> Reason | None:
        """Why there is no completion here; None if there may be one."""
        settings = self._settings
        if not settings.enabled:
            return Reason.DISABLED
        if not settings.languages.get(buffer.language, settings.languages.get("*", True)):
            return Reason.LANGUAGE_OFF
        if settings.trigger == "manual" and not invoked:
            return Reason.MANUAL_ONLY
        if (reason := self._exclusions.reason(uri, ignored_too=settings.ignored_files == "exclude")) is not None:
            return reason
        if len(buffer.lines[cursor.line]) > settings.max_line_length or self._too_large(buffer):
            return Reason.TOO_LARGE
        return Reason.GENERATED if not invoked and is_generated(uri, buffer.lines) else None

    def may_be_read_beside(self, uri: str) -> bool:
        """Whether a document may be shown to the model beside another."""
        return self._exclusions.reason(uri, ignored_too=True) is None

    def _too_large(self, buffer: Buffer) -> bool:
        return buffer.size > self._settings.max_file_bytes

    def _fresh(self) -> Exclusions:
        return Exclusions(self._settings.exclude, self._roots, self._files, self._clock)
