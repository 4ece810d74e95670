"""Code as lexical tokens that know no language and no white space, and their hashes. Pure.

A token is a word (letters, digits, underscores) or one other sign. So `a+=1` and `a += 1` are the same four tokens, and
so is any text that was indented, wrapped or aligned anew. Comments and strings count like everything else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Final

TOKEN: Final[Callable[[str], list[str]]] = re.compile(r"\w+|[^\w\s]").findall
SPANS: Final = re.compile(r"\w+|[^\w\s]").finditer

MASK: Final = 2**64 - 1
_REMEMBERED = 1 << 18  # hashes of tokens seen before; a token in a thousand is new

FIRST, SECOND, LAST = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93
"""Odd numbers with no pattern: multiplying by them loses nothing."""


class Hashes(dict[str, int]):
    """64 bits for each token, the same in every process; forgets all when it has grown too large."""

    def __missing__(self, token: str) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        digest = blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        found = self[token] = int.from_bytes(digest, "little")
        return found


def sketch(hashes: Iterable[int]) -> bytes:
    """A byte of each token: enough to tell, side by side, how far two texts agree."""
    return bytes(value >> 56 for value in hashes)


def grams(hashes: list[int], length: int) -> list[int]:
    """A hash of each `length` tokens in a row, made of those of halves: as many steps as `length` has binary digits.

    `winnowing.grams` computes the same for arrays.
    """
    whole: list[int] | None = None
    size, width, level = 0, 1, hashes
    while True:
        if length & width:
            whole = level if whole is None else _joined(whole, level[size:])
            size += width
        if size == length:
            return [] if whole is None else whole
        level = _joined(level, level[width:])
        width *= 2


def _joined(left: list[int], right: list[int]) -> list[int]:
    mixed = [(a * FIRST ^ b * SECOND) & MASK for a, b in zip(left, right, strict=False)]
    return [((value ^ (value >> 31)) * LAST) & MASK for value in mixed]
