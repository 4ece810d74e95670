"""A small file of numbers that this user's servers share: read without trust, added to under a lock, replaced at once."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_MAX_BYTES = 2**20


class LocalFile:
    """One JSON object, which only its user can read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Mapping[str, Any]:
        """What is there; nothing if there is no such file, or something else in it."""
        with suppress(OSError, ValueError, RecursionError):
            if self.path.stat().st_size <= _MAX_BYTES:
                found = json.loads(self.path.read_text("utf-8"))
                if isinstance(found, dict):
                    return found
        return {}

    def update(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Put what `change` makes of it in its place; raises OSError if it cannot be written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            temporary = self.path.with_suffix(".new")
            temporary.write_text(json.dumps(change(self.read()), indent=1) + "\n", "utf-8")
            temporary.chmod(0o600)
            temporary.replace(self.path)

    def remove(self) -> None:
        """Take it away."""
        with suppress(OSError):
            self.path.unlink()
