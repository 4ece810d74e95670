"""Whose a file is and under which licence: the file itself, then the nearest folder that says something."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path

import pytest

from engine import licences
from lsp_server.attribution.corpus import files_of, roots_of
from tests.harness.corpora import build_index, program, write

MIT = "MIT License\n\nCopyright (c) 2020 A\n\nPermission is hereby granted, free of charge, to any person obtaining a copy"
BSD = "Redistribution and use in source and binary forms, with or without\nmodification, are permitted"
BSD_3 = f"{BSD}\n3. Neither the name of the copyright holder nor the names of its"
GPL = "                    GNU GENERAL PUBLIC LICENSE\n                       Version 3, 29 June 2007\n"
APACHE = "                                 Apache License\n                           Version 2.0, January 2004\n"


def said(root: Path) -> dict[str, tuple[str, str]]:
    return {found.path: (found.package, found.licence) for found in files_of(roots_of([root]))}


def test_the_nearest_folder_that_says_something_speaks(tmp_path: Path) -> None:
    root = write(
        tmp_path / "work",
        {
            "a.py": "a", "LICENSE": MIT, "sub/b.py": "b", "sub/deep/COPYING.txt": GPL, "sub/deep/c.py": "c",
            "sub/deep/er/d.py": "d", "two/LICENSE-MIT": MIT, "two/LICENSE-APACHE": APACHE, "two/e.py": "e",
            "odd/LICENCE": "ask me", "odd/f.py": "f", "odd/licences.py": APACHE,
        },
    )  # fmt: skip
    found = said(root)
    assert found["a.py"] == found["sub/b.py"] == ("work", "MIT")
    assert found["sub/deep/c.py"] == found["sub/deep/er/d.py"] == ("work", "GPL-3.0")
    assert found["two/e.py"] == ("work", "Apache-2.0 AND MIT")
    assert found["odd/f.py"] == ("work", "MIT")  # a text that is not known says nothing, and a program is no text


def test_metadata_of_packages(tmp_path: Path) -> None:
    root = write(
        tmp_path / "work",
        {
            "js/package.json": json.dumps({"name": "@a/b", "license": "(MIT OR Apache-2.0)"}), "js/i.js": "i",
            "py/pyproject.toml": '[project]\nname = "pear"\nlicense = "BSD-3-Clause"\n', "py/LICENSE": GPL, "py/m.py": "m",
            "old/pyproject.toml": '[project]\nname = "plum"\nlicense = {text = "GPLv3"}\n', "old/m.py": "m",
            "rs/Cargo.toml": '[package]\nname = "crab"\nlicense = "MIT"\n', "rs/src/lib.rs": "l",
            "go/go.mod": "module example.org/gopher\n\ngo 1.22\n", "go/m.go": "m",
            "egg/PKG-INFO": "Name: egg\nClassifier: License :: OSI Approved :: BSD License\n", "egg/LICENSE": BSD_3,
            "egg/m.py": "",
            "bad/package.json": "[1, 2", "bad/pyproject.toml": "= no", "bad/x.js": "x", "egg/n.py": "n",
        },
    )  # fmt: skip
    found = said(root)
    assert found["js/i.js"] == ("@a/b", "(MIT OR Apache-2.0)")
    assert found["py/m.py"] == ("pear", "BSD-3-Clause")  # declared, whatever lies beside it
    assert found["old/m.py"] == ("plum", "GPL-3.0")
    assert found["rs/src/lib.rs"] == ("crab", "MIT")
    assert found["go/m.go"] == ("example.org/gopher", "unknown")
    assert found["egg/n.py"] == ("egg", "BSD-3-Clause")  # the text is more exact than a classifier
    assert found["bad/x.js"] == ("work", "unknown")
    assert "egg/m.py" not in found  # empty


def test_installed_packages_that_share_a_folder(tmp_path: Path) -> None:
    root = write(
        tmp_path / "site-packages",
        {
            "one.py": "1", "two/a.py": "2", "two/_vendor/LICENSE": APACHE, "two/_vendor/v.py": "v", "loose.py": "l",
            "one-1.0.dist-info/METADATA": "Name: one\nLicense-Expression: MIT\n\nText",
            "one-1.0.dist-info/RECORD": "one.py,sha256=x,1\none-1.0.dist-info/METADATA,,\n../../bin/one,,\n",
            "two-2.dist-info/METADATA": "Name: two\nClassifier: License :: OSI Approved :: BSD License\n",
            "two-2.dist-info/RECORD": "two/a.py,,\ntwo/_vendor/v.py,,\ntwo/_vendor/LICENSE,,\n",
            "two-2.dist-info/licenses/LICENSE": BSD,
        },
    )  # fmt: skip
    found = said(root)
    assert found["one.py"] == ("one", "MIT")
    assert found["two/a.py"] == ("two", "BSD-2-Clause")
    assert found["two/_vendor/v.py"] == ("two", "Apache-2.0")
    assert found["loose.py"] == ("site-packages", "unknown")
    assert said(root / "two")["a.py"] == ("two", "BSD-2-Clause")  # a root inside of it


def test_repositories(tmp_path: Path) -> None:
    config = '[core]\n\tbare = false\n[remote "origin"]\n\turl = https://me:secret@code.example/team/tool.git\n'
    root = write(
        tmp_path / "clone",
        {".git/config": config, "LICENSE": MIT, "src/a.py": "a", "mod/.git": "gitdir: ../x\n", "mod/b.py": "b"},
    )
    assert said(root)["src/a.py"] == ("code.example/team/tool", "MIT")
    assert said(root)["mod/b.py"] == ("mod", "unknown")  # another repository
    assert said(root / "src")["a.py"] == ("code.example/team/tool", "MIT")
    write(root, {".git/config": "[core]\n"})
    assert said(root)["src/a.py"] == ("clone", "MIT")


def test_a_file_speaks_for_itself(tmp_path: Path) -> None:
    head = "/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */\n"
    root = write(tmp_path / "work", {"LICENSE": MIT, "a.c": head + program(1, 60), "b.c": program(2, 60)})
    target = tmp_path / "home" / "index"
    for _ in range(2):  # and again where it is not read anew
        index, _done = build_index(target, root)
        named = {index.source(number).path: index.source(number).licence for number in range(len(index))}
        assert (named["a.c"], named["b.c"]) == ("GPL-2.0-only WITH Linux-syscall-note", "MIT")
    (root / "LICENSE").write_text(APACHE)
    index, _done = build_index(target, root)
    named = {index.source(number).path: index.source(number).licence for number in range(len(index))}
    assert (named["a.c"], named["b.c"]) == ("GPL-2.0-only WITH Linux-syscall-note", "Apache-2.0")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (MIT, "MIT"), (BSD, "BSD-2-Clause"), (BSD_3, "BSD-3-Clause"), (GPL, "GPL-3.0"), (APACHE, "Apache-2.0"), ("", ""),
        ("All rights reserved.", ""),
        ("GNU LESSER GENERAL PUBLIC LICENSE\nVersion 2.1\n... the GNU General Public License, Version 2", "LGPL-2.1"),
        ("Permission to use, copy, modify, and/or distribute this software for any purpose is granted", "0BSD"),
        ("Permission to use, copy, modify, and distribute this software for any purpose with or without fee is hereby "
         "granted, provided that the above copyright notice", "ISC"),
    ],
)  # fmt: skip
def test_licences_by_their_texts(text: str, name: str) -> None:
    assert licences.of_text(text) == name


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("# SPDX-License-Identifier: MIT\n", "MIT"),
        ("// SPDX-License-Identifier: (MIT OR Apache-2.0)\n", "(MIT OR Apache-2.0)"),
        ("<!-- SPDX-License-Identifier: CC0-1.0 -->", "CC0-1.0"), ("nothing", ""), ("SPDX-License-Identifier:\nMIT", ""),
    ],
)  # fmt: skip
def test_licences_by_the_head_of_a_file(head: str, name: str) -> None:
    assert licences.of_head(head) == name


def test_metadata_that_nobody_wrote_takes_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What parses in the square of its length is left alone: a downloaded folder must not keep a build from ending."""
    parsed: list[str] = []
    loads = tomllib.loads

    def noted(text: str) -> dict[str, object]:
        parsed.append(text)
        return loads(text)

    monkeypatch.setattr(tomllib, "loads", noted)
    keys = (
        "a." * 9_000 + "a = 1",
        '"\\"". ' * 9_000 + "a = 1",
        "'b c' . " * 9_000 + "a = 1",
        f"x = {{{'a.' * 9_000}a = 1}}",
    )
    project = '[project]\nname = "p"\nlicense = "MIT"\n'
    for number, key in enumerate(keys):
        said(write(tmp_path / str(number), {"pyproject.toml": f"{project}{key}\n", "a.py": "a"}))
    assert parsed == []
    versions = f"version = '{'1.' * 20}'\nurls.a.b.c = 'https://{'www.' * 20}org'\n"
    root = write(tmp_path / "honest", {"pyproject.toml": project + versions, "a.py": "a"})
    assert said(root)["a.py"] == ("p", "MIT")
    began = time.process_time()
    config = f'[remote "origin"]{chr(10) * 1_000_000}'
    root = write(tmp_path / "work", {".git/config": config, "a.py": "a"})
    assert said(root)["a.py"] == ("work", "unknown")
    assert time.process_time() - began < 5  # it took an hour
