"""The packed corpus: one xz file of JSON lines, self-contained.

Line 1 is the header (format, packages with their licences, figures, the tokenizer); every other line is one document.
Streams are compressed side by side and concatenated, which every xz reader accepts.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = "starfill-corpus 1"


@dataclass(frozen=True, slots=True)
class Source:
    """Where documents come from: one line of the licence table."""

    name: str
    registry: str
    version: str
    licence: str
    licence_source: str
    heldout: bool


@dataclass(frozen=True, slots=True)
class Document:
    """One file. `source` is an index into the header's packages."""

    source: int
    language: str
    path: str
    text: str


@dataclass(slots=True)
class Corpus:
    """All that a training run needs."""

    sources: list[Source]
    documents: list[Document]
    tokenizer: str
    """tokenizer.json."""

    figures: dict[str, Any] = field(default_factory=dict)

    def part(self, *, heldout: bool) -> list[Document]:
        """The documents of one side of the split."""
        return [d for d in self.documents if self.sources[d.source].heldout is heldout]


def write(corpus: Corpus, path: Path, *, streams: int = 2, preset: int = 9) -> int:
    """Write the file -> its size in bytes."""
    header = {
        "format": FORMAT,
        "packages": [asdict(source) for source in corpus.sources],
        "figures": corpus.figures,
        "tokenizer": json.loads(corpus.tokenizer),
    }
    lines = [json.dumps(header, ensure_ascii=False)]
    lines += [
        json.dumps({"p": d.source, "l": d.language, "f": d.path, "t": d.text}, ensure_ascii=False)
        for d in corpus.documents
    ]
    pieces = [("\n".join(part) + "\n").encode() for part in _split(lines, streams) if part]
    # Text has no alignment (pb), and packages resemble each other over a long distance (dict_size).
    filters = [{"id": lzma.FILTER_LZMA2, "preset": preset, "pb": 0} | ({"dict_size": 1 << 27} if preset == 9 else {})]
    with ThreadPoolExecutor(streams) as pool:
        packed = list(pool.map(lambda piece: lzma.compress(piece, filters=filters), pieces))
    path.write_bytes(b"".join(packed))
    return path.stat().st_size


def _split(lines: list[str], parts: int) -> Iterator[list[str]]:
    """Consecutive parts of about equal size."""
    total = sum(map(len, lines))
    part: list[str] = []
    size, limit = 0, total / parts
    for line in lines:
        part.append(line)
        size += len(line)
        if size >= limit:
            yield part
            part, size = [], 0
    yield part


def read(path: Path) -> Corpus:
    """Read a packed corpus; ValueError if it is not one."""
    with lzma.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        header = json.loads(next(lines))
        if header.get("format") != FORMAT:
            raise ValueError(f"{path}: not a {FORMAT} file")
        documents = []
        for line in lines:
            entry = json.loads(line)
            documents.append(Document(entry["p"], entry["l"], entry["f"], entry["t"]))
    return Corpus(
        [Source(**source) for source in header["packages"]],
        documents,
        json.dumps(header["tokenizer"]),
        header["figures"],
    )


def licence_table(sources: Sequence[Source]) -> str:
    """A Markdown table of what the corpus holds and under which terms."""
    rows = ["| package | version | registry | licence | read from | part |", "|---|---|---|---|---|---|"]
    rows += [
        f"| {s.name} | {s.version} | {s.registry} | {s.licence} | {s.licence_source} | "
        f"{'held out' if s.heldout else 'training'} |"
        for s in sorted(sources, key=lambda s: (s.registry, s.name.lower()))
    ]
    return "\n".join(rows)
