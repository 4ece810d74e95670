"""Builds an index of some folders, or brings one up to date: what did not change since is not read again.

The new index is made in a folder beside the old one and takes its place at the very end. Whatever ends a build before leaves
the old index as it was; the next build removes what is left over.
"""

from __future__ import annotations

import datetime
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine import __version__, paths
from engine.errors import StarfillError
from engine.lock import FileLock
from lsp_server.attribution.corpus import Found, files_of, roots_of
from lsp_server.attribution.fingerprint import Fingerprinted, leave_interrupts_to_the_parent, of_files
from lsp_server.attribution.index import Index
from lsp_server.attribution.layout import IndexRefused
from lsp_server.attribution.writer import Writer

GRAM: Final = 20
"""Tokens of a gram: no passage shorter than this is ever found."""

LENGTH: Final = 40
"""Tokens of a passage from which on it holds a fingerprint, if nothing else is asked for. Fewer than the setting has, so that
a passage mostly holds two: the one may stand in too many places to be of use.
"""

Progress = Callable[[str, int, int], None]
"""What is being done, how many bytes of it are done, how many there are."""

_TASK_BYTES, _TASK_FILES = 1 << 20, 64
_AHEAD = 4  # tasks that wait for each process
_ALONE = 8 * 2**20  # bytes that are not worth starting processes for
_RACY = 2 * 10**9  # ns before a build in which a change might not show in a file's time
_WORK = "build-"


@dataclass(frozen=True, slots=True)
class Built:
    """What a build did."""

    read: int
    kept: int
    gone: int
    bytes_read: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Planned:
    """A file of the corpus, and its number in the old index. `same`: it need not be looked at again."""

    found: Found
    number: int = -1
    same: bool = False


def build(
    folders: list[Path],
    target: Path,
    *,
    add: bool,
    length: int | None,
    jobs: int | None,
    progress: Progress,
    gram: int = GRAM,
) -> Built:
    """Index `folders` in `target`; with `add` the folders that it has already stay in it, without any they are brought up to
    date. `length`: tokens from which on a passage is always found; `gram`: tokens of a fingerprint. Raises StarfillError.
    """
    began = time.monotonic()
    try:
        paths.private_dir(target.parent)
        with _alone(target.parent / "build.lock"), _workplace(target.parent) as work:
            old = _old_index(target)
            asked = [*folders, *map(Path, old.roots)] if old and (add or not folders) else folders
            if add and old is None and target.exists():
                raise StarfillError(f"{target}: cannot be read, nor can its folders; name all of them, without --add")
            if not asked:
                raise StarfillError("name the folders to index: starfill attribution build DIR")
            if length is None:
                length = old.header.guaranteed if old else LENGTH
            if old is not None and (old.header.gram, old.header.guaranteed) != (gram, length):
                old = None  # made to find other passages
            roots, window, jobs = roots_of(asked), length - gram + 1, jobs or _processors()
            try:
                run = _Build(roots, old, gram, window, jobs, progress)
                made = run.make(work)
            except IndexRefused:  # it is damaged where opening it does not look: read everything again
                run = _Build(roots, None, gram, window, jobs, progress)
                made = run.make(work)
            made.replace(target)
            _flush(target.parent)
    except BrokenProcessPool as error:
        raise StarfillError(f"{target}: a process that read files was ended from outside; try --jobs 1") from error
    except OSError as error:
        raise StarfillError(f"{error.filename or target}: {error.strerror}; the index is as it was before") from error
    return Built(run.read, run.kept, run.gone, run.bytes, time.monotonic() - began)


class _Build:
    """One build."""

    def __init__(
        self, roots: list[str], old: Index | None, gram: int, window: int, jobs: int, progress: Progress
    ) -> None:
        self._roots, self._old, self._jobs = roots, old, jobs
        self._gram, self._window = gram, window
        self._progress = progress
        self._began = time.time_ns()
        self.read = self.kept = self.gone = self.bytes = 0

    def make(self, work: Path) -> Path:
        """Make the index in a folder of its own -> its file there."""
        self._progress("looking for files", 0, 0)
        plan = self._plan()
        self.gone = (len(self._old) if self._old else 0) - sum(each.number >= 0 for each in plan)
        writer = Writer(work, self._gram, self._window, self._old)
        try:
            total = sum(each.found.size for each in plan if not each.same)
            for planned, made in self._fingerprinted(plan, total):
                self._add(writer, planned, made)
                self._progress("reading", self.bytes, total)
            self._progress("sorting", total, total)
            about = {
                "roots": self._roots,
                "built": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "starfill": __version__,
                "began": self._began,
            }
            return writer.finish(about)
        finally:
            writer.close()

    def _plan(self) -> list[_Planned]:
        """All files of the corpus in order, beside what the old index has of them."""
        if self._old is None:
            return [_Planned(found) for found in files_of(self._roots)]
        known: dict[tuple[str, str], tuple[int, Any, Any]] = {}
        for number in range(len(self._old)):
            root, record = self._old.source(number).root, self._old.record(number)
            known[root, str(record.get("path"))] = number, record.get("size"), record.get("changed")
        young = self._old.began - _RACY
        plan = []
        for found in files_of(self._roots):
            number, size, changed = known.get((self._roots[found.root], found.path), (-1, None, None))
            same = (size, changed) == (found.size, found.changed) and found.changed < young
            plan.append(_Planned(found, number, same))
        return plan

    def _fingerprinted(self, plan: list[_Planned], total: int) -> Iterator[tuple[_Planned, Fingerprinted | str | None]]:
        """Each file of the plan in order, with what was made of it, its digest if it is what it was, None if it is gone."""
        tasks = _tasks(plan)
        if self._jobs == 1 or total < _ALONE:
            for task in tasks:
                yield from (
                    self._same(task) if task[0].same else zip(task, of_files(*self._arguments(task)), strict=True)
                )
            return
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self._jobs, context, leave_interrupts_to_the_parent)
        try:
            waiting: deque[tuple[list[_Planned], Future[list[Fingerprinted | str | None]] | None]] = deque()
            for task in tasks:
                future = None if task[0].same else pool.submit(of_files, *self._arguments(task))
                waiting.append((task, future))
                if len(waiting) >= _AHEAD * self._jobs:
                    yield from self._result(*waiting.popleft())
            while waiting:
                yield from self._result(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _result(
        self, task: list[_Planned], future: Future[list[Fingerprinted | str | None]] | None
    ) -> Iterator[tuple[_Planned, Fingerprinted | str | None]]:
        yield from self._same(task) if future is None else zip(task, future.result(), strict=True)

    def _same(self, task: list[_Planned]) -> Iterator[tuple[_Planned, str]]:
        for each in task:
            yield each, self._known(each.number, "digest")

    def _known(self, number: int, name: str) -> str:
        """What the old index has of a source; nothing if it has no such source."""
        return str(self._old.record(number).get(name, "")) if self._old is not None and number >= 0 else ""

    def _arguments(self, task: list[_Planned]) -> tuple[list[str], int, int, list[str]]:
        files = [f"{self._roots[each.found.root]}/{each.found.path}" for each in task]
        digests = [self._known(each.number, "digest") for each in task]
        return files, self._gram, self._window, digests

    def _add(self, writer: Writer, planned: _Planned, made: Fingerprinted | str | None) -> None:
        found = planned.found
        if not planned.same:
            self.bytes += found.size
            self.read += made is not None
        if made is None:
            return
        if isinstance(made, str):
            self.kept += planned.same
            writer.keep(_record(found, made, self._known(planned.number, "spdx")), planned.number)
        else:
            writer.add(_record(found, made.digest, made.spdx), made)


def _record(found: Found, digest: str, spdx: str) -> dict[str, Any]:
    return {
        "root": found.root,
        "path": found.path,
        "package": found.package,
        "licence": spdx or found.licence,
        "spdx": spdx,
        "size": found.size,
        "changed": found.changed,
        "digest": digest,
    }


def _tasks(plan: list[_Planned]) -> Iterator[list[_Planned]]:
    """The plan in pieces of files to read, or of files to keep."""
    task: list[_Planned] = []
    size = 0
    for each in plan:
        if task and (task[0].same != each.same or size >= _TASK_BYTES or len(task) >= _TASK_FILES):
            yield task
            task, size = [], 0
        task.append(each)
        size += each.found.size
    if task:
        yield task


def _old_index(target: Path) -> Index | None:
    """The index that is there; None if there is none that can be used."""
    if not target.exists():
        return None
    try:
        return Index(target)
    except StarfillError:
        return None


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One build at a time."""
    holding = FileLock(lock)
    if not holding.try_acquire():
        raise StarfillError(f"another build is at work ({lock}); wait for its end")
    try:
        yield
    finally:
        holding.release()


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A folder for what is made, removed in the end; those that killed builds left are removed too."""
    for left in folder.glob(f"{_WORK}*/"):
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=_WORK, dir=folder))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
