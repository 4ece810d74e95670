"""Text that the starter model really says of code that it was trained on is attributed to it, through the whole pipeline."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.models import STARTER
from lsp_server.attribution.tokens import TOKEN
from tests.harness.corpora import STANDARD_LIBRARY
from tests.harness.inprocess import InProcessEngine
from tests.harness.process import isolated_env, temporary_home

MODULE = STANDARD_LIBRARY / "unittest" / "case.py"
PLACES = re.compile(
    r"^ +msg(?= = self\._formatMessage\(msg, standardMsg)|^ +with(?= outcome\.testPartExecutor)", re.MULTILINE
)
BEFORE, AFTER = 3_000, 800  # characters of the module that the completed file has


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with temporary_home() as home:
        yield home


def starfill(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("starfill")
    return subprocess.run(
        [command, *arguments],
        env=isolated_env(home),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def agreeing(said: str, stands: str) -> int:
    """How many tokens the model's text has in common with the module, from its first on."""
    words, there = TOKEN(said), TOKEN(stands)
    return next((at for at, word in enumerate(words) if word != there[at]), len(words))


def test_what_the_starter_says_of_its_corpus_names_the_corpus(home: Path) -> None:
    text = MODULE.read_text("utf-8")
    engine = InProcessEngine.of(STARTER, dtype="float32")
    verbatim: list[int] = []
    own: list[int] = []
    for match in PLACES.finditer(text):
        at = match.end()
        before, after = text[max(0, at - BEFORE) : at], text[text.index("\n", at) :][:AFTER]
        said = engine.complete(prompt=before, suffix=after, max_tokens=16).text
        (verbatim if agreeing(said, text[at:]) >= 5 else own).append(at)
    assert verbatim, "the starter says nothing of the module any more: name other places"

    corpus = home / "corpus" / "unittest"
    corpus.mkdir(parents=True)
    shutil.copy(MODULE, corpus / "case.py")
    (corpus.parent / "LICENSE.txt").write_text("PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2\n")
    built = starfill(home, "attribution", "build", str(corpus.parent))
    assert built.returncode == 0, built.stderr
    mine = home / "mine.py"
    marked = 0
    for at in [*verbatim[:2], *own[:1]]:
        before, after = text[max(0, at - BEFORE) : at], text[text.index("\n", at) :][:AFTER]
        mine.write_text(before + after)
        cursor = f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
        done = starfill(home, "complete", str(mine), cursor, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        same = agreeing(found["text"], text[at:])
        origins = found["items"][0].get("attribution", []) if found["items"] else []
        assert bool(origins) == (same >= 5), found
        for origin in origins:
            assert (origin["path"], origin["licence"], origin["tokens"]) == ("unittest/case.py", "PSF-2.0", 50 + same)
            assert text.count("\n", 0, at) - 20 < origin["line"] <= text.count("\n", 0, at) + 1
            marked += 1
    assert marked
    at = verbatim[0]
    before, after = text[max(0, at - BEFORE) : at], text[text.index("\n", at) :][:AFTER]
    mine.write_text(before + after)
    told = starfill(home, "complete", str(mine), f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}")
    assert "tokens verbatim as in corpus, unittest/case.py line " in told.stderr
    shown = starfill(home, "attribution", "find", str(MODULE))
    assert "case.py line 1 (PSF-2.0)" in shown.stdout
    assert starfill(home, "stop").returncode == 0
