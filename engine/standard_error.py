"""An engine's standard error: a file among the logs, as the launcher makes it, a terminal, a pipe, or nothing at all."""

from __future__ import annotations

import faulthandler
import os
import sys
from contextlib import suppress
from pathlib import Path

from engine import paths
from engine.errors import StarfillError
from engine.logs import LOG_BYTES


def ready() -> None:
    """Have one, and on it what a crash leaves: somebody may have started us with it closed."""
    if sys.stderr is None:  # what is opened next must not take its number, and what libraries print there
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (for as long as we live)
    with suppress(OSError, ValueError, RuntimeError, AttributeError):  # one that is no file
        faulthandler.enable()


def own_file() -> int | None:
    """Its descriptor, if it is a file among starfill's logs."""
    with suppress(OSError, ValueError, AttributeError, StarfillError):
        descriptor = sys.stderr.fileno()
        there = os.fstat(descriptor)
        if any(os.path.samestat(there, path.stat()) for path in paths.log_dir().glob("*.err")):
            return descriptor
    return None


def cut(descriptor: int) -> None:
    """Empty a file that grew too long; what is written after that begins at its start, because it is appended."""
    with suppress(OSError):
        if os.fstat(descriptor).st_size > LOG_BYTES:
            os.ftruncate(descriptor, 0)


def say(line: str) -> None:
    """A line for whoever started us. Raises whatever writing there raises."""
    sys.stderr.write(f"starfill: {line}\n")
    sys.stderr.flush()
