"""What attribution may cost: 100 MB indexed in the time of five minutes on two cores, a look-up in two milliseconds."""

from __future__ import annotations

import random
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from lsp_server.attribution import passages
from lsp_server.attribution.tokens import TOKEN
from tests.harness.corpora import build_index, modules, program

BUILD_SECONDS = 5 * 60 * 2
"""Of processor time for 100 MB: five minutes of two cores."""

LOOK_UP_SECONDS = 0.002
MEMORY = 600 * 2**20
"""Bytes that a process may grow by while it builds an index of 100 MB."""


def processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def fill(folder: Path, size: int) -> list[Path]:
    """Programs of about a hundred kilobytes, real names in them, no two the same."""
    folder.mkdir()
    made = written = 0
    files = []
    real = [path.read_text("utf-8") for path in modules(12)]
    while written < size:
        text = program(made, 1_000) + real[made % len(real)] + program(made + 1_000_000, 1_000)
        path = folder / f"{made % 50}" / f"m{made}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        files.append(path)
        written += len(text)
        made += 1
    return files


def look_up(folder: Path, files: list[Path], target: Path, size: int, jobs: int) -> None:
    before = processor_seconds()
    index, done = build_index(target, folder, jobs=jobs)
    seconds = processor_seconds() - before
    assert done.bytes_read >= size
    assert seconds < BUILD_SECONDS * size / 100e6, f"{seconds:.1f} s of processor time for {size / 1e6:.0f} MB"
    assert index.bytes < 1.2 * size
    chance = random.Random(1)
    found, times = 0, []
    for _ in range(300):
        text = chance.choice(files).read_text()
        at = chance.randrange(3_000, len(text) - 3_000)
        words = TOKEN(text[at : at + 1_500])[1:61]
        began = time.thread_time()
        found += bool(passages.of_completion(index, text[at - 2_000 : at], "\n" + " ".join(words), 50))
        times.append(time.thread_time() - began)
    assert found >= 0.99 * len(times), f"{found} of {len(times)}"
    assert sorted(times)[len(times) // 2] < LOOK_UP_SECONDS


def test_a_small_corpus_within_its_share_of_the_time(tmp_path: Path) -> None:
    files = fill(tmp_path / "corpus", 4_000_000)
    look_up(tmp_path / "corpus", files, tmp_path / "home" / "index", 4_000_000, 1)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_hundred_megabytes(tmp_path: Path) -> None:
    # In a process of its own: what others have had at most counts for ever.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(_a_hundred_megabytes, tmp_path).result()


def _a_hundred_megabytes(folder: Path) -> None:
    files = fill(folder / "corpus", 100_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    look_up(folder / "corpus", files, folder / "home" / "index", 100_000_000, 2)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < MEMORY
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < MEMORY
