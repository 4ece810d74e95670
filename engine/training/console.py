"""Words for the person who runs a command: lines on standard error, and a bar while it works."""

from __future__ import annotations

import importlib.util
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


def say(line: str) -> None:
    """Write one line."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class Progress:
    """A bar on a terminal, silent elsewhere. It appears with the first share, and goes when all is done."""

    def __init__(self, label: str) -> None:
        self._label = label
        # A machine that only trains has PyTorch and little else.
        self._live = sys.stderr.isatty() and importlib.util.find_spec("rich") is not None
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, share: float, note: str = "") -> None:
        """`share` of the work is done, from 0 to 1."""
        if not self._live:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self._bar.add_task(self._label, total=1.0, note=note)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=min(max(share, 0.0), 1.0), note=note)
        if share >= 1:
            self.close()

    def close(self) -> None:
        """Leave the terminal as it was found."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
