"""Where a downloaded model came from, written beside it: commit, files with their sums, and that its licence was accepted."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.models.licences import Acceptance

RECORD = "starfill.json"
_LARGEST = 2**20


@dataclass(frozen=True, slots=True)
class PulledFile:
    """One file as it was downloaded; `sum` is `sha256:…`, or `git:…` for what the hub keeps in git itself."""

    name: str
    size: int
    sum: str


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a download."""

    id: str
    revision: str
    commit: str
    hub: str
    pulled_at: str
    """UTC, ISO 8601."""
    licences: tuple[str, ...]
    """Identifiers, as the card and our table have them."""
    acceptance: Acceptance | None
    files: tuple[PulledFile, ...]
    converted_from: tuple[str, ...] = field(default=())
    """The `.bin` files that the safetensors were made of; they are gone."""
    made: tuple[PulledFile, ...] = field(default=())
    """Those safetensors, and their index; records of older versions lack them."""

    @property
    def gone(self) -> frozenset[str]:
        """Files that were downloaded and are not kept."""
        return frozenset(each.name for each in self.files if each.name.endswith((".bin", ".bin.index.json")))


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _File(_Strict):
    name: str
    size: Annotated[int, Field(ge=0)]
    sum: str


class _Acceptance(_Strict):
    licences: list[str]
    at: str
    how: str
    shown: str


class _Record(_Strict):
    version: Literal[1]
    id: str
    revision: str
    commit: str
    hub: str
    pulled_at: str
    licences: list[str]
    acceptance: _Acceptance | None
    files: list[_File]
    converted_from: list[str] = []
    made: list[_File] = []


def write_record(directory: Path, record: Record) -> None:
    """Put it beside the model."""
    (directory / RECORD).write_text(json.dumps({"version": 1, **asdict(record)}, indent=2) + "\n", "utf-8")


def read_record(directory: Path) -> Record | None:
    """What stands beside a model, or None if it was not downloaded by us, or cannot be read any more."""
    try:
        with (directory / RECORD).open("rb") as file:
            found = _Record.model_validate_json(file.read(_LARGEST))
    except (OSError, ValidationError):
        return None
    accepted = found.acceptance
    return Record(
        id=found.id,
        revision=found.revision,
        commit=found.commit,
        hub=found.hub,
        pulled_at=found.pulled_at,
        licences=tuple(found.licences),
        acceptance=None
        if accepted is None
        else Acceptance(tuple(accepted.licences), accepted.at, accepted.how, accepted.shown),
        files=_files(found.files),
        converted_from=tuple(found.converted_from),
        made=_files(found.made),
    )


def _files(found: list[_File]) -> tuple[PulledFile, ...]:
    return tuple(PulledFile(each.name, each.size, each.sum) for each in found)
