"""An index is what its folders hold, however it came about: anew, step by step, after an interruption, after damage."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StarfillError
from engine.lock import FileLock
from lsp_server.attribution import build as building
from lsp_server.attribution import fingerprint, passages, writer
from lsp_server.attribution.build import GRAM, Built, build
from lsp_server.attribution.index import Index
from lsp_server.attribution.layout import SECTIONS, line_of, packed_lines
from lsp_server.attribution.tokens import TOKEN
from lsp_server.privacy.small_files import read_bounded
from tests.harness.corpora import build_index, die, program, write

CODE = {f"{name}.py": program(seed, 120) for seed, name in enumerate("abcdefgh")}
LONG_AGO = 1_500_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write(tmp_path / "code", dict(CODE))
    age(folder)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "home" / "attribution" / "index"


def age(folder: Path) -> None:
    """As if nobody had touched its files for years."""
    for path in folder.rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO))


def found(index: Index, text: str) -> list[tuple[str, int]]:
    return [(each.source.path, each.tokens) for each in passages.of_text(index, text, 50)]


def content(index: Index) -> dict[str, bytes]:
    """All of it but when it was built."""
    return {name: bytes(index.section(name)) for name in SECTIONS if name != "about"} | {
        "roots": "\n".join(index.roots).encode()
    }


def test_each_file_is_found_where_it_stands(folder: Path, target: Path) -> None:
    index, done = build_index(target, folder)
    assert (done.read, done.kept, done.gone, len(index)) == (8, 0, 0, 8)
    for name, text in CODE.items():
        ((path, tokens),) = found(index, text)
        assert (path, tokens) == (
            name,
            index.source(sorted(CODE).index(name)).end - index.source(sorted(CODE).index(name)).first,
        )
    lines = CODE["c.py"].split("\n")
    (passage,) = passages.of_text(index, "\n".join(lines[40:90]), 50)
    assert passage.line == next(number for number in range(41, 91) if lines[number - 1].strip())


def test_what_did_not_change_is_not_read_again(folder: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, _ = build_index(target, folder)
    read: list[str] = []

    def spy(path: Path, limit: int, *, follow: bool) -> bytes:
        read.append(path.name)
        return read_bounded(path, limit, follow=follow)

    monkeypatch.setattr(fingerprint, "read_bounded", spy)
    after, done = build_index(target, folder)
    assert (done.read, done.kept, read) == (0, 8, [])
    assert content(after) == content(before)
    os.utime(folder / "b.py")  # touched, not changed: looked at, and what is there kept
    again, done = build_index(target, folder)
    assert (done.read, done.kept, read) == (1, 7, ["b.py"])
    assert {k: v for k, v in content(again).items() if "record" not in k} == {
        k: v for k, v in content(before).items() if "record" not in k
    }


def test_step_by_step_is_the_same_as_at_once(folder: Path, target: Path, tmp_path: Path) -> None:
    chance = random.Random(5)
    build_index(target, folder)
    for step in range(12):
        name = chance.choice("abcdefghij")
        match chance.randrange(3):
            case 0:
                (folder / f"{name}.py").unlink(missing_ok=True)
            case 1:
                write(folder, {f"{name}.py": program(100 + step, chance.randrange(1, 200))})
            case _:
                write(folder, {f"sub/{name}.py": program(200 + step, 80)})
        age(folder)
        by_steps, _ = build_index(target, folder)
        at_once, _ = build_index(tmp_path / "other" / str(step) / "index", folder)
        assert content(by_steps) == content(at_once)


def test_what_is_deleted_is_gone_and_counted(folder: Path, target: Path) -> None:
    build_index(target, folder)
    (folder / "d.py").unlink()
    index, done = build_index(target, folder)
    assert (done.kept, done.gone, len(index)) == (7, 1, 7)
    assert found(index, CODE["d.py"]) == []
    assert found(index, CODE["e.py"])


def test_runs_that_do_not_fit_into_memory_are_merged(
    folder: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = build_index(target, folder)
    monkeypatch.setattr(writer.Writer.__init__, "__defaults__", (50,))
    in_runs, _ = build_index(tmp_path / "other" / "index", folder)
    assert content(in_runs) == content(whole)


def test_processes_give_the_same(folder: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, _ = build_index(target, folder)
    monkeypatch.setattr(building, "_ALONE", 0)
    monkeypatch.setattr(building, "_TASK_FILES", 2)
    together, _ = build_index(tmp_path / "other" / "index", folder, jobs=2)
    assert content(together) == content(alone)


def test_an_interrupted_build_leaves_the_old_index_as_it_was(
    folder: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(target, folder)
    before = target.read_bytes()
    write(folder, {"new.py": program(50, 100)})
    for stage in ("add", "keep", "_merge", "_assemble"):
        with monkeypatch.context() as patch:

            def interrupt(*_: Any) -> None:
                raise KeyboardInterrupt

            patch.setattr(writer.Writer, stage, interrupt)
            with pytest.raises(KeyboardInterrupt):
                build_index(target, folder)
        assert target.read_bytes() == before
        assert [path.name for path in target.parent.iterdir()] == ["index"], stage


def test_what_a_killed_build_left_is_removed(folder: Path, target: Path) -> None:
    build_index(target, folder)
    left = target.parent / "build-abc"
    write(left, {"tokens": b"x" * 100})
    build_index(target, folder)
    assert not left.exists()


def test_one_build_at_a_time(folder: Path, target: Path) -> None:
    build_index(target, folder)
    lock = FileLock(target.parent / "build.lock")
    assert lock.try_acquire()
    try:
        with pytest.raises(StarfillError, match=r"another build is at work .*build\.lock"):
            build_index(target, folder)
    finally:
        lock.release()


def test_a_full_disk_is_told_with_the_file(folder: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.Writer, "_assemble", full)
    with pytest.raises(StarfillError, match=r"index: No space left on device; the index is as it was before"):
        build_index(target, folder)


def test_a_damaged_index_is_built_anew(folder: Path, target: Path) -> None:
    index, _ = build_index(target, folder)
    where = index.header.sections["buckets"]
    data = bytearray(target.read_bytes())
    data[where.offset + 4 : where.offset + 8] = b"\xff\xff\xff\x7f"  # opening does not look at that
    target.write_bytes(data)
    again, done = build_index(target, folder)
    assert done.read == 8
    assert found(again, CODE["a.py"])
    target.write_bytes(b"no index")
    with pytest.raises(StarfillError, match="name all of them, without --add"):
        build_index(target, folder, add=True)
    assert build_index(target, folder)[1].read == 8


def test_a_process_that_is_killed_ends_the_build_in_words(
    folder: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(target, folder)
    write(folder, {"new.py": program(60, 100)})
    before = target.read_bytes()
    monkeypatch.setattr(building, "_ALONE", 0)
    monkeypatch.setattr(building, "of_files", die)  # what the processes are asked to do
    with pytest.raises(StarfillError, match=r"index: a process that read files was ended from outside; try --jobs 1"):
        build_index(target, folder, jobs=2)
    assert target.read_bytes() == before


def test_folders_of_the_last_build(folder: Path, target: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", {"z.py": program(77, 100)})
    age(other)
    with pytest.raises(StarfillError, match="name the folders to index"):
        build_index(target)
    build_index(target, folder)
    index, done = build_index(target, other, add=True)
    assert (len(index.roots), done.read, done.kept) == (2, 1, 8)
    index, done = build_index(target)
    assert (len(index.roots), done.read, done.kept) == (2, 0, 9)
    index, done = build_index(target, other)
    assert (index.roots, done.kept, done.gone) == ([str(other.resolve())], 1, 8)
    index, _ = build_index(target, other, other / "..", add=False)  # a folder inside another counts once
    assert index.roots == [str(tmp_path.resolve())]
    with pytest.raises(StarfillError, match=r"absent: not a folder"):
        build_index(target, tmp_path / "absent")


def test_another_length_means_reading_all_again(folder: Path, target: Path) -> None:
    short, _ = build_index(target, folder, length=30)
    assert short.header.guaranteed == 30
    kept, done = build_index(target, folder)
    assert (kept.header.guaranteed, done.kept) == (30, 8)
    long, done = build_index(target, folder, length=80)
    assert (long.header.guaranteed, done.read) == (80, 8)
    assert long.fingerprints < short.fingerprints


def test_what_is_no_text_too_large_or_a_link_is_left_out(folder: Path, target: Path) -> None:
    write(
        folder,
        {"b.bin": b"\0" * 5_000, "empty.py": "", "large.py": b"x = 1\n" * 400_000, ".git/objects/a": program(9, 99)},
    )
    (folder / "odd \n.py").write_text(program(40, 60))
    (folder / "link.py").symlink_to(folder / "a.py")
    os.mkfifo(folder / "pipe.py")
    age_of = [path for path in folder.iterdir() if path.name != "link.py"]
    for path in age_of:
        os.utime(path, (LONG_AGO, LONG_AGO))
    index, done = build_index(target, folder)
    paths = {index.source(number).path for number in range(len(index))}
    assert paths == {*CODE, "b.bin", "odd ?.py"}  # remembered as no text
    assert done.read == 10
    assert build_index(target, folder)[1].read == 0


def test_a_file_of_the_same_time_and_size_is_looked_at_if_it_is_as_young_as_the_index(
    folder: Path, target: Path
) -> None:
    build_index(target, folder)
    path = folder / "a.py"
    path.write_text(CODE["a.py"])
    stat = path.stat()
    build_index(target, folder)
    changed = CODE["a.py"].replace("e", "i")
    path.write_text(changed)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    index, _ = build_index(target, folder)
    assert found(index, changed)[0][0] == "a.py"


def test_words_of_every_kind_of_file(folder: Path, target: Path) -> None:
    """Carriage returns, other encodings, very long lines: the line that is told is the one that an editor shows."""
    body = program(31, 60).splitlines()
    long = " ".join(f"w{number}" for number in range(900))
    write(
        folder,
        {
            "crlf.py": "\r\n".join(["", *body]),
            "mac.py": "\r".join(["", "", *body[::-1]]),
            "latin.py": b"caf\xe9 = 1\n" + program(32, 60).encode(),
            "long.py": f"{long}\n\n{program(33, 60)}",
        },
    )
    index, _ = build_index(target, folder)

    def first(text: str) -> tuple[str, int]:
        (passage, *_) = passages.of_text(index, text, 50)
        return passage.source.path, passage.line

    begin = next(at for at, line in enumerate(body) if line.strip())
    assert first("\n".join(body)) == ("crlf.py", begin + 2)
    begin = next(at for at, line in enumerate(body[::-1]) if line.strip())
    assert first("\n".join(body[::-1])) == ("mac.py", begin + 3)
    assert first(program(32, 60))[0] == "latin.py"
    assert first(program(33, 60))[0:2] == (
        "long.py",
        3 + next(at for at, line in enumerate(program(33, 60).split("\n")) if line),
    )


def test_lines_are_told_from_their_tokens() -> None:
    counts = [0, 3, 0, 0, 255, 1, 600, 0, 2]
    packed = packed_lines(counts)
    expected = [line for line, count in enumerate(counts, 1) for _ in range(count)]
    assert [line_of(packed, token) for token in range(len(expected))] == expected
    many = [random.Random(1).randrange(5) for _ in range(5_000)]
    expected = [line for line, count in enumerate(many, 1) for _ in range(count)]
    packed = packed_lines(many)
    assert all(line_of(packed, token) == expected[token] for token in range(0, len(expected), 7))


def test_nothing_shorter_than_a_gram_is_found(folder: Path, target: Path) -> None:
    index, _ = build_index(target, folder)
    words = CODE["a.py"].split()
    assert passages.of_text(index, " ".join(words[: GRAM // 4]), 1) == []
    assert passages.of_text(index, "", 50) == []
    assert passages.of_completion(index, "", "", 50) == []


def test_progress_ends_at_all(folder: Path, target: Path) -> None:
    told: list[tuple[str, int, int]] = []
    done = build([folder], target, add=False, length=None, jobs=1, progress=lambda *news: told.append(news))
    assert isinstance(done, Built)
    reading = [news for news in told if news[0] == "reading"]
    assert [news[1] for news in reading] == sorted(news[1] for news in reading)
    assert reading[-1][1] == reading[-1][2] == done.bytes_read == sum(len(text) for text in CODE.values())


def test_a_file_is_no_news_to_itself_by_whatever_path_it_was_opened(tmp_path: Path, target: Path) -> None:
    odd = "sub/\u202e" + "/".join(["deep" * 10] * 12) + "/m\udcff.py"
    names = {"plain.py": program(41, 60), odd: program(42, 60)}
    root = write(tmp_path / "real", dict(names))
    (tmp_path / "link").symlink_to(root)
    index, _ = build_index(target, root)
    for name, text in names.items():
        assert passages.of_completion(index, "", text, 50)
        assert passages.of_completion(index, "", text, 50, str(tmp_path / "other" / name))
        for folder in ("real", "link", "link/../link"):
            assert passages.of_completion(index, "", text, 50, f"{tmp_path}/{folder}/{name}") == []


def test_what_is_replaced_is_no_news_in_what_replaces_it(folder: Path, target: Path) -> None:
    index, _ = build_index(target, folder)
    text = CODE["a.py"]
    words = TOKEN(text)
    assert passages.of_completion(index, "", text, 50)
    assert passages.of_completion(index, "", text, 50, known=text) == []
    assert passages.of_completion(index, "", text + "\nmore = 1", 50, known=text) == []
    mended = " ".join([*words[:60], "mended", *words[61:]])
    assert passages.of_completion(index, "", mended, 50, known=text) == []
    half = " ".join(words[: len(words) // 2])
    (passage,) = passages.of_completion(index, "", text, 50, known=half)  # the other half is the model's
    assert passage.tokens == len(words)
    three = " ".join([*words[:40], "x", "y", "z", *words[43:]])
    assert passages.of_completion(index, "", text, 50, known=three) == []  # less than a tenth of what counts
