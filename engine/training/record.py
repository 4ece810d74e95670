"""The run's own record: JSON lines, one event each. The log, the loss curve, the model card and a resumed run read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAME = "run.jsonl"


class Record:
    """Appends events to `run.jsonl`; a resumed run starts from the events of the one before."""

    def __init__(self, events: list[dict[str, Any]] | None = None) -> None:
        self.events: list[dict[str, Any]] = list(events or [])

    @classmethod
    def read(cls, folder: Path) -> Record:
        """The record in an output folder."""
        lines = (folder / NAME).read_text(encoding="utf-8").splitlines()
        return cls([json.loads(line) for line in lines if line.strip()])

    def add(self, kind: str, **values: Any) -> None:
        """Append one event."""
        self.events.append({"kind": kind, **values})

    def write(self, folder: Path) -> None:
        """Write all events."""
        text = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in self.events)
        (folder / NAME).write_text(text, encoding="utf-8")

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind, in order."""
        return [event for event in self.events if event["kind"] == kind]

    def last(self, kind: str) -> dict[str, Any]:
        """The latest event of one kind; empty if there is none."""
        found = self.all(kind)
        return found[-1] if found else {}
