"""The two forms in which torch has written checkpoints: a zip archive (since 1.6), before that pickles, then bytes."""

from __future__ import annotations

import io
import mmap
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from engine.models.conversion.unpickler import Refused, Storage, Tensor, named_tensors, read_pickle

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_ZIP = b"PK\x03\x04"
_LOCAL_HEADER = 30
_LARGEST_PICKLE = 64 * 2**20
_MOST_ENTRIES = 65_536
_LONGEST_LINE = 65_536


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes of the file, and their CRC-32 where the file tells it."""

    begin: int
    end: int
    crc: int | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tensors of a file by name, and where the bytes of each storage are."""

    tensors: dict[str, Tensor]
    regions: Mapping[str, Region]


def read_checkpoint(file: BinaryIO, pages: mmap.mmap) -> Checkpoint:
    """The tensors of an open file, which `pages` maps; raises Refused. No byte of a tensor is read."""
    if pages[:4] == _ZIP:
        tensors, storages, regions = _zipped(file, pages)
    else:
        tensors, storages, regions = _legacy(pages)
    for key, storage in storages.items():
        region = regions.get(key)
        if region is None or region.end - region.begin != storage.count * storage.elements.size:
            raise Refused(f"lacks the bytes of storage {ascii(key)[:40]}, or has others; download it again")
    return Checkpoint(tensors, regions)


def _zipped(file: BinaryIO, pages: mmap.mmap) -> tuple[dict[str, Tensor], dict[str, Storage], dict[str, Region]]:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise Refused("is a broken zip archive; download it again") from error
    if len(entries) > _MOST_ENTRIES or len({entry.filename for entry in entries}) != len(entries):
        raise Refused("is a zip archive with too many entries, or two of one name")
    places = {entry.filename: _place(entry, pages) for entry in entries}
    pickles = [name for name in places if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise Refused("is a zip archive, but none that torch wrote (no data.pkl)")
    root = pickles[0].removesuffix("data.pkl")
    order = places.get(f"{root}byteorder")
    if order is not None and pages[order.begin : order.end] != b"little":
        raise Refused("was written on a big-endian machine")
    region = places[pickles[0]]
    if region.end - region.begin > _LARGEST_PICKLE:
        raise Refused("has a pickle larger than 64 MiB, which no model needs")
    content, storages = read_pickle(io.BytesIO(pages[region.begin : region.end]))
    data = f"{root}data/"
    regions = {name.removeprefix(data): place for name, place in places.items() if name.startswith(data)}
    return named_tensors(content), storages, regions


def _place(entry: zipfile.ZipInfo, pages: mmap.mmap) -> Region:
    """Where an entry's bytes are; it must be stored as it is."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
        raise Refused("is a compressed or encrypted zip archive, which torch does not write")
    at = entry.header_offset
    header = pages[at : at + _LOCAL_HEADER]
    if len(header) < _LOCAL_HEADER or header[:4] != _ZIP:
        raise Refused("is a broken zip archive; download it again")
    begin = at + _LOCAL_HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    end = begin + entry.file_size
    if end > len(pages):
        raise Refused("is a cut zip archive; download it again")
    return Region(begin, end, entry.CRC or None)  # torch can be told to leave the sum out


def _legacy(pages: mmap.mmap) -> tuple[dict[str, Tensor], dict[str, Storage], dict[str, Region]]:
    """Magic number, protocol, facts about the machine, the tensors, the keys of their storages; then those storages."""
    file = _Pages(pages)
    if read_pickle(file)[0] != _MAGIC:
        raise Refused("is no checkpoint that torch wrote")
    if read_pickle(file)[0] != _PROTOCOL:
        raise Refused("has another version of torch's old format")
    machine = read_pickle(file)[0]
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Refused("was written on a big-endian machine")
    content, storages = read_pickle(file)
    keys = read_pickle(file)[0]
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or {*keys} != storages.keys():
        raise Refused("does not hold the storages that its tensors need")
    regions: dict[str, Region] = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        begin = file.tell()
        end = begin + count * storages[key].elements.size
        if end > len(pages):
            raise Refused("is cut; download it again")
        regions[key] = Region(begin, end)
        file.seek(end)
    return named_tensors(content), storages, regions


class _Pages:
    """A mapped file as a stream that never reads ahead: what follows a pickle is found where it ended."""

    def __init__(self, pages: mmap.mmap) -> None:
        self._pages = pages
        self._at = 0

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""
        data = self._pages[self._at : max(self._at, min(self._at + size, len(self._pages)))]
        self._at += len(data)
        return data

    def readline(self) -> bytes:
        """Up to the next line feed, at most 64 KiB."""
        found = self._pages.find(b"\n", self._at, self._at + _LONGEST_LINE)
        return self.read(found + 1 - self._at if found >= 0 else _LONGEST_LINE)

    def seek(self, offset: int) -> None:
        """To a place counted from the start."""
        self._at = offset

    def tell(self) -> int:
        """Where it is."""
        return self._at
