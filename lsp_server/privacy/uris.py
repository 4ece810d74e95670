"""Where a document is, from its URI alone."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes, urlsplit

MAX_URI = 8_192
"""Characters of a URI that is looked at."""

_HERE = frozenset({"file", "vscode-notebook-cell", "untitled"})  # the last with a path is a file that is yet to be made
_LOCAL_HOSTS = frozenset({"", "localhost"})


@dataclass(frozen=True, slots=True)
class Place:
    """A document's place. `path` is absolute and without `..` where the URI has one, else a bare name."""

    path: str
    local: bool
    """Whether `path` is one of this machine's file system."""
    names: frozenset[str]
    """What the file may be called: editors differ in whether they encode `#` and `?`."""


@lru_cache(maxsize=256)
def place_of(uri: str) -> Place | None:
    """The place that a URI names: of a notebook for its cells, of a name for what was never saved. None if it is no URI."""
    if len(uri) > MAX_URI:
        return None
    try:
        parts = urlsplit(uri)
        host = parts.netloc.lower()
    except ValueError:
        return None
    path = _decoded(parts.path)
    whole = _decoded(uri.split(":", 1)[-1])
    if "\0" in path or "\0" in whole:
        return None
    names = frozenset(name for name in (posixpath.basename(path.rstrip("/")), posixpath.basename(whole)) if name)
    return Place(path, parts.scheme in _HERE and host in _LOCAL_HOSTS and path.startswith("/"), names)


def local_path(uri: str) -> str | None:
    """The path of a folder on this machine; None if the URI names something else."""
    place = place_of(uri)
    return place.path if place is not None and place.local else None


def _decoded(path: str) -> str:
    decoded = os.fsdecode(unquote_to_bytes(path.encode("utf-8", "surrogatepass")))
    if not decoded:
        return ""
    normal = posixpath.normpath(decoded)
    return "/" + normal.lstrip("/") if normal.startswith("/") else normal
