"""A built index, mapped into memory and read where it is asked for. Nothing that it says is believed before it is checked."""

from __future__ import annotations

import json
import mmap
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from engine.errors import StarfillError
from lsp_server.attribution.layout import BUCKETS, HEADER_BYTES, Header, IndexRefused, line_of

MOST_POSITIONS: Final = 64
"""Places looked at of a gram that stands in many: of a passage that is everywhere, any will do."""

_MOST_RECORD = 64 * 1024
_MOST_ABOUT = 4 * 2**20
_READ_AHEAD = 256 * 2**20  # bytes of fingerprints that the system is asked to have at hand


@dataclass(frozen=True, slots=True)
class Source:
    """One indexed file. `path` is relative to its root and fit to be shown; `file` is where it was when it was indexed."""

    number: int
    root: str
    path: str
    file: str
    package: str
    licence: str
    first: int
    """Its first token, counted over all sources."""
    end: int
    """The first that is not its own any more."""


class Index:
    """Open for reading. Replacing its file leaves this one as it is."""

    def __init__(self, path: Path) -> None:
        """Raises StarfillError that names the file if it cannot be read, IndexRefused if it is no index of ours."""
        self.path = path
        try:
            with path.open("rb") as file:
                self.bytes = os.fstat(file.fileno()).st_size
                head = file.read(HEADER_BYTES)
                self.header = Header.unpack(path, head, self.bytes)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise StarfillError(f"{path}: {error.strerror}; run starfill attribution build again") from error
        self.tokens = self.section("tokens")
        self._lines = self.section("lines")
        self._buckets = self._numbers("buckets", "I")
        self._rests = self._numbers("rests", "I")
        self._positions = self._numbers("positions", "I")
        self._starts = self._numbers("starts", "I")
        self._line_starts = self._numbers("line_starts", "Q")
        self._records = self.section("records")
        self._record_starts = self._numbers("record_starts", "Q")
        self._check()
        about = self._object(bytes(self.section("about")[:_MOST_ABOUT]))
        roots = about.get("roots")
        if not isinstance(roots, list) or not all(isinstance(root, str) for root in roots):
            raise self.damaged("its folders")
        self.roots: list[str] = roots
        self.built = _printable(about.get("built"))
        began = about.get("began")
        self.began = began if isinstance(began, int) else 0
        """When its build began, in ns: a file that changed about then may have changed after it was read."""
        self._advise()

    def __len__(self) -> int:
        """Sources, those without a token among them."""
        return len(self._starts) - 1

    @property
    def fingerprints(self) -> int:
        """How many it holds."""
        return len(self._rests)

    def positions(self, gram: int) -> Iterator[int]:
        """Where a gram was kept, counted over all sources, in order."""
        bucket, rest = gram >> 48, gram >> 16 & 0xFFFFFFFF
        low, high = self._buckets[bucket], self._buckets[bucket + 1]
        rests = self._rests
        if not low <= high <= len(rests):
            raise self.damaged("its buckets")
        at = bisect_left(rests, rest, low, high)
        for found in range(at, min(high, at + MOST_POSITIONS)):
            if rests[found] != rest:
                return
            yield self._positions[found]

    def source_at(self, position: int) -> int:
        """The number of the source that a token belongs to."""
        number = bisect_right(self._starts, position) - 1
        if not 0 <= number < len(self) or not self._starts[number] <= position < self._starts[number + 1]:
            raise self.damaged("a position")
        return number

    def span(self, number: int) -> tuple[int, int]:
        """A source's first token, and the first that is not its own any more."""
        first, end = self._starts[number], self._starts[number + 1]
        if not first <= end <= len(self.tokens):
            raise self.damaged("its starts")
        return first, end

    def source(self, number: int) -> Source:
        """What is known of a source, fit to be shown."""
        record = self.record(number)
        root = record.get("root")
        if not isinstance(root, int) or not 0 <= root < len(self.roots):
            raise self.damaged("a record")
        first, end = self.span(number)
        path, package, licence = (_printable(record.get(name)) for name in ("path", "package", "licence"))
        file = os.path.join(self.roots[root], str(record.get("path")))  # noqa: PTH118 - only ever compared
        return Source(number, self.roots[root], path, file, package, licence, first, end)

    def record(self, number: int) -> dict[str, Any]:
        """A source's record as it is kept."""
        begin, end = self._record_starts[number], self._record_starts[number + 1]
        if not begin <= end <= len(self._records) or end - begin > _MOST_RECORD:
            raise self.damaged("a record")
        return self._object(bytes(self._records[begin:end]))

    def lines(self, number: int) -> memoryview:
        """The section `lines` of a source."""
        begin, end = self._line_starts[number], self._line_starts[number + 1]
        if not begin <= end <= len(self._lines):
            raise self.damaged("its lines")
        return self._lines[begin:end]

    def line(self, source: Source, position: int) -> int:
        """The line, from 1, of a source's token."""
        return line_of(bytes(self.lines(source.number)), position - source.first)

    def section(self, name: str) -> memoryview:
        """The bytes of a section."""
        where = self.header.sections[name]
        return memoryview(self._map)[where.offset : where.offset + where.length]

    def _numbers(self, name: str, kind: Literal["I", "Q"]) -> memoryview:
        return self.section(name).cast(kind)

    def _check(self) -> None:
        """Whether the sections agree with each other, as far as can be told without reading them."""
        ends = (
            (self._starts, len(self.tokens)),
            (self._line_starts, len(self._lines)),
            (self._record_starts, len(self._records)),
            (self._buckets, len(self._rests)),
        )
        if len(self._buckets) != BUCKETS + 1 or len(self._rests) != len(self._positions) or not len(self._starts):
            raise self.damaged("its sections")
        if not len(self._starts) == len(self._line_starts) == len(self._record_starts):
            raise self.damaged("its sources")
        if any(numbers[0] != 0 or numbers[-1] != end for numbers, end in ends):
            raise self.damaged("where its sections end")

    def _advise(self) -> None:
        """Have the system read ahead what every look-up asks for, unless that is very much."""
        where = self.header.sections["buckets"]
        page = where.offset // mmap.PAGESIZE * mmap.PAGESIZE
        last = self.header.sections["positions"]
        length = last.offset + last.length - page
        if hasattr(mmap, "MADV_WILLNEED") and length <= _READ_AHEAD:
            with suppress(OSError, ValueError):
                self._map.madvise(mmap.MADV_WILLNEED, page, length)

    def _object(self, data: bytes) -> dict[str, Any]:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            raise self.damaged("a record") from None
        if not isinstance(found, dict):
            raise self.damaged("a record")
        return found

    def damaged(self, what: str) -> IndexRefused:
        """The error to raise where what it says cannot be true."""
        return IndexRefused(self.path, f"damaged ({what})")


def _printable(value: Any) -> str:
    """Text of a record as it may be shown: a line, with nothing in it that cannot be seen."""
    if not isinstance(value, str):
        return ""
    return "".join(sign if sign.isprintable() else "?" for sign in value[:400])
