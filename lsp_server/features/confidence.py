"""What the calibration of each model is on this computer: counted here, added to a file that holds numbers alone."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsp_server.calibration import EDGES, LEAST, MOST, Calibration
from lsp_server.features.local_file import LocalFile

log = logging.getLogger(__name__)

WRITE_EVERY = 30.0
"""Seconds for which what is new is kept in memory at most."""

_VERSION = 1
_MODELS = 32
_LARGEST = 1e9


@dataclass(frozen=True, slots=True)
class _Event:
    logprob: float
    accepted: bool


class Confidence:
    """The calibrations of one session. Nothing is counted while it is not `enabled`, or without a `path`."""

    def __init__(self, path: Path | None, clock: Callable[[], float]) -> None:
        self._file = None if path is None else LocalFile(path)
        self._clock = clock
        self._enabled = True
        self._model = ""
        self._now: Calibration | None = None
        self._least: int | None = None  # of the present model, until something is counted
        self._new: list[_Event] = []
        self._written_at = clock()

    def configure(self, *, enabled: bool, model: str) -> None:
        """Settings changed. `model` is all that a confidence depends on."""
        key = hashlib.sha256(model.encode("utf-8", "replace")).hexdigest()[:16]
        if key != self._model:
            self.flush()
            self._model, self._now, self._least = key, None, None
        if self._enabled and not enabled:
            self._new.clear()
            self._now = self._least = None
        self._enabled = enabled

    def offered(self, logprob: float | None) -> None:
        """A completion was shown that nobody had asked for by hand."""
        self._add(logprob, accepted=False)

    def accepted(self, logprob: float | None) -> None:
        """One of those was accepted, or a part of it."""
        self._add(logprob, accepted=True)

    def least(self) -> int:
        """Per cent of mean probability from which on a completion is shown."""
        if not self._counts:
            return LEAST
        if self._least is None:
            self._least = self._calibration().least()
        return self._least

    def summary(self) -> dict[str, Any]:
        """What is known of the present model: from where on is shown, and how many were offered and accepted, by bin."""
        if not self._counts:
            return {"least": self.least()}
        known = self._calibration()
        return {
            "least": self.least(),
            "from": [*EDGES, MOST],
            "offered": [round(count, 1) for count in known.offered],
            "accepted": [round(count, 1) for count in known.accepted],
        }

    def reset(self) -> None:
        """Forget everything, of all models."""
        self._new.clear()
        self._now, self._least = Calibration(), None
        if self._file is not None:
            self._file.remove()

    def flush(self) -> None:
        """Add what is new to the file, and take in what other servers have added."""
        self._written_at = self._clock()
        if self._file is None or not self._new:
            return
        try:
            self._file.update(self._merged)
        except OSError as error:
            log.warning("%s: %s; confidence is not calibrated", self._file.path, error.strerror)
            self._file = None
        self._new.clear()
        self._now = self._least = None

    @property
    def _counts(self) -> bool:
        return self._file is not None and self._enabled

    def _add(self, logprob: float | None, *, accepted: bool) -> None:
        if logprob is None or not self._counts:
            return
        event = _Event(logprob, accepted)
        self._new.append(event)
        self._least = None
        _play(self._calibration(), [event])
        if self._clock() - self._written_at >= WRITE_EVERY:
            self.flush()

    def _calibration(self) -> Calibration:
        if self._now is None:
            found = {} if self._file is None else self._file.read()
            self._now = _read(found, self._model)
        return self._now

    def _merged(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        known = _read(found, self._model)
        _play(known, self._new)
        models = {key: value for key, value in _models(found).items() if key != self._model}
        models[self._model] = {
            "offered": [round(count, 6) for count in known.offered],
            "accepted": [round(count, 6) for count in known.accepted],
        }
        return {"version": _VERSION, "models": dict(list(models.items())[-_MODELS:])}


def _play(known: Calibration, events: list[_Event]) -> None:
    for event in events:
        if event.accepted:
            known.accept(event.logprob)
        else:
            known.offer(event.logprob)


def _models(found: Mapping[str, Any]) -> Mapping[str, Any]:
    models = found.get("models") if found.get("version") == _VERSION else None
    return models if isinstance(models, dict) else {}


def _read(found: Mapping[str, Any], model: str) -> Calibration:
    """A model's calibration as a file has it; a new one for anything that makes no sense."""
    entry = _models(found).get(model)
    entry = entry if isinstance(entry, dict) else {}
    offered, accepted = _counts(entry.get("offered")), _counts(entry.get("accepted"))
    if offered is None or accepted is None or any(a > o for a, o in zip(accepted, offered, strict=True)):
        return Calibration()
    return Calibration(offered, accepted)


def _counts(value: Any) -> list[float] | None:
    if not isinstance(value, list) or len(value) != len(EDGES) + 1:
        return None
    if not all(isinstance(count, int | float) and 0 <= count <= _LARGEST for count in value):
        return None
    return [float(count) for count in value]
