"""Of which documents nothing may be sent: secrets, ignored files, and what the user excludes.

A document that is excluded is neither completed nor shown to the model beside another. One that git ignores is excluded as
well, unless `ignored_files` says that such files are completed; even then none is shown beside another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from lsp_server.privacy.ignore_files import IgnoreFiles, Verdict
from lsp_server.privacy.patterns import MAX_STEPS, Patterns, TooCostly, expanded
from lsp_server.privacy.secret_files import is_secret
from lsp_server.privacy.uris import place_of
from lsp_server.reasons import Reason

LOOK_EVERY = 1.0
"""Seconds for which a verdict holds before it is seen whether an ignore file changed."""

_REMEMBERED = 1_024


@dataclass(slots=True)
class _Known:
    """What was found about a document, and when it was last looked at."""

    always: Reason | None
    verdict: Verdict | None
    at: float


class Exclusions:
    """Answers for one set of globs and folders. Costs a look-up, after the first time."""

    def __init__(
        self,
        globs: Sequence[str],
        roots: Iterable[str],
        files: IgnoreFiles,
        clock: Callable[[], float],
    ) -> None:
        """`globs` as in the setting `exclude`; `roots` are the URIs of the workspace's folders."""
        places = [place for root in roots if (place := place_of(root)) is not None and place.path.startswith("/")]
        here = [place.path for place in places if place.local]
        self._folders = [place.path for place in places]
        self._roots = list(dict.fromkeys([*here, *map(os.path.realpath, here)]))
        self._files = files
        self._clock = clock
        self._anywhere = _patterns([expanded(glob) for glob in globs if glob.startswith(("/", "~/"))])
        self._within = _patterns([glob for glob in globs if not glob.startswith("~/")])
        self._known: LRUCache[str, _Known] = LRUCache(_REMEMBERED)

    def reason(self, uri: str, *, ignored_too: bool) -> Reason | None:
        """Why nothing of a document may be sent; None if it may. `ignored_too`: one that git ignores may not."""
        known = self._known.get(uri)
        now = self._clock()
        if known is None or (now - known.at >= LOOK_EVERY and not _still_holds(known)):
            known = self._known[uri] = self._look(uri, now)
        elif now - known.at >= LOOK_EVERY:
            known.at = now
        if known.always is not None:
            return known.always
        ignored = known.verdict is not None and known.verdict.ignored and ignored_too
        return Reason.EXCLUDED if ignored else None

    def _look(self, uri: str, now: float) -> _Known:
        place = place_of(uri)
        if place is None or self._anywhere is None or self._within is None:
            return _Known(Reason.EXCLUDED, None, now)
        paths = [place.path]
        if place.local and (real := os.path.realpath(place.path)) != place.path:
            paths.append(real)
        if any(is_secret(path, place.names) for path in paths):
            return _Known(Reason.SECRET, None, now)
        if any(self._named(path) for path in paths):
            return _Known(Reason.EXCLUDED, None, now)
        # By either name: a link lifts no exclusion.
        verdict = Verdict.of([self._files.verdict(path, self._roots) for path in paths]) if place.local else None
        hidden = verdict is not None and verdict.hidden
        return _Known(Reason.EXCLUDED if hidden else None, verdict, now)

    def _named(self, path: str) -> bool:
        """Whether a glob of the user's names a path: below the workspace's folders that it is in, or anywhere."""
        whole = path.lstrip("/")
        roots = (*self._folders, *self._roots)
        below = {os.path.relpath(path, root) for root in roots if path.startswith(root.rstrip("/") + "/")}
        return _match(self._anywhere, whole) or any(_match(self._within, each) for each in below or [whole])


def _patterns(globs: Sequence[str]) -> Patterns | None:
    """None if they are too many, so that nobody can know what they exclude."""
    try:
        return Patterns(globs)
    except TooCostly:
        return None


def _match(patterns: Patterns | None, path: str) -> bool:
    if not patterns:
        return patterns is None
    if patterns.steps(path.split("/")) > MAX_STEPS:
        return True
    parts = path.split("/")
    return any(patterns.says("/".join(parts[:depth]), folder=depth < len(parts)) for depth in range(1, len(parts) + 1))


def _still_holds(known: _Known) -> bool:
    return known.verdict is None or known.verdict.still_holds()
