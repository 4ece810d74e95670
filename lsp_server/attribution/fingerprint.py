"""Reads a file and makes of it what an index keeps. Runs in processes of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np

from engine import licences
from lsp_server.attribution import winnowing
from lsp_server.attribution.corpus import MOST_BYTES
from lsp_server.attribution.layout import packed_lines
from lsp_server.attribution.tokens import TOKEN, Hashes
from lsp_server.attribution.winnowing import Numbers, Words
from lsp_server.privacy.small_files import TooLarge, read_bounded

HEAD: Final = 4_096
"""Characters in which a file's SPDX identifier stands, and bytes that tell whether it is text."""

_HASHES = Hashes()


@dataclass(frozen=True, slots=True)
class Fingerprinted:
    """A file as it is kept. One that is not text has no tokens, so that it need not be read again."""

    digest: str
    spdx: str
    tokens: bytes
    lines: bytes
    places: Numbers
    """Token at which each fingerprint's gram begins, within the file."""
    values: Words


def of_files(paths: Sequence[str], gram: int, window: int, known: Sequence[str]) -> list[Fingerprinted | str | None]:
    """Each file as it is kept; its digest alone where that is the known one, None if it cannot be read."""
    return [_of_file(path, gram, window, digest) for path, digest in zip(paths, known, strict=True)]


def of_text(data: bytes, gram: int, window: int) -> Fingerprinted:
    """What an index keeps of a file with these bytes."""
    digest = _digest(data)
    if b"\0" in data[:HEAD]:
        return Fingerprinted(digest, "", b"", b"", np.zeros(0, np.uint32), np.zeros(0, np.uint64))
    text = data.decode("utf-8", "replace")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    tokens: list[str] = []
    counts: list[int] = []
    for line in text.split("\n"):
        found = TOKEN(line)
        tokens += found
        counts.append(len(found))
    hashes = np.fromiter(map(_HASHES.__getitem__, tokens), np.uint64, len(tokens))
    values = winnowing.grams(hashes, gram)
    places = winnowing.winnow(values, window)
    sketch = (hashes >> np.uint64(56)).astype(np.uint8).tobytes()
    return Fingerprinted(digest, licences.of_head(text[:HEAD]), sketch, packed_lines(counts), places, values[places])


def leave_interrupts_to_the_parent() -> None:
    """In a process of a pool: its parent ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)


def _of_file(path: str, gram: int, window: int, known: str) -> Fingerprinted | str | None:
    try:
        data = read_bounded(Path(path), MOST_BYTES, follow=False)
    except (OSError, TooLarge):
        return None
    return known if known and _digest(data) == known else of_text(data, gram, window)


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
