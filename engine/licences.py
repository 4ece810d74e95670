"""What a package or a file says of its licence, and whether that is permissive. Pure.

SPDX expressions are judged term by term: `OR` needs one permissive side, `AND` needs both. What cannot be read is refused.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PERMISSIVE = frozenset(
    [
        "mit",
        "mit-0",
        "mit-cmu",
        "x11",
        "isc",
        "0bsd",
        "bsd",
        "bsd-1-clause",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-2-clause-views",
        "apache-2.0",
        "psf-2.0",
        "python-2.0",
        "python-2.0.1",
        "cnri-python",
        "zlib",
        "libpng",
        "unlicense",
        "cc0-1.0",
        "bsl-1.0",
        "curl",
        "hpnd",
        "ncsa",
        "postgresql",
        "blueoak-1.0.0",
        "public-domain",
        "blessing",
        "unicode-3.0",
        "unicode-dfs-2016",
        "ms-pl",
        "wtfpl",
        "zpl-2.1",
        "mit-modern-variant",
        "fsfap",
        "expat",
        "bsd-3-clause-lbnl",
        "ssh-openssh",
    ]
)

# Free text and trove classifiers, first match wins; what stands above is narrower than what stands below.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"affero|\bagpl", "AGPL-3.0"),
    (r"(?:lesser|library) general public[^\n]*\bv(?:ersion )?3|\blgpl[ -]?v?3", "LGPL-3.0"),
    (r"lesser general|library general|\blgpl", "LGPL-2.1"),
    (r"general public[^\n]*\bv(?:ersion )?3|\bgpl[ -]?v?3", "GPL-3.0"),
    (r"general public|\bgpl", "GPL-2.0"),
    (r"\bmozilla public|\bmpl\b", "MPL-2.0"),
    (r"\beclipse public|\bepl\b", "EPL-2.0"),
    (r"apache", "Apache-2.0"),
    (r"python software foundation|\bpsf", "PSF-2.0"),
    (r"mit-cmu|historical permission|hpnd", "HPND"),
    (r"boost software|bsl-1", "BSL-1.0"),
    (r"bsd[ -]?3|3-clause|\bnew bsd|modified bsd|redistribution and use in source", "BSD-3-Clause"),
    (r"bsd[ -]?2|2-clause|simplified bsd", "BSD-2-Clause"),
    (r"\bbsd", "BSD"),
    (r"\bisc\b", "ISC"),
    (r"\bmit\b|expat|permission is hereby granted, free of charge", "MIT"),
    (r"zlib", "Zlib"),
    (r"unlicense", "Unlicense"),
    (r"cc0|public domain|public-domain", "public-domain"),
    (r"\bcurl\b", "curl"),
)

# Texts of licences, by a phrase that others have not; the one that comes first in a text gives it its name.
_TEXTS: tuple[tuple[str, str], ...] = (
    (r"GNU AFFERO GENERAL PUBLIC LICENSE\s+Version 3", "AGPL-3.0"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3", "LGPL-3.0"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 2\.1", "LGPL-2.1"),
    (r"GNU LIBRARY GENERAL PUBLIC LICENSE\s+Version 2", "LGPL-2.0"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 3", "GPL-3.0"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 2", "GPL-2.0"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 1", "GPL-1.0"),
    (r"Apache License,?\s+Version 2\.0", "Apache-2.0"),
    (r"Mozilla Public License,?\s+v(?:ersion |\. ?)2\.0", "MPL-2.0"),
    (r"Mozilla Public License,?\s+v(?:ersion |\. ?)1\.1", "MPL-1.1"),
    (r"Eclipse Public License\s+-\s+v ?2\.0", "EPL-2.0"),
    (r"Eclipse Public License\s+-\s+v ?1\.0", "EPL-1.0"),
    (r"PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2", "PSF-2.0"),
    (r"Boost Software License\s+-\s+Version 1\.0", "BSL-1.0"),
    (r"Business Source License 1\.1", "BUSL-1.1"),
    (r"Server Side Public License", "SSPL-1.0"),
    (r"BigCode Open ?RAIL-M", "BigCode-OpenRAIL-M"),
    (r"This is free and unencumbered software released into the public domain", "Unlicense"),
    (r"CC0 1\.0 Universal", "CC0-1.0"),
    (r"Attribution-ShareAlike 4\.0 International", "CC-BY-SA-4.0"),
    (r"Attribution-NonCommercial 4\.0 International", "CC-BY-NC-4.0"),
    (r"Attribution 4\.0 International", "CC-BY-4.0"),
    (r"DO WHAT THE FUCK YOU WANT TO PUBLIC LICENSE", "WTFPL"),
    (r"Permission is hereby granted, free of charge, to any person or organization", "BSL-1.0"),
    (r"Permission is hereby granted, free of charge, to any person obtaining", "MIT"),
    (r"Permission to use, copy, modify,? and(?:/or)? distribute this software for any\s+purpose", "ISC"),
    (r"This software is provided ['‘]as-is['’], without any express or implied", "Zlib"),
    (r"Redistribution and use in source and binary forms", "BSD"),
)
_BSD_3 = re.compile(
    r"Neither the names? |may not be used to endorse or promote|names? of (?:its|the) contributors", re.I
)
_TEXT_BYTES = 64 * 1024

_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+() \t-]{1,200})")

_COPYLEFT_NOTICE = re.compile(
    r"GNU (?:Lesser |Library |Affero )?General Public License|\b[AL]?GPL-[23]|Mozilla Public License|"
    r"SPDX-License-Identifier:[^\n]*\b(?:[AL]?GPL|MPL|EPL|CDDL|CC-BY-NC|CC-BY-SA|SSPL|BUSL)",
    re.IGNORECASE,
)
_PROPRIETARY_NOTICE = re.compile(
    r"all rights reserved\.?\s+(?:proprietary|confidential)|proprietary and confidential", re.I
)


@dataclass(frozen=True, slots=True)
class Licence:
    """What a package says of itself, and where it says so."""

    expression: str
    source: str

    @property
    def allowed(self) -> bool:
        """Whether the corpus may hold it."""
        return permissive(self.expression)


def permissive(expression: str) -> bool:
    """Whether an SPDX expression (or a Debian short name) can be met by permissive terms alone."""
    # Debian writes `MIT and/or BSD`, commas, and `and` in lower case.
    words = re.sub(r"\band/or\b", "AND", expression).replace(",", " ").replace("(", " ( ").replace(")", " ) ").split()
    if not words:
        return False
    position = 0

    def either() -> bool:
        nonlocal position
        verdict = both()
        while position < len(words) and words[position].upper() == "OR":
            position += 1
            verdict = both() or verdict
        return verdict

    def both() -> bool:
        nonlocal position
        verdict = term()
        while position < len(words) and words[position].upper() == "AND":
            position += 1
            verdict = term() and verdict
        return verdict

    def term() -> bool:
        nonlocal position
        if position >= len(words):
            return False
        word = words[position]
        position += 1
        if word == "(":
            verdict = either()
            position += 1
            return verdict
        verdict = word.lower().rstrip("+") in PERMISSIVE
        if position < len(words) and words[position].upper() == "WITH":
            position += 2
        return verdict

    verdict = either()
    return verdict and position >= len(words)


def name_of(text: str) -> str:
    """The SPDX name that free text most likely means, or the text itself, shortened."""
    known = " ".join(text.split())
    if known and len(known) < 120 and permissive(known):
        return known
    for pattern, name in _NAMES:
        if re.search(pattern, text, re.IGNORECASE):
            return name
    return known[:60]


def of_text(text: str) -> str:
    """The SPDX name of a licence by its text; the empty string for one that is not known."""
    text = " ".join(text[:_TEXT_BYTES].split())
    found = [(match.start(), name) for pattern, name in _TEXTS if (match := re.search(pattern, text, re.IGNORECASE))]
    if not found:
        return ""
    name = min(found)[1]
    if name == "BSD":
        return "BSD-3-Clause" if _BSD_3.search(text) else "BSD-2-Clause"
    return "0BSD" if name == "ISC" and "provided that the above copyright" not in text else name


def of_head(head: str) -> str:
    """The SPDX expression that the first lines of a file name; the empty string if there is none."""
    match = _SPDX.search(head)
    # What closes a comment does not belong to it.
    return re.sub(r"\s+", " ", match[1]).rstrip(" -") if match else ""


def from_python_metadata(metadata: str) -> Licence:
    """Core metadata of a wheel: `License-Expression`, else the classifiers, else `License`."""
    head = metadata.split("\n\n", 1)[0]
    expression = re.search(r"^License-Expression: (.+)$", head, re.MULTILINE)
    if expression:
        return Licence(expression[1].strip(), "License-Expression")
    trove = re.findall(r"^Classifier: License :: (.+)$", head, re.MULTILINE)
    names = sorted({name_of(line) for line in trove if line.strip() != "OSI Approved"})
    if names:
        return Licence(" AND ".join(names), "classifier")
    free = re.search(r"^License: (.+)$", head, re.MULTILINE)
    return Licence(name_of(free[1]) if free else "", "License")


def from_package_json(text: str) -> Licence:
    """`license` (or the old `licenses`) of an npm package."""
    entry = json.loads(text)
    value = entry.get("license") or entry.get("licenses") or ""
    if isinstance(value, Mapping):
        value = value.get("type", "")
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = " OR ".join(str(item.get("type", "") if isinstance(item, Mapping) else item) for item in value)
    return Licence(str(value).strip(), "package.json")


@dataclass(frozen=True, slots=True)
class DebianCopyright:
    """`debian/copyright` in its machine-readable form: the last stanza whose pattern matches a path speaks for it."""

    stanzas: tuple[tuple[tuple[str, ...], str], ...]

    def of(self, path: str) -> str:
        """The licence of one file; the empty string where nothing matches."""
        found = ""
        for globs, licence in self.stanzas:
            if any(fnmatch.fnmatchcase(path, glob) for glob in globs):
                found = licence
        return found

    @property
    def whole(self) -> Licence:
        """The licence of `Files: *`, or of the first stanza where none speaks for everything."""
        named = [licence for globs, licence in self.stanzas if "*" in globs] or [licence for _, licence in self.stanzas]
        return Licence(named[0] if named else "", "debian/copyright")


def from_debian_copyright(text: str) -> DebianCopyright:
    """Read the `Files` stanzas; a file in the old free form gives none, so that the package is refused.

    A short name that only this file knows (`Go`) is told from the text that the file gives for it.
    """
    stanzas = []
    blocks = re.split(r"\n\s*\n", text)
    own = {}
    for block in blocks:
        alone = re.match(r"License:[ \t]*(\S[^\n]*)\n((?:[ \t].*\n?)+)", block)
        if alone:
            own[alone[1].strip().lower()] = alone[2]
    for block in blocks:
        files = re.search(r"^Files:((?:.*)(?:\n[ \t]+.*)*)", block, re.MULTILINE)
        licence = re.search(r"^License:[ \t]*(\S.*)$", block, re.MULTILINE)
        if files and licence:
            stanzas.append((tuple(files[1].split()), _debian_name(licence[1], own)))
    return DebianCopyright(tuple(stanzas))


def _debian_name(short: str, texts: Mapping[str, str]) -> str:
    name = re.sub(r"~[\w.-]+", "", short.strip())
    if permissive(name):
        return name
    given = texts.get(short.strip().lower())
    return name_of(" ".join(given.split())) if given and not _COPYLEFT_NOTICE.search(given) else name


def refuses(head: str) -> bool:
    """Whether the first lines of a file carry a notice that keeps it out, whatever its package says."""
    return bool(_COPYLEFT_NOTICE.search(head) or _PROPRIETARY_NOTICE.search(head))
