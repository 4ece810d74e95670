"""What attribution costs and finds: building an index, looking up, and index size against recall.

`python -m benchmarks.attribution --out DIR [--svg FILE] FOLDER...` takes source files of the packages in the folders, every
tenth package apart, and indexes the others. Then it looks passages of known places up in changed white space, and asks for
what the index does not know: windows of the packages that were kept apart, each report held against the file that it names.
Times are of the processor.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.curves import Point, draw
from benchmarks.report import text_table
from benchmarks.rows import Detail, Row, RowWriter, Run
from lsp_server.attribution import passages
from lsp_server.attribution.build import GRAM, build
from lsp_server.attribution.build import LENGTH as GUARANTEED
from lsp_server.attribution.corpus import MOST_BYTES
from lsp_server.attribution.index import Index
from lsp_server.attribution.tokens import SPANS, TOKEN

SUFFIXES = frozenset({".py", ".pyi", ".c", ".h", ".hpp", ".cpp", ".cuh", ".js", ".ts", ".rs", ".go", ".java", ".lua"})
HELD_OUT = 10  # of so many packages one is kept apart
GRAMS = (12, 16, 20, 24, 32)
GUARANTEES = (28, 34, GUARANTEED, 50, 65, 85, 115, 160)
LENGTH = 50  # the setting's default
PASSAGES = (30, LENGTH, 80)
COMPLETION = 50  # tokens that a completion of this benchmark has
WHITE = (" ", "  ", "\n", "\n    ", "\t")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Folders of files to index, and files that are not indexed."""

    folder: Path
    part: Path
    """A folder with fewer of the files, for the curve."""
    apart: list[Path]
    bytes: int
    part_bytes: int


def main(arguments: Sequence[str]) -> int:
    """Ask everything, write rows, draw the curve, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attribution", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for attribution.jsonl; rows are appended")
    parser.add_argument("--svg", type=Path, help="draw index size against recall")
    parser.add_argument("--bytes", type=int, default=100_000_000, help="of source that are indexed")
    parser.add_argument("--part-bytes", type=int, default=6_000_000, help="of source that the curve is measured on")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("folders", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    run = Run.of(arguments, "cpu", options.seed, module="benchmarks.attribution")
    writer = RowWriter(options.out, "attribution")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        corpus = gather(options.folders, place, options.bytes, options.part_bytes)
        bench = Bench(run, writer, place / "home" / "index", options.samples)
        index = bench.build(corpus)
        bench.looks_up(index, corpus)
        bench.false_alarms(index, corpus)
        bench.finds(index, corpus)
        lines = bench.curve(corpus)
    if options.svg is not None:
        title = f"Passages of {LENGTH} tokens that are found, by size of the index"
        across = "size of the index, per cent of the source"
        options.svg.write_text(draw(title, across, "per cent found", lines, (0, 20, 40, 60, 80, 90, 100)), "utf-8")
    print(text_table(writer.rows))
    return 0


def gather(folders: Sequence[Path], place: Path, size: int, part_size: int) -> Corpus:
    """Link source files into folders of our own, package by package, the smaller packages first."""
    packages = sorted(
        (each for folder in folders for each in folder.iterdir() if each.is_dir()), key=lambda each: each.name
    )
    found = [(package, list(_sources(package))) for package in packages]
    found = [(package, files) for package, files in found if files]
    apart = [file for number, (_, files) in enumerate(found) if number % HELD_OUT == 0 for file in files]
    indexed = [each for number, each in enumerate(found) if number % HELD_OUT]
    indexed.sort(key=lambda each: sum(file.stat().st_size for file in each[1]))
    taken = part = 0
    for package, files in indexed:
        for file in files:
            length = file.stat().st_size
            if taken + length > size:
                continue
            for kind in ("all", "part") if part + length <= part_size else ("all",):
                there = place / kind / package.name / file.relative_to(package)
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, there)
                part += length * (kind == "part")
            taken += length
    return Corpus(place / "all", place / "part", apart, taken, part)


def _sources(package: Path) -> list[Path]:
    return [
        path
        for path in sorted(package.rglob("*"))
        if path.suffix in SUFFIXES
        and path.is_file()
        and not path.is_symlink()
        and 200 < path.stat().st_size <= MOST_BYTES
    ]


class Bench:
    """One run."""

    def __init__(self, run: Run, writer: RowWriter, target: Path, samples: int) -> None:
        self._run, self._writer, self._target, self._samples = run, writer, target, samples
        self._chance = random.Random(run.seed)

    def build(self, corpus: Corpus) -> Index:
        """Build in two processes, then again with nothing changed."""
        for question in ("attribution: build", "attribution: build, nothing changed"):
            began, cpu = time.perf_counter(), _cpu()
            build([corpus.folder], self._target, add=False, length=None, jobs=2, progress=lambda *_: None)
            seconds, wall = _cpu() - cpu, time.perf_counter() - began
            index = Index(self._target)
            self._row(
                question,
                seconds,
                "s of processor time",
                {
                    "corpus_mb": round(corpus.bytes / 1e6, 1),
                    "files": len(index),
                    "tokens": len(index.tokens),
                    "index_mb": round(index.bytes / 1e6, 1),
                    "processes": 2,
                    "wall_seconds": round(wall, 1),
                },
            )
        return index

    def looks_up(self, index: Index, corpus: Corpus) -> None:
        """Completions after 2,000 characters of what stands before them, of indexed files and of others."""
        indexed = self._texts([path for path in corpus.folder.rglob("*") if path.is_file()])
        for kind, texts in (("verbatim", indexed), ("other", self._texts(corpus.apart))):
            asked = [self._completion(texts) for _ in range(self._samples // 2)]
            for before, text in asked[:200]:
                passages.of_completion(index, before, text, LENGTH)
            seconds = sorted(_timed(lambda: passages.of_completion(index, *each, LENGTH)) for each in asked)  # noqa: B023
            self._row(
                "attribution: look-up",
                1e3 * median(seconds),
                "ms of processor time",
                {
                    "text": kind,
                    "p99": round(1e3 * seconds[len(seconds) * 99 // 100], 3),
                    "most": round(1e3 * seconds[-1], 3),
                    "tokens": COMPLETION,
                    "index_mb": round(index.bytes / 1e6, 1),
                },
                seconds,
            )

    def false_alarms(self, index: Index, corpus: Corpus) -> None:
        """Windows of packages that are not indexed: what is reported of them, and what of that is not there."""
        texts = self._texts(corpus.apart)
        sources: dict[Path, str] = {}
        reported = wrong = 0
        for _ in range(self._samples):
            words = self._words(texts, 2 * LENGTH)
            found = passages.of_completion(index, "", " ".join(words), LENGTH)
            reported += bool(found)
            for each in found[:1]:
                file = Path(each.source.file)
                if file not in sources:
                    sources[file] = "\0".join(TOKEN(file.read_text("utf-8", "replace")))
                wrong += "\0".join(words[each.begin : each.end]) not in sources[file]
        detail: Detail = {
            "reported": round(100 * reported / self._samples, 2),
            "tokens": 2 * LENGTH,
            "files": len(corpus.apart),
            "index_mb": round(index.bytes / 1e6, 1),
        }
        self._row("attribution: false alarms", 100 * wrong / self._samples, "% of windows", detail, n=self._samples)

    def finds(self, index: Index, corpus: Corpus) -> None:
        """Passages of the whole corpus in other white space."""
        texts = self._texts([path for path in corpus.folder.rglob("*") if path.is_file()])
        for length in PASSAGES[1:]:
            detail: Detail = {"corpus_mb": round(corpus.bytes / 1e6, 1), "gram": GRAM, "guaranteed": GUARANTEED}
            question = f"attribution: recall of {length} tokens, whole corpus"
            self._row(question, 100 * self._recall(index, texts, length), "% of passages", detail, n=self._samples // 5)

    def curve(self, corpus: Corpus) -> dict[str, list[Point]]:
        """Size and recall over grams and windows, on the smaller corpus -> the lines to draw."""
        texts = self._texts([path for path in corpus.part.rglob("*") if path.is_file()])
        wanted = {(GRAM, guarantee) for guarantee in GUARANTEES} | {
            (gram, guarantee) for gram in GRAMS for guarantee in (GUARANTEED, LENGTH, 85)
        }
        lines: dict[str, list[Point]] = {}
        for gram, guarantee in sorted(wanted):
            target = self._target.parent / f"{gram}-{guarantee}"
            build([corpus.part], target, add=False, length=guarantee, jobs=1, progress=lambda *_: None, gram=gram)
            index = Index(target)
            size = 100 * index.bytes / corpus.part_bytes
            recall = {length: round(100 * self._recall(index, texts, length), 2) for length in PASSAGES}
            detail: Detail = {
                "gram": gram,
                "guaranteed": guarantee,
                "index_percent": round(size, 1),
                "corpus_mb": round(corpus.part_bytes / 1e6, 1),
                **{f"of_{length}_tokens": share for length, share in recall.items()},
            }
            question = f"attribution: recall of {LENGTH} tokens"
            self._row(question, recall[LENGTH], "% of passages", detail, n=self._samples // 5)
            lines.setdefault(f"grams of {gram}", []).append((size, recall[LENGTH]))
        return {name: sorted(points) for name, points in lines.items()}

    def _recall(self, index: Index, texts: list[str], length: int) -> float:
        found = 0
        for _ in range(self._samples // 5):
            text = self._respaced(self._words(texts, length))
            found += bool(passages.of_completion(index, "", text, min(length, LENGTH)))
        return found / (self._samples // 5)

    def _texts(self, files: list[Path]) -> list[str]:
        """Some texts of these files, long enough, in an order of chance."""
        files = sorted(files)
        self._chance.shuffle(files)
        texts = (file.read_text("utf-8", "replace") for file in files[:800])
        return [text for text in texts if len(text) > 3_000]

    def _completion(self, texts: list[str]) -> tuple[str, str]:
        text = self._chance.choice(texts)
        at = self._chance.randrange(1_000, len(text) - 1_000)
        spans = list(SPANS(text[at : at + 1_000]))[:COMPLETION]
        return text[max(0, at - 2_000) : at], text[at : at + spans[-1].end()]

    def _words(self, texts: list[str], length: int) -> list[str]:
        while True:
            text = self._chance.choice(texts)
            at = self._chance.randrange(len(text))
            words = TOKEN(text[at : at + 40 * length])[1 : length + 1]  # the first may be cut
            if len(words) == length:
                return words

    def _respaced(self, words: list[str]) -> str:
        text = ""
        for word in words:
            apart = text[-1:].isalnum() or text[-1:] == "_" or self._chance.random() < 0.6
            text += (self._chance.choice(WHITE) if apart else "") + word
        return text

    def _row(
        self, question: str, value: float, unit: str, detail: Detail, seconds: Sequence[float] = (), n: int = 1
    ) -> None:
        ordered = [1e3 * each for each in seconds]
        self._writer.write(
            Row(
                question=question,
                model="none",
                dtype="none",
                measured=True,
                value=round(value, 4),
                unit=unit,
                detail=detail,
                n=len(ordered) or n,
                median=round(median(ordered), 4) if ordered else None,
                p10=round(ordered[len(ordered) // 10], 4) if ordered else None,
                p90=round(ordered[len(ordered) * 9 // 10], 4) if ordered else None,
                **self._run.shared(),
            )
        )


def _timed(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def _cpu() -> float:
    """Seconds of processor time of this process and of those that it has ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
