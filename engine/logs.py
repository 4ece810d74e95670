"""What is logged, and how. No user text: of an exception only its kind and its place are written, never its message."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Any

from engine.errors import StarfillError

log = logging.getLogger(__name__)

LOG_BYTES = 2**20
"""Size at which a log file is put aside; one older one is kept."""

_CHATTY = {
    "uvicorn": logging.ERROR,
    "httpx2": logging.WARNING,
    "httpcore2": logging.WARNING,
    "pygls": logging.CRITICAL + 1,
}
"""Libraries whose lines would tell what a peer sent, or a line for each request."""

_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class PlainFormatter(logging.Formatter):
    """One line for people: time, level, name, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def formatException(self, ei: _Raised) -> str:  # noqa: N802  (the base class names it)
        """Kinds and places."""
        return "\n".join(_places(ei[1]))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (UTC), `level`, `name`, `message`, and `error` with kinds and places."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "name": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _places(record.exc_info[1])
        return json.dumps(line)


def configure(file: Path | None = None) -> None:
    """Log to `file` as JSON lines, rotated; without one to standard error for people. Raises StarfillError."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter())
    if file is not None:
        try:
            handler = RotatingFileHandler(file, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
        except OSError as error:
            raise StarfillError(f"--log-file {file}: {error.strerror}") from error
        handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name, level in _CHATTY.items():
        logging.getLogger(name).setLevel(level)


def catch_all() -> None:
    """Log also what nobody caught, in any thread: Python itself would print the message."""

    def in_main(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log.critical("an error that nobody caught", exc_info=(kind, error, trace))

    def in_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None:
            in_main(found.exc_type, found.exc_value, found.exc_traceback)

    sys.excepthook, threading.excepthook = in_main, in_thread


def log_loop_error(_: object, context: dict[str, Any]) -> None:
    """For `set_exception_handler`: asyncio's own would print the error, and the task that raised it."""
    error = context.get("exception")
    log.error("a task failed", exc_info=error if isinstance(error, BaseException) else None)


def _places(error: BaseException | None) -> list[str]:
    """An exception and what caused it, innermost first: kind, then file, line and function of each frame."""
    lines: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = traceback.extract_tb(error.__traceback__)
        lines.append(type(error).__name__)
        lines += [f"  {Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
        error = error.__cause__ or error.__context__
    return lines
