"""Editing traces: what an editor sends while a person works, made from the source that the person would have written."""

from tests.harness.traces.events import Edit, Event, Kind, edits_between
from tests.harness.traces.files import two_files_trace
from tests.harness.traces.refactoring import import_trace, rename_trace
from tests.harness.traces.typing import typing_trace, undo_trace
from tests.harness.traces.walking import browse_trace

__all__ = [
    "TRACES",
    "Edit",
    "Event",
    "Kind",
    "browse_trace",
    "edits_between",
    "import_trace",
    "rename_trace",
    "two_files_trace",
    "typing_trace",
    "undo_trace",
]

TRACES = {
    "typing": typing_trace,
    "walking": browse_trace,
    "renaming": rename_trace,
    "undoing": undo_trace,
    "importing": import_trace,
}
"""By name; each takes a source and a seed. `two_files_trace` takes two sources."""
