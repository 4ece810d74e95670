"""`starfill attribution` as a user types it: build, show, find; what it says, and what it says of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engine import paths
from lsp_server.attribution.build import LENGTH
from lsp_server.cli import app
from tests.harness.corpora import program, write

TEXT = program(1, 120)
LICENCE = "Permission is hereby granted, free of charge, to any person obtaining a copy"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARFILL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write(
        tmp_path / "corpus", {"a/one.py": TEXT, "a/LICENSE": LICENCE, "two.py": program(2, 40), "x.bin": b"\0x"}
    )


def attribution(*arguments: object, text: str | None = None) -> Result:
    return CliRunner().invoke(app, ["attribution", *map(str, arguments)], input=text)


def test_build_show_find(corpus: Path, tmp_path: Path) -> None:
    built = attribution("build", corpus)
    assert built.exit_code == 0, built.output
    assert "4 files read" in built.output
    assert str(paths.attribution_index()) in built.output
    shown = attribution("show").output
    assert "3 files" in shown  # the one that is no text is remembered, not shown
    assert f"every passage of {LENGTH} tokens holds one" in shown
    for expected in (
        str(corpus),
        "MIT",
        "unknown",
        "huggingface.co/spaces/bigcode/starcoder-search",
        "santacoder-search",
    ):
        assert expected in shown
    facts = json.loads(attribution("show", "--json").output)
    assert facts["files"] == 3
    assert facts["licences"] == {"MIT": 2, "unknown": 1}
    assert facts["roots"] == [str(corpus)]
    assert facts["bytes"] == paths.attribution_index().stat().st_size
    mine = tmp_path / "mine.py"
    mine.write_text("import os\n\n" + TEXT.replace("    ", "\t") + "\nprint(os)\n")
    found = attribution("find", mine)
    assert found.exit_code == 0
    assert "corpus, a/one.py line " in found.output
    assert "(MIT)" in found.output
    (passage,) = json.loads(attribution("find", mine, "--json").output)
    first = next(number for number, line in enumerate(TEXT.split("\n"), 1) if line.strip())
    origin = passage["origin"]
    assert (passage["line"], origin["line"]) == (first + 2, first)
    assert (origin["root"], origin["path"], origin["licence"]) == (str(corpus), "a/one.py", "MIT")
    piped = attribution("find", "-", "--json", text=mine.read_text())
    assert json.loads(piped.output) == [passage]


def test_nothing_found_says_so(corpus: Path) -> None:
    attribution("build", corpus)
    found = attribution("find", "-", text=program(99, 60))
    assert (found.exit_code, found.stdout) == (0, "")
    assert "no passage of 50 tokens and more stands in the index" in found.stderr
    assert json.loads(attribution("find", "-", "--json", text="x").stdout) == []


def test_what_nothing_was_looked_for_in_is_said(tmp_path: Path) -> None:
    zeros = "0, 0, 0, 0, 0,\n" * 2_000
    attribution("build", write(tmp_path / "zeros", {"a.py": zeros}))
    found = attribution("find", "-", text=zeros)
    assert found.exit_code == 0
    assert "line 1: 20000 tokens as in zeros, a.py line 1" in found.stdout
    assert "too much is alike; nothing was looked for from line " in found.stderr


def test_a_second_build_says_what_it_did(corpus: Path) -> None:
    attribution("build", corpus, "--length", "60")
    (corpus / "two.py").unlink()
    again = attribution("build")
    assert "1 gone" in again.output
    assert "every passage of 60 tokens" in attribution("show").output


@pytest.mark.parametrize("command", [("show",), ("find", "-")])
def test_without_an_index_the_command_to_run_is_named(command: tuple[str, ...]) -> None:
    done = attribution(*command, text="x")
    assert done.exit_code == 1
    assert "nothing is indexed yet; run starfill attribution build DIR" in done.output.replace("\n", " ")


def test_mistakes(corpus: Path, tmp_path: Path) -> None:
    assert "name the folders to index" in attribution("build").output
    assert attribution("build", tmp_path / "absent").exit_code == 1
    assert attribution("build", corpus / "two.py").exit_code == 1
    assert attribution("build", corpus, "--length", "3").exit_code == 2
    attribution("build", corpus)
    assert attribution("find", tmp_path / "absent.py").exit_code == 1
    paths.attribution_index().write_bytes(b"broken")
    for command in (("show",), ("find", "-")):
        done = attribution(*command, text="x")
        assert done.exit_code == 1
        assert "not an attribution index" in done.output.replace("\n", " ")
    assert attribution("build", corpus).exit_code == 0
    assert attribution("show").exit_code == 0
