"""An index that is cut off, altered or made up is refused in a line that names it, or answers wrongly; it never does more."""

from __future__ import annotations

import os
import random
import resource
import struct
import time
from pathlib import Path

import pytest

from engine.errors import StarfillError
from lsp_server.attribution import passages
from lsp_server.attribution.index import Index
from lsp_server.attribution.layout import BUCKETS, HEADER_BYTES, Header, IndexRefused, Section
from tests.harness.corpora import build_index, program, write

TEXT = program(1, 150)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = write(tmp_path_factory.mktemp("code"), {"a.py": TEXT, "b.py": program(2, 150), "c.py": program(3, 10)})
    index, _ = build_index(tmp_path_factory.mktemp("home") / "index", folder)
    return index.path.read_bytes()


def use(path: Path) -> None:
    """All that is done with an index."""
    index = Index(path)
    passages.of_text(index, TEXT, 50)
    passages.of_completion(index, TEXT[:500], TEXT[500:900], 50)
    for number in range(len(index)):
        index.source(number)


def refused(path: Path, data: bytes, match: str) -> None:
    path.write_bytes(data)
    with pytest.raises(StarfillError, match=match) as caught:
        use(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "run starfill attribution build" in str(caught.value)


def test_what_is_no_index(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "index"
    use_whole = path.write_bytes(whole)
    use(path)
    assert use_whole == len(whole)
    for data in (
        b"",
        b"x",
        b"starfill attribution index",
        b"\0" * 10_000,
        os.urandom(10_000),
        whole[: HEADER_BYTES - 1],
    ):
        refused(path, data, "not an attribution index")
    path.unlink()
    with pytest.raises(StarfillError, match="No such file"):
        Index(path)
    with pytest.raises(StarfillError, match="Is a directory"):
        Index(tmp_path)


def test_another_version_and_another_machine_are_named(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "index"
    refused(path, whole[:36] + struct.pack("=I", 2) + whole[40:], r"of version 2, and this starfill reads version 1")
    refused(path, whole[:32] + whole[32:36][::-1] + whole[36:], "byte order")


def test_each_bit_of_the_header_counts(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "index"
    used = Header.unpack(path, whole, len(whole))
    fields = len(used.pack().rstrip(b"\0"))
    for at in range(fields):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        refused(path, bytes(data), "index")


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.999])
def test_a_file_that_is_cut_off(tmp_path: Path, whole: bytes, part: float) -> None:
    refused(tmp_path / "index", whole[: int(len(whole) * part)], "would lie outside of it")


def test_made_up_headers_cost_nothing(tmp_path: Path, whole: bytes) -> None:
    """With a checksum that is right, as somebody would make it who means harm."""
    path = tmp_path / "index"
    honest = Header.unpack(path, whole, len(whole))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    for name in honest.sections:
        for section in (
            Section(0, 8), Section(2**63, 8), Section(HEADER_BYTES, 2**63), Section(HEADER_BYTES, 0),
            Section(HEADER_BYTES + 1, 8), Section(HEADER_BYTES, 4 * (BUCKETS + 1)),
            Section(HEADER_BYTES, len(whole) - HEADER_BYTES),
        ):  # fmt: skip
            header = Header(honest.gram, honest.window, {**honest.sections, name: section})
            path.write_bytes(header.pack() + whole[HEADER_BYTES:])
            with pytest.raises(IndexRefused, match="damaged"):
                use(path)
    for gram, window in ((0, 5), (2**31, 5), (20, 0), (20, 2**32 - 1)):
        path.write_bytes(Header(gram, window, honest.sections).pack() + whole[HEADER_BYTES:])
        with pytest.raises(IndexRefused, match="such parameters"):
            use(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
    assert time.process_time() - began < 20


def test_altered_bytes_lead_to_nothing_but_refusals(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "index"
    chance = random.Random(3)
    sections = Header.unpack(path, whole, len(whole)).sections
    refusals = 0
    for round_ in range(400):
        data = bytearray(whole)
        section = sections[chance.choice(["buckets", "rests", "positions", "starts", "line_starts", "lines", "records",
                                          "record_starts", "about", "tokens"])]  # fmt: skip
        for _ in range(chance.choice([1, 4, 64])):
            data[chance.randrange(section.offset, section.offset + max(1, section.length))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            use(path)
        except StarfillError as error:
            refusals += 1
            assert str(path) in str(error), round_
    assert refusals > 50


def test_places_that_all_grams_lead_to_are_bounded(tmp_path: Path) -> None:
    """A table of zeros has one gram, everywhere; a text of zeros meets it at each token."""
    folder = write(tmp_path / "code", {f"{name}.py": "0, " * 60_000 for name in "abcdef"})
    index, _ = build_index(tmp_path / "home" / "index", folder)
    began = time.process_time()
    for _ in range(5):
        assert passages.of_completion(index, "0, " * 100, "0, " * 600, 50)
    assert (time.process_time() - began) / 5 < 0.1


def test_a_text_that_repeats_itself_costs_what_its_length_explains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreed = 0
    common = passages._common

    def counted(left: memoryview, right: memoryview) -> int:
        nonlocal agreed
        found = common(left, right)
        agreed += found
        return found

    monkeypatch.setattr(passages, "_common", counted)
    for count in (8_000, 16_000):
        folder = write(tmp_path / f"code{count}", {"a.py": "0, " * count})
        index, _ = build_index(tmp_path / f"home{count}" / "index", folder)
        agreed, stopped = 0, list[int]()
        (passage,) = passages.of_text(index, "0, " * count, 50, stopped.append)
        assert (passage.begin, passage.end) == (0, 2 * count)
        assert len(stopped) == 1
        assert agreed <= 2 * count * passages.COMPARED_A_TOKEN * 512 * 2
    index, _ = build_index(tmp_path / "home" / "index", write(tmp_path / "code", {"a.py": TEXT, "b.py": TEXT}))
    assert passages.of_text(index, TEXT, 50, stopped.append)
    assert len(stopped) == 1  # of what people write nothing is left out


def test_nothing_unseen_is_told_of_a_source(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "code", {"a\u202e\x1b[31m.py": TEXT, "package.json": '{"name": "x\\u0007y\\nz", "license": "MIT"}'}
    )
    index, _ = build_index(tmp_path / "home" / "index", folder)
    (passage,) = passages.of_text(index, TEXT, 50)
    told = passages.origin_of(passage).text
    assert told.isprintable()
    assert "x?y?z, a??[31m.py line " in told
