"""The index's file: a header, then sections one after the other. Written by `writer`, read by `index`.

    header      magic, byte order, version, parameters, where each section is, and a checksum of all that
    tokens      a byte of each token of each source, one source after the other
    lines       tokens on each line of each source, a byte each; 255 says that there are more on the same line
    buckets     uint32[65,537]: where in `rests` the fingerprints begin whose first 16 bits are the number
    rests       uint32 each: the following 32 bits of a fingerprint; ascending within a bucket
    positions   uint32 each: the token, counted over all sources, at which a fingerprint's gram begins
    starts      uint32[sources + 1]: the first token of each source
    line_starts uint64[sources + 1]: where its lines begin in `lines`
    records     JSON of each source
    record_starts uint64[sources + 1]
    about       JSON: the folders, when and by which version it was built

Numbers are in the byte order of the machine that built it. Each section begins at a multiple of eight bytes.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import StarfillError

MAGIC: Final = b"starfill attribution index\n\0\0\0\0\0"
VERSION: Final = 1
SECTIONS: Final = (
    "tokens", "lines", "buckets", "rests", "positions", "starts", "line_starts", "records", "record_starts", "about",
)  # fmt: skip
ITEM_BYTES: Final = {
    "tokens": 1, "lines": 1, "buckets": 4, "rests": 4, "positions": 4, "starts": 4, "line_starts": 8, "records": 1,
    "record_starts": 8, "about": 1,
}  # fmt: skip
ALIGNMENT: Final = 8
BUCKETS: Final = 1 << 16
MOST_TOKENS: Final = 2**32 - 1
MORE: Final = 255
"""In `lines`: so many tokens, and the line goes on."""

_ORDER: Final = 0x01020304
_HEADER: Final = struct.Struct(f"={len(MAGIC)}sIIII" + "QQ" * len(SECTIONS))
_CHECK: Final = struct.Struct("=I")
HEADER_BYTES: Final = (_HEADER.size + _CHECK.size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


class IndexRefused(StarfillError):
    """An index that is damaged, or not of this version; names the file and the remedy."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}; run starfill attribution build again")


@dataclass(frozen=True, slots=True)
class Section:
    """Where a section is, in bytes."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Header:
    """What an index says of itself: tokens in a gram, grams in a window, and where the sections are."""

    gram: int
    window: int
    sections: dict[str, Section]

    def pack(self) -> bytes:
        """The bytes that the file begins with."""
        spans = [number for name in SECTIONS for number in (self.sections[name].offset, self.sections[name].length)]
        packed = _HEADER.pack(MAGIC, _ORDER, VERSION, self.gram, self.window, *spans)
        return (packed + _CHECK.pack(zlib.crc32(packed))).ljust(HEADER_BYTES, b"\0")

    @classmethod
    def unpack(cls, path: Path, data: bytes, size: int) -> Header:
        """Read the header of a file of `size` bytes; raises IndexRefused unless all that it says can be true."""
        if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
            raise IndexRefused(path, "not an attribution index")
        _, order, version, gram, window, *spans = _HEADER.unpack_from(data)
        if order != _ORDER:
            raise IndexRefused(path, "built on a machine with another byte order")
        if version != VERSION:
            raise IndexRefused(path, f"of version {version}, and this starfill reads version {VERSION}")
        if _CHECK.unpack_from(data, _HEADER.size)[0] != zlib.crc32(data[: _HEADER.size]):
            raise IndexRefused(path, "damaged: its header does not match its checksum")
        sections = {name: Section(*spans[2 * at : 2 * at + 2]) for at, name in enumerate(SECTIONS)}
        for name, section in sections.items():
            if section.offset % ALIGNMENT or section.offset < HEADER_BYTES or section.offset + section.length > size:
                raise IndexRefused(path, f"damaged: its {name} would lie outside of it")
            if section.length % ITEM_BYTES[name]:
                raise IndexRefused(path, f"damaged: its {name} are cut off")
        if not 1 <= gram <= 1_000 or not 1 <= window <= 1_000_000:
            raise IndexRefused(path, "damaged: no index has such parameters")
        return cls(gram, window, sections)

    @property
    def guaranteed(self) -> int:
        """Tokens of the shortest passage that is always found."""
        return self.window + self.gram - 1


def packed_lines(counts: list[int]) -> bytes:
    """The section `lines` of one source, from the number of tokens on each of its lines."""
    if max(counts, default=0) < MORE:
        return bytes(counts)
    packed = bytearray()
    for count in counts:
        packed += bytes([MORE]) * (count // MORE)
        packed.append(count % MORE)
    return bytes(packed)


def line_of(packed: bytes, token: int) -> int:
    """The line, from 1, that a source's token stands on."""
    line, seen = 1, 0
    for at in range(0, len(packed), 1_024):
        piece = packed[at : at + 1_024]
        if seen + (tokens := sum(piece)) > token:
            for count in piece:
                seen += count
                if seen > token:
                    return line
                line += count != MORE
        seen += tokens
        line += len(piece) - piece.count(MORE)
    return line
