"""How often completions are accepted, counted on this computer for its user alone: numbers by language, no text.

Several servers add to one file. What is counted is written from time to time, and when the server ends.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lsp_server.features.confidence import Confidence
from lsp_server.features.local_file import LocalFile
from lsp_server.features.offers import Offer
from lsp_server.rules.languages import by_id

log = logging.getLogger(__name__)

WRITE_EVERY = 30.0
"""Seconds for which counts are kept in memory at most while there are new ones."""

_VERSION = 1
_BINS = (-0.1, -0.2, -0.4, -0.7, -1.0, -1.5, -2.0)  # mean log-probabilities, from sure to unsure

Counts = Counter[tuple[str, str]]


class Acceptance:
    """The counts. Nothing is counted, written or told while they are not `enabled`, or without a `file`.

    `confidence` hears what became of completions that nobody had asked for by hand.
    """

    def __init__(self, file: Path | None, clock: Callable[[], float], confidence: Confidence | None = None) -> None:
        self.file = None if file is None else LocalFile(file)
        self._confidence = confidence
        self._enabled = True
        self._clock = clock
        self._new: Counts = Counter()
        self._written_at = clock()

    @property
    def enabled(self) -> bool:
        """Whether the user wants it."""
        return self._enabled

    @enabled.setter
    def enabled(self, wanted: bool) -> None:
        if self._enabled and not wanted:
            self._new.clear()
        self._enabled = wanted

    def offered(self, offer: Offer) -> None:
        """It was sent to the editor as an answer."""
        self._add(offer, "offered", f"offered {_bin(offer.logprob)}")
        if self._confidence is not None and not offer.by_hand:
            self._confidence.offered(offer.logprob)

    def shown(self, offer: Offer) -> None:
        """The editor says that it was shown."""
        if not offer.shown:
            offer.shown = True
            self._add(offer, "shown")

    def accepted(self, offer: Offer) -> None:
        """The whole of it was inserted. Saying so again counts nothing."""
        if offer.taken < offer.length:
            self._add(offer, "accepted", f"accepted {_bin(offer.logprob)}")
            self._take(offer, offer.length)

    def partially(self, offer: Offer, length: int) -> None:
        """The first `length` UTF-16 code units of it have been inserted by now."""
        length = min(length, offer.length)
        if length > offer.taken:
            if not offer.taken:
                self._add(offer, "partially accepted")
            self._take(offer, length)

    def summary(self) -> dict[str, dict[str, int]]:
        """All counts by language, those of other servers included."""
        counts = self._read() + self._new if self._enabled else self._new
        found: dict[str, dict[str, int]] = {}
        for (language, what), count in sorted(counts.items()):
            found.setdefault(language, {})[what] = count
        return found

    def flush(self) -> None:
        """Add what is new to the file."""
        self._written_at = self._clock()
        if self.file is None:
            self._new.clear()
            return
        if not self._new:
            return
        try:
            self.file.update(lambda found: _encoded(_decoded(found) + self._new))
        except OSError as error:
            log.warning("%s: %s; acceptance is not counted", self.file.path, error.strerror)
            self.file = None
        self._new.clear()

    def reset(self) -> None:
        """Forget everything."""
        self._new.clear()
        if self.file is not None:
            self.file.remove()

    def _take(self, offer: Offer, length: int) -> None:
        if self._confidence is not None and not offer.taken and not offer.by_hand:
            self._confidence.accepted(offer.logprob)
        self._add(offer, "characters", by=length - offer.taken)
        offer.taken = length

    def _add(self, offer: Offer, *what: str, by: int = 1) -> None:
        if self.file is None or not self._enabled:
            return
        # A client may call its language anything; the name of one that is not known could be the user's own text.
        language = by_id(offer.language).id
        for each in what:
            self._new[language, each] += by
        if self._clock() - self._written_at >= WRITE_EVERY:
            self.flush()

    def _read(self) -> Counts:
        return Counter() if self.file is None else _decoded(self.file.read())


def _decoded(found: Mapping[str, Any]) -> Counts:
    counts: Counts = Counter()
    with suppress(AttributeError, KeyError, TypeError):
        for language, named in found["languages"].items() if found.get("version") == _VERSION else ():
            for what, count in named.items():
                if isinstance(count, int) and count > 0:
                    counts[language, what] = count
    return counts


def _encoded(counts: Counts) -> Mapping[str, Any]:
    languages: dict[str, dict[str, int]] = {}
    for (language, what), count in sorted(counts.items()):
        languages.setdefault(language, {})[what] = count
    return {"version": _VERSION, "languages": languages}


def _bin(logprob: float | None) -> str:
    """Which range of confidence a completion was in."""
    if logprob is None:
        return "at unknown confidence"
    bound = next((bound for bound in _BINS if logprob >= bound), None)
    return f"above {bound}" if bound is not None else f"below {_BINS[-1]}"
