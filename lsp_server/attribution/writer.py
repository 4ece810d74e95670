"""Writes an index beside the old one: sections into files of their own, fingerprints sorted in runs that fit into memory.

Sources are added in their final order. What an old index has of them is copied; its fingerprints are one more run, in
order already. At the end the runs are merged, a part of all values at a time, and the sections put together.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from engine.errors import StarfillError
from lsp_server.attribution.fingerprint import Fingerprinted
from lsp_server.attribution.index import Index
from lsp_server.attribution.layout import (
    ALIGNMENT,
    BUCKETS,
    HEADER_BYTES,
    MOST_TOKENS,
    SECTIONS,
    Header,
    Section,
)
from lsp_server.attribution.winnowing import Array, Numbers, Words

RUN: Final = 4_000_000
"""Fingerprints that are sorted at a time: 12 bytes each, and as much again while they are sorted."""

_PARTS = 256  # of all values that are merged one by one
_COPIED = 1 << 24  # bytes


class Writer:
    """One new index, made in a folder that is its own. `old` is where kept sources are copied from."""

    def __init__(self, folder: Path, gram: int, window: int, old: Index | None, run: int = RUN) -> None:
        self._folder = folder
        self._gram, self._window = gram, window
        self._old = old
        self._run = run
        self._files = {name: (folder / name).open("wb") for name in ("tokens", "lines", "records")}
        self._starts, self._line_starts, self._record_starts = [0], [0], [0]
        self._pending: list[tuple[Words, Array]] = []
        self._waiting = 0
        self._runs: list[tuple[Path, Path]] = []
        self._shifts = np.zeros(len(old) if old else 0, np.int64)
        self._kept = np.zeros(len(old) if old else 0, bool)

    def add(self, record: dict[str, Any], made: Fingerprinted) -> None:
        """Append a source that was read."""
        begin = self._append(record, memoryview(made.tokens), memoryview(made.lines))
        if len(made.places):
            self._pending.append((made.values, made.places.astype(np.int64) + begin))
            self._waiting += len(made.places)
            if self._waiting >= self._run:
                self._write_run()

    def keep(self, record: dict[str, Any], number: int) -> None:
        """Append a source that the old index has as it is."""
        assert self._old is not None  # noqa: S101
        first, end = self._old.span(number)
        begin = self._append(record, self._old.tokens[first:end], self._old.lines(number))
        self._shifts[number] = begin - first
        self._kept[number] = True

    def finish(self, about: dict[str, Any]) -> Path:
        """Merge, put together -> the whole file, not yet in its place."""
        if self._waiting:
            self._write_run()
        for file in self._files.values():
            file.close()
        self._merge()
        np.array(self._starts, np.uint32).tofile(self._folder / "starts")
        np.array(self._line_starts, np.uint64).tofile(self._folder / "line_starts")
        np.array(self._record_starts, np.uint64).tofile(self._folder / "record_starts")
        (self._folder / "about").write_text(json.dumps(about), "utf-8")
        return self._assemble()

    def close(self) -> None:
        """Close what is open."""
        for file in self._files.values():
            file.close()

    def _append(self, record: dict[str, Any], tokens: memoryview, lines: memoryview) -> int:
        begin = self._starts[-1]
        if begin + len(tokens) > MOST_TOKENS:
            raise StarfillError(f"more than {MOST_TOKENS:,} tokens: index fewer folders")
        packed = json.dumps(record, separators=(",", ":")).encode()
        for name, data in (("tokens", tokens), ("lines", lines), ("records", packed)):
            self._files[name].write(data)
        self._starts.append(begin + len(tokens))
        self._line_starts.append(self._line_starts[-1] + len(lines))
        self._record_starts.append(self._record_starts[-1] + len(packed))
        return begin

    def _write_run(self) -> None:
        values = np.concatenate([values for values, _ in self._pending]) >> np.uint64(16)
        places = np.concatenate([places for _, places in self._pending]).astype(np.uint32)
        self._pending, self._waiting = [], 0
        order = np.argsort(values, kind="stable")  # places ascend already
        run = self._folder / f"values{len(self._runs)}", self._folder / f"places{len(self._runs)}"
        values[order].tofile(run[0])
        places[order].tofile(run[1])
        self._runs.append(run)

    def _merge(self) -> None:
        """All runs into `rests`, `positions` and `buckets`."""
        counts = np.zeros(BUCKETS, np.int64)
        with (self._folder / "rests").open("wb") as rests, (self._folder / "positions").open("wb") as positions:
            for part, (values, places) in enumerate(self._parts()):
                order = np.lexsort((places, values))
                values = values[order]
                (values & np.uint64(0xFFFFFFFF)).astype(np.uint32).tofile(rests)
                places[order].tofile(positions)
                width = BUCKETS // _PARTS
                found = (values >> np.uint64(32)).astype(np.int64) - part * width
                counts[part * width : (part + 1) * width] = np.bincount(found, minlength=width)
        np.concatenate(([0], np.cumsum(counts))).astype(np.uint32).tofile(self._folder / "buckets")

    def _parts(self) -> Iterator[tuple[Words, Numbers]]:
        """The fingerprints of each part of all values, the first 48 bits of each and where it stands."""
        runs = [(np.memmap(values, np.uint64, "r"), np.memmap(places, np.uint32, "r")) for values, places in self._runs]
        bounds = [
            np.searchsorted(values, np.arange(_PARTS + 1, dtype=np.uint64) << np.uint64(40)) for values, _ in runs
        ]
        old = _OldRun(self._old, self._shifts, self._kept) if self._old is not None else None
        for part in range(_PARTS):
            found = [
                (values[where[part] : where[part + 1]], places[where[part] : where[part + 1]])
                for (values, places), where in zip(runs, bounds, strict=True)
            ]
            if old is not None:
                found.append(old.part(part))
            yield (
                np.concatenate([values for values, _ in found] or [np.zeros(0, np.uint64)]),
                np.concatenate([places for _, places in found] or [np.zeros(0, np.uint32)]),
            )

    def _assemble(self) -> Path:
        whole, sections = self._folder / "index", {}
        with whole.open("wb") as out:
            out.write(bytes(HEADER_BYTES))
            for name in SECTIONS:
                out.write(bytes(-out.tell() % ALIGNMENT))
                begin = out.tell()
                _copy(self._folder / name, out)
                sections[name] = Section(begin, out.tell() - begin)
            out.seek(0)
            out.write(Header(self._gram, self._window, sections).pack())
            out.flush()
            os.fsync(out.fileno())
        return whole


class _OldRun:
    """The fingerprints of an old index whose sources are kept, at their new places."""

    def __init__(self, old: Index, shifts: Array, kept: Array) -> None:
        self._old, self._shifts, self._kept = old, shifts, kept
        self._buckets = np.frombuffer(old.section("buckets"), np.uint32)
        self._rests = np.frombuffer(old.section("rests"), np.uint32)
        self._positions = np.frombuffer(old.section("positions"), np.uint32)
        self._starts = np.frombuffer(old.section("starts"), np.uint32)

    def part(self, part: int) -> tuple[Words, Numbers]:
        width = BUCKETS // _PARTS
        ends = self._buckets[part * width : (part + 1) * width + 1].astype(np.int64)
        if (np.diff(ends) < 0).any() or ends[-1] > len(self._rests):
            raise self._old.damaged("its buckets")
        rests, positions = self._rests[ends[0] : ends[-1]], self._positions[ends[0] : ends[-1]]
        buckets = np.repeat(np.arange(part * width, (part + 1) * width, dtype=np.uint64), np.diff(ends))
        sources = np.searchsorted(self._starts, positions, "right") - 1
        if len(sources) and (sources.min() < 0 or sources.max() >= len(self._kept)):
            raise self._old.damaged("a position")
        kept = self._kept[sources]
        values = (buckets << np.uint64(32)) | rests
        return values[kept], (positions + self._shifts[sources])[kept].astype(np.uint32)


def _copy(path: Path, out: BinaryIO) -> None:
    with path.open("rb") as file:
        shutil.copyfileobj(file, out, _COPIED)
    path.unlink()
