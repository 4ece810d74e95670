"""Files that programs write: by their names, and by what their first lines say. Automatic requests leave them alone."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import unquote

NAMES = (
    # what package managers lock
    "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "bun.lock", "deno.lock", "cargo.lock",
    "poetry.lock", "uv.lock", "pdm.lock", "pipfile.lock", "composer.lock", "gemfile.lock", "mix.lock", "pubspec.lock",
    "podfile.lock", "flake.lock", "go.sum", "package.resolved",
    # minified, and its maps
    "*.min.js", "*.min.mjs", "*.min.css", "*.js.map", "*.css.map",
    # what compilers of interfaces write
    "*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*.pb.go", "*.pb.cc", "*.pb.h", "*.g.dart", "*.freezed.dart",
    "*.designer.cs", "*.g.cs",
)  # fmt: skip
"""Globs of file names, without regard to case."""

MARKED_LINES = 24
"""Lines from the top that may say that a file is generated; a licence may stand above."""

_LONGEST_LINE = 400
_NAME = re.compile("|".join(fnmatch.translate(name) for name in NAMES), re.IGNORECASE)
_COMMENT = re.compile(r"\s*(?:#|//|/\*|\*|--|;|%|<!--|\(\*|\{-|\"\"\"|''')")
_MARK = re.compile(r"@generated(?![\w(])|\bgenerated\b.*\bdo not (?:edit|modify|change)\b", re.IGNORECASE)


def is_generated(uri: str, lines: Sequence[str]) -> bool:
    """Whether a program writes the document at `uri`, which begins with these lines."""
    return _by_name(uri) or any(
        _COMMENT.match(line) and _MARK.search(line, 0, _LONGEST_LINE) for line in lines[:MARKED_LINES]
    )


@lru_cache(maxsize=64)
def _by_name(uri: str) -> bool:
    return _NAME.match(unquote(uri.rpartition("/")[2])) is not None
