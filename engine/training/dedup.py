"""Near-duplicates: MinHash over shingles of lines, banded (Broder 1997; Lee et al. 2022), and copies across the split."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

PERMUTATIONS, BANDS = 64, 16
SIMILAR = 0.7
"""Estimated Jaccard similarity from which a file is a near-duplicate of an earlier one."""

COPIED = 0.15
"""Share of a held-out file's shingles found in the training part from which it is dropped."""

_SHINGLE = 3  # lines
_MIN_LINE = 4  # characters without blanks; shorter lines are closers and say nothing

_rng = np.random.default_rng(20_210_706)
_MULTIPLY = _rng.integers(1, 2**63, PERMUTATIONS, dtype=np.uint64) | np.uint64(1)
_ADD = _rng.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64)


def shingles(text: str) -> Hashes:
    """Sorted distinct hashes of each run of three lines that say something, blanks aside."""
    lines = [
        zlib.crc32(line.encode("utf-8", "replace"))
        for line in ("".join(raw.split()) for raw in text.split("\n"))
        if len(line) >= _MIN_LINE
    ]
    if not lines:
        return np.zeros(0, np.uint64)
    values = np.asarray(lines, np.uint64)
    with np.errstate(over="ignore"):
        values = values * np.uint64(0x9E3779B97F4A7C15)
        mixed = values.copy()
        for back in range(1, min(_SHINGLE, len(values))):
            mixed = mixed[:-1] * np.uint64(0xBF58476D1CE4E5B9) + values[back:]
        mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed)


def signature(hashes: Hashes) -> Hashes:
    """MinHash signature [PERMUTATIONS] of a set of shingles."""
    if not len(hashes):
        return np.full(PERMUTATIONS, np.iinfo(np.uint64).max, np.uint64)
    with np.errstate(over="ignore"):
        table = (hashes[:4_096, None] * _MULTIPLY + _ADD) >> np.uint64(8)
    smallest: Hashes = table.min(axis=0)
    return smallest


class NearDuplicates:
    """Remembers the files seen so far; the first of a family stays, later ones are told off."""

    def __init__(self) -> None:
        self._bands: list[dict[bytes, int]] = [{} for _ in range(BANDS)]
        self._signatures: list[Hashes] = []

    def seen(self, candidate: Hashes) -> bool:
        """Whether a file with this signature resembles an earlier one; if not, remember it."""
        rows = candidate.reshape(BANDS, -1)
        keys = [row.tobytes() for row in rows]
        for known in {band[key] for band, key in zip(self._bands, keys, strict=True) if key in band}:
            if float((self._signatures[known] == candidate).mean()) >= SIMILAR:
                return True
        self._signatures.append(candidate)
        for band, key in zip(self._bands, keys, strict=True):
            band.setdefault(key, len(self._signatures) - 1)
        return False


class Copies:
    """Tells how much of a file stands in a given body of text."""

    def __init__(self, body: Iterable[Hashes]) -> None:
        parts = list(body)
        self._known = np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.uint64)

    def share(self, hashes: Hashes) -> float:
        """Share of the shingles that the body also has, from 0 to 1."""
        if not len(hashes) or not len(self._known):
            return 0.0
        at = np.searchsorted(self._known, hashes)
        at[at == len(self._known)] = 0
        return float((self._known[at] == hashes).mean())
