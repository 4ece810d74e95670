"""Patterns as in .gitignore, matched by pathspec; here are their bounds, so that no pattern can take long."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from math import comb

MAX_LINES = 4_000
"""Patterns of one ignore file at most."""

MAX_STEPS = 30_000_000
"""Steps that matching one path may take at worst: well under a second. Common ignore files need some thousands."""

_ANY_FOLDER = re.compile(r"(^|!|/)(\*\*?)/( *)$")


class TooCostly(Exception):
    """Patterns that are too many, or that could take too long at some path."""


class Patterns:
    """The patterns of one source, relative to one folder."""

    def __init__(self, lines: Iterable[str]) -> None:
        kept = [_explicit(line) for line in lines if line.strip() and not line.startswith("#")]
        if len(kept) > MAX_LINES:
            raise TooCostly
        self._patterns = _compiled(kept) if kept else []
        self._stars = Counter(map(_stars, kept))

    def __bool__(self) -> bool:
        return bool(self._stars)

    def says(self, path: str, *, folder: bool) -> bool | None:
        """Whether the last pattern that matches a path ignores it; None if none matches. A match of a folder above counts
        for that folder alone: whoever asks goes down from the top.
        """
        return next((ignores for regex, ignores in reversed(self._patterns) if _matches(regex, path, folder)), None)

    def steps(self, parts: Sequence[str]) -> int:
        """How many steps matching a path and the folders above it takes at worst, when every star tries every place."""
        depth = len(parts)
        total = 0
        for (double, single), count in self._stars.items():
            total += count * sum(comb(len(part), single) for part in parts) * int(depth**double)
        return depth * total


def lines_of(data: bytes) -> list[str]:
    """The lines of an ignore file as git takes them: nothing but `\\n` and `\\r\\n` ends one."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    return [line.removesuffix("\r") for line in text.split("\n")]


def expanded(glob: str) -> str:
    """A glob with `~/` as the home folder."""
    return os.path.expanduser(glob) if glob.startswith("~/") else glob  # noqa: PTH111 - a pattern, no path


def _matches(regex: re.Pattern[str], path: str, folder: bool) -> bool:
    match = regex.search(f"{path}/" if folder else path)
    if match is None:
        return False
    if match.groupdict().get("ps_d") is not None:  # as a folder, this one or one above
        return match.end() > len(path)
    return not folder or regex.search(path) is not None


def _explicit(line: str) -> str:
    """`*/` and `**/` at the end of a pattern as the same in other words: pathspec's short form loses which folder matched."""
    return _ANY_FOLDER.sub(lambda m: f"{m[1]}{'**/' if m[2] == '**' else ''}?*/{m[3]}", line)


def _stars(line: str) -> tuple[int, int]:
    """How many of a pattern's stars reach over folders, and how many stay within a name."""
    segments = line.split("/")
    double = segments.count("**")
    return min(double, 30), min(line.count("*") - 2 * double, 30)


def _compiled(lines: Sequence[str]) -> list[tuple[re.Pattern[str], bool]]:
    """Each pattern, and whether what it matches is ignored; what is no pattern is left out."""
    from pathspec import GitIgnoreSpec, RegexPattern  # 20 ms, for which no editor need wait

    try:
        patterns = list(GitIgnoreSpec.from_lines(lines).patterns)
    except ValueError:
        patterns = []
        for line in lines:
            with suppress(ValueError):
                patterns += GitIgnoreSpec.from_lines([line]).patterns
    return [
        (found.regex, found.include)
        for found in patterns
        if isinstance(found, RegexPattern) and found.regex is not None and found.include is not None
    ]
