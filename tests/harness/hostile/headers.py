"""Spoilt safetensors headers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.harness.hostile.spoiling import WEIGHTS, Spoil, Spoilt, edit_header, read_header, write, write_header

_FIRST = "transformer.h.0.attn.c_attn.weight"


def _case(name: str, says: str, spoil: Spoil) -> Spoilt:
    return Spoilt(f"header: {name}", WEIGHTS, says, spoil)


def _entry(name: str, says: str, **change: Any) -> Spoilt:
    """One tensor's entry, changed."""

    def spoil(header: dict[str, Any]) -> None:
        header[_FIRST] |= change

    return _case(name, says, edit_header(spoil))


def _shifted(by: int) -> Callable[[dict[str, Any]], None]:
    """Move the last tensor; its size stays."""

    def spoil(header: dict[str, Any]) -> None:
        last = max((e for e in header.values() if "data_offsets" in e), key=lambda e: int(e["data_offsets"][1]))
        last["data_offsets"] = [n + by for n in last["data_offsets"]]

    return spoil


def _cut(keep: Callable[[int, int], int]) -> Spoil:
    """Keep so many bytes, given the length of the header and of the file."""

    def spoil(folder: Path) -> None:
        raw = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(raw[: keep(int.from_bytes(raw[:8], "little"), len(raw))])

    return spoil


def _dtype_twice(header: str) -> str:
    return header.replace('"dtype"', '"dtype": "F32", "dtype"', 1)


def _length(length: int) -> Spoil:
    def spoil(folder: Path) -> None:
        header, data = read_header(folder / WEIGHTS)
        write_header(folder / WEIGHTS, json.dumps(header), data, length)

    return spoil


def _text(change: Callable[[str], str | bytes]) -> Spoil:
    def spoil(folder: Path) -> None:
        header, data = read_header(folder / WEIGHTS)
        write_header(folder / WEIGHTS, change(json.dumps(header)), data)

    return spoil


def _many(count: int) -> Spoil:
    """So many tensors of nothing."""
    entry = '"{}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'

    def spoil(folder: Path) -> None:
        text = ",".join(entry.replace("{}", format(n, "x"), 1) for n in range(count))
        write_header(folder / WEIGHTS, "{" + text + "}", b"")

    return spoil


def _sparse(folder: Path) -> None:
    """A header of a terabyte, in a file that takes no disk."""
    with (folder / WEIGHTS).open("wb") as file:
        file.write((2**40).to_bytes(8, "little"))
        file.truncate(2**40 + 8)


CASES = (
    _case("empty file", "first 8 bytes", write(WEIGHTS, b"")),
    _case("four bytes", "first 8 bytes", _cut(lambda _, __: 4)),
    _case("length alone", "within its header", _cut(lambda _, __: 8)),
    _case("cut in the header", "within its header", _cut(lambda header, _: 8 + header // 2)),
    _case("cut after the header", "not within the 0 bytes", _cut(lambda header, _: 8 + header)),
    _case("cut in the data", "data_offsets", _cut(lambda header, size: (8 + header + size) // 2)),
    _case("cut by one byte", "data_offsets", _cut(lambda _, size: size - 1)),
    _case("length 0", "does not start with", _length(0)),
    _case("length 1", "not readable as JSON", _length(1)),
    _case("length beyond the file", "within its header", _length(4 * 2**20)),
    _case("length of a terabyte", "header of", _sparse),
    _case("length 2**63", "header of", _length(2**63)),
    _case("length 2**64 - 1", "header of", _length(2**64 - 1)),
    _case("an HTML page", "header of", write(WEIGHTS, "<!DOCTYPE html><html>404</html>")),
    _case("a pointer of Git LFS", "header of", write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n")),
    _case("a list", "does not start with", _text(lambda text: f"[{text}]")),
    _case("blanks first", "does not start with", _text(lambda text: f"  {text}")),
    _case("not UTF-8", "not readable as JSON", _text(lambda text: text.replace("wte", "\xff").encode("latin-1"))),
    _case("nested 100,000 deep", "nested deeper", _text(lambda _: '{"a":' * 100_000 + "0" + "}" * 100_000)),
    _case("junk after it", "not readable as JSON", _text(lambda text: text + "{}")),
    _case(
        "a tensor twice", "stands there twice", _text(lambda t: t.replace('"transformer.wpe.w', '"transformer.wte.w'))
    ),
    _case(
        "a key twice in a tensor",
        "'dtype' stands there twice",
        _text(_dtype_twice),
    ),
    _case("a million tensors", "bytes", _many(1_000_000)),
    _case("60,000 tensors", "more than 150,000 values", _many(60_000)),
    _case("17,000 tensors", "17,000 tensors", _many(17_000)),
    _case("metadata that is no text", "__metadata__", edit_header(lambda h: h | {"__metadata__": {"format": 1}})),
    _case("metadata that is a list", "__metadata__", edit_header(lambda h: h | {"__metadata__": ["pt"]})),
    _case(
        "a name of 10,000 letters", "a name of 10000 characters", edit_header(lambda h: h | {"x" * 10_000: h[_FIRST]})
    ),
    _case("an entry that is a list", "expected dtype", edit_header(lambda h: h | {_FIRST: []})),
    _case("an entry that is null", "expected dtype", edit_header(lambda h: h | {_FIRST: None})),
    _case(
        "an entry without offsets",
        "expected dtype",
        edit_header(lambda h: h | {_FIRST: {"dtype": "F32", "shape": [1]}}),
    ),
    _entry("a key too many", "nothing else", stride=[1]),
    _entry("no such dtype", "unknown dtype 'F31'", dtype="F31"),
    _entry("a dtype that is a number", "unknown dtype 32", dtype=32),
    _entry("a dtype that is a list", "unknown dtype", dtype=["F32"]),
    _entry("a dtype half as wide", "does not take", dtype="F16"),
    _entry("a shape that is a number", "shape must be", shape=96),
    _entry("a shape below zero", "shape must be", shape=[-1, 64]),
    _entry("a shape of floats", "shape must be", shape=[96.0, 64]),
    _entry("a shape of flags", "shape must be", shape=[True, 64]),
    _entry("a shape of text", "shape must be", shape=["96", 64]),
    _entry("nine axes", "at most 8", shape=[1] * 9),
    _entry("a shape that overflows 64 bits", "does not take", shape=[2**33, 2**33]),
    _entry("a shape that overflows to the right size", "does not take", shape=[2**47, 2**17 + 1]),
    _entry("a shape past all sizes", "shape must be", shape=[2**64]),
    _entry("another shape of other size", "does not take", shape=[1, 1]),
    _entry("offsets below zero", "data_offsets must be", data_offsets=[-8, 0]),
    _entry("offsets past the file", "not within", data_offsets=[0, 2**40]),
    _entry("offsets past 64 bits", "data_offsets must be", data_offsets=[0, 2**64]),
    _entry("offsets backwards", "not within", data_offsets=[64, 0]),
    _entry("three offsets", "data_offsets must be", data_offsets=[0, 1, 2]),
    _entry("offsets of text", "data_offsets must be", data_offsets=["0", "8"]),
    _entry("offsets of floats", "data_offsets must be", data_offsets=[0.0, 8.0]),
    _entry("no offsets", "data_offsets must be", data_offsets=None),
    _case("an overlap", "overlaps", edit_header(_shifted(-4))),
    _case("a gap", "leaves 4 bytes", edit_header(_shifted(4), more=bytes(4))),
    _case("bytes after the last tensor", "belong to none", edit_header(lambda _: None, more=bytes(4096))),
    _case("two tensors on the same bytes", "overlaps", edit_header(lambda h: h | {"transformer.alias": h[_FIRST]})),
)
