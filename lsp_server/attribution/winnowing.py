"""Fingerprints of a text: of every `window` k-grams in a row the one with the least hash is kept.

Winnowing, from Schleimer, Wilkerson and Aiken, "Winnowing: Local Algorithms for Document Fingerprinting" (SIGMOD 2003): every
passage of `window + k - 1` tokens holds a k-gram that was kept, wherever else it stands. Arrays of numpy, for building;
`tokens.grams` computes the same for the few tokens of a completion.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from lsp_server.attribution.tokens import FIRST, LAST, SECOND

Words: TypeAlias = "npt.NDArray[np.uint64]"
Numbers: TypeAlias = "npt.NDArray[np.uint32]"
Array: TypeAlias = "npt.NDArray[Any]"

_LOW: Final = np.uint64(0xFFFFFFFF)
_SPREAD: Final = np.uint64(0x9E3779B1)  # odd, so that a position can be told from its product modulo 2**32
_BACK: Final = np.uint64(pow(0x9E3779B1, -1, 2**32))


def grams(hashes: Words, length: int) -> Words:
    """A hash of each `length` tokens in a row: [tokens] -> [tokens - length + 1], uint64."""
    if len(hashes) < length:
        return hashes[:0]
    whole: Words | None = None
    size, width, level = 0, 1, hashes
    while True:
        if length & width:
            whole = level if whole is None else _joined(whole, level[size:])
            size += width
        if size == length:
            assert whole is not None  # noqa: S101 (a length of at least one has a binary digit)
            return whole
        level = _joined(level, level[width:])
        width *= 2


def winnow(values: Words, window: int) -> Numbers:
    """Which grams to keep: their places, ascending, one at least in each `window` in a row and in a text with fewer.

    Ties are broken by a shuffled place, so that of a text that repeats itself no more is kept than of any other. What decides
    is the low half of a hash: the other half, which is stored, stays evenly spread.
    """
    if not len(values):
        return np.zeros(0, np.uint32)
    places = np.arange(len(values), dtype=np.uint64)
    keys = ((values & _LOW) << np.uint64(32)) | ((places * _SPREAD) & _LOW)
    least = _sliding_min(keys, min(window, len(values)))
    kept = least[np.flatnonzero(np.concatenate(([True], least[1:] != least[:-1])))]
    return (((kept & _LOW) * _BACK) & _LOW).astype(np.uint32)


def _joined(left: Words, right: Words) -> Words:
    left = left[: len(right)]
    mixed = (left * np.uint64(FIRST)) ^ (right[: len(left)] * np.uint64(SECOND))
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(LAST)
    return mixed


def _sliding_min(values: Words, window: int) -> Words:
    width = 1
    while width * 2 <= window:
        values = np.minimum(values[:-width], values[width:])
        width *= 2
    rest = window - width
    return np.minimum(values[: len(values) - rest], values[rest:]) if rest else values
