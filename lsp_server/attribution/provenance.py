"""Where an indexed file comes from: the package or repository that it belongs to, and its licence.

A file speaks for itself with an SPDX identifier. Else the nearest folder above it speaks that says something: what its
package's metadata declares, the text of its licence, or what the metadata says in passing, in this order.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine import licences
from lsp_server.privacy.small_files import TooLarge, read_bounded
from lsp_server.rules.languages import by_path

UNKNOWN = "unknown"
"""The licence of a file about which nothing was found."""

_MOST_BYTES = 2**20
_MOST_RECORD_BYTES = 64 * 2**20
_MOST_TOML_BYTES = 256 * 2**10
_MOST_TEXTS = 8  # licence texts of one folder that are read
_LICENCE_FILE = re.compile(r"(?i)(licen[cs]es?|copying|unlicense)(\W.*)?")
_PROSE = frozenset({"plaintext", "markdown", "restructuredtext", "html"})  # a program may be called licences.py
_DIST_INFO = ".dist-info"
_INSTALLED_IN = frozenset({"site-packages", "dist-packages"})
_REMOTE = re.compile(
    r'\[remote "origin"\][^\[]*?^[ \t]*url[ \t]*=[ \t]*(?:[a-z+]+://)?(?:[^@/\s]*@)?([^\s]+)', re.M | re.S
)
# A key of more parts than any project's; tomllib's time goes with their square.
_LONG_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]+|"(?:[^"\\\n]|\\.){0,80}"|'[^'\n]{0,80}')[ \t]*\.[ \t]*){24}""")
_MODULE = re.compile(r"^module\s+(\S+)", re.M)


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a folder says about the files in it."""

    package: str = ""
    licence: str = ""
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Package and licence of single files, by their whole path, where packages share a folder."""

    def of(self, file: str) -> tuple[str, str]:
        """Package and licence of a file, by its whole path."""
        return self.files.get(file) or (self.package, self.licence or UNKNOWN)


@dataclass(frozen=True, slots=True)
class _Said:
    """What one file of metadata says. `declared`: the licence as an expression; `hinted`: in passing."""

    package: str = ""
    declared: str = ""
    hinted: str = ""


def within(folder: Path, files: Iterable[str], folders: Iterable[str], outer: Provenance) -> Provenance:
    """What holds in a folder with these files and folders, in which `outer` held around it."""
    names, found = sorted(files), outer
    if ".git" in folders or ".git" in names:
        found = Provenance(_repository(folder), "", outer.files)
    said = [read(folder / name) for name, read in _METADATA.items() if name in names]
    texts = licence_texts(folder, names)
    package = next((each.package for each in said if each.package), "" if found.files else found.package)
    licence = (
        next((each.declared for each in said if each.declared), "")
        or texts
        or next((each.hinted for each in said if each.hinted), "")
        or found.licence
    )
    if licence != found.licence and found.files:  # a part with a licence of its own, in somebody's package
        owners = (found.files.get(f"{folder}/{name}") for name in names)
        package = package or next((owner[0] for owner in owners if owner), found.package)
        found = Provenance()
    found = replace(found, package=package or found.package, licence=licence)
    installed = sorted(name for name in folders if name.endswith(_DIST_INFO))
    if installed:
        owned: dict[str, tuple[str, str]] = {}
        for name in installed:
            _read_installed(folder / name, owned)
        found = replace(found, files=owned)
    return found


def above(root: Path) -> Provenance:
    """What the folders above a root say, up to its repository's or to the one that it is installed in."""
    around = list(root.parents)
    top = next((at for at, folder in enumerate(around) if _ends_here(folder)), -1)
    found = Provenance(root.name)
    if _ends_here(root):
        return found
    for folder in reversed(around[: top + 1]):
        try:
            entries = _scan(folder)
        except OSError:
            continue
        folders = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        files = [entry.name for entry in entries if entry.name not in folders]
        found = within(folder, files, folders, found)
    return found


def _ends_here(folder: Path) -> bool:
    return folder.name in _INSTALLED_IN or (folder / ".git").exists()


def licence_texts(folder: Path, names: Iterable[str]) -> str:
    """The licences whose texts lie in a folder: all of them, since nothing says that one may choose."""
    found: dict[str, None] = {}
    for name in [name for name in names if _LICENCE_FILE.fullmatch(name) and by_path(name).id in _PROSE][:_MOST_TEXTS]:
        if known := licences.of_text(_text(folder / name)):
            found[known] = None
    return " AND ".join(found)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _text(path: Path, most: int = _MOST_BYTES) -> str:
    """A file's text; nothing if it cannot be had."""
    try:
        return read_bounded(path, most, follow=False).decode("utf-8", "replace")
    except (OSError, TooLarge):
        return ""


def _repository(folder: Path) -> str:
    """A repository by where it was cloned from, without anybody's name or password; else by its folder."""
    match = _REMOTE.search(_text(folder / ".git" / "config"))
    return match[1].removesuffix("/").removesuffix(".git") if match else folder.name


def _read_installed(folder: Path, owned: dict[str, tuple[str, str]]) -> None:
    """Add the files of an installed Python distribution."""
    said = _core_metadata(folder / "METADATA")
    texts = ""
    for place in (folder, folder / "licenses"):
        if not texts and place.is_dir():
            texts = licence_texts(place, sorted(entry.name for entry in _scan(place)))
    meant = said.package, said.declared or texts or said.hinted or UNKNOWN
    for line in _text(folder / "RECORD", _MOST_RECORD_BYTES).splitlines():
        path = line.rsplit(",", 2)[0].strip('"')
        if path and not path.startswith(("..", "/")):
            owned[f"{folder.parent}/{path}"] = meant


def _core_metadata(path: Path) -> _Said:
    text = _text(path)
    name = re.search(r"^Name: *(\S+)", text, re.M)
    licence = licences.from_python_metadata(text)
    package = name[1] if name else ""
    if licence.source == "License-Expression":
        return _Said(package, licence.expression)
    return _Said(package, "", licence.expression)


def _package_json(path: Path) -> _Said:
    try:
        text = _text(path)
        name, licence = json.loads(text).get("name"), licences.from_package_json(text)
    except (ValueError, AttributeError, RecursionError):
        return _Said()
    return _Said(name if isinstance(name, str) else "", licence.expression)


def _pyproject(path: Path) -> _Said:
    return _project(_toml(path).get("project"))


def _cargo(path: Path) -> _Said:
    return _project(_toml(path).get("package"))


def _project(table: Any) -> _Said:
    if not isinstance(table, dict):
        return _Said()
    name, licence = table.get("name"), table.get("license")
    package = name if isinstance(name, str) else ""
    if isinstance(licence, str):
        return _Said(package, licence)
    text = licence.get("text") if isinstance(licence, dict) else None
    return _Said(package, "", licences.name_of(text) if isinstance(text, str) else "")


def _toml(path: Path) -> dict[str, Any]:
    text = _text(path, _MOST_TOML_BYTES)
    if _LONG_KEY.search(text):
        return {}
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}


def _go_mod(path: Path) -> _Said:
    match = _MODULE.search(_text(path))
    return _Said(match[1] if match else "")


_METADATA = {
    "pyproject.toml": _pyproject,
    "package.json": _package_json,
    "Cargo.toml": _cargo,
    "PKG-INFO": _core_metadata,
    "go.mod": _go_mod,
}
