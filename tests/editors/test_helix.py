"""Helix: completions stand in its menu, beside those of other servers, and hold none of them up."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from editors.helix.__main__ import render
from tests.editors import programs
from tests.editors.helix import LANGUAGES, Helix
from tests.editors.pages import shell_commands
from tests.editors.words_server import WORDS
from tests.editors.world import COLUMN, LINE, World
from tests.harness.process import ROOT, wait_until

Start = Callable[..., Helix]
PICTURES = ROOT / "out" / "pictures"
WAIT_S = 60.0

WORDS_SERVER = f"""
[language-server.ty]
command = {json.dumps(sys.executable)}
args = [{json.dumps(str(Path(__file__).with_name("words_server.py")))}]
"""
"""In the place of the first of Python's own servers."""


@pytest.fixture
def start(world: World, tmp_path: Path) -> Iterator[Start]:
    """Starts Helix on a file; it is ended at the end."""
    opened: list[Helix] = []

    def start_one(file: Path, added: str = "") -> Helix:
        program = programs.required(programs.helix)
        opened.append(Helix(program, tmp_path, world.env, file, LINE, COLUMN, added=added))
        opened[-1].ready()
        return opened[-1]

    yield start_one
    for helix in opened:
        helix.close()


def type_until(helix: Helix, text: str, shown: Callable[[], bool]) -> None:
    """Type over and over, as a user does to whom nothing is shown yet because the servers are still starting."""
    deadline = time.monotonic() + WAIT_S
    while True:
        helix.type(text)
        try:
            wait_until(shown, "an entry in the menu", timeout=3)
            return
        except AssertionError:
            assert time.monotonic() < deadline, f"nothing in the menu\n{helix.screen()}"
        for _ in text:
            helix.terminal.keys("BSpace")


def test_completions_stand_in_the_menu_and_are_put_in(start: Start, world: World) -> None:
    helix = start(world.file("helix.py"))
    type_until(helix, "with open(pa", lambda: bool(helix.entries()))
    (entry,) = helix.entries()
    helix.terminal.keys("Tab")
    helix.terminal.keys("Enter")
    wanted = f"    with open({entry})"  # Helix closes the bracket
    assert helix.text().splitlines()[LINE] == wanted


def test_a_server_that_does_not_answer_keeps_no_others_entries_back(start: Start, world: World) -> None:
    helix = start(world.file("beside.py"), added=WORDS_SERVER)
    type_until(helix, "with open(pa", lambda: WORDS[0] in helix.screen() and bool(helix.entries()))
    helix.terminal.picture(PICTURES / "helix.txt")
    helix.terminal.keys("Escape")
    stopped = helix.servers("starfill")
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    try:
        helix.terminal.keys("o")
        helix.type("print(pa")
        wait_until(lambda: WORDS[0] in helix.screen(), "entries of the other server", timeout=WAIT_S)
        assert WORDS[1] in helix.screen()
        assert helix.entries() == []
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)


def test_the_commands_of_its_page_have_helix_know_it(world: World, tmp_path: Path) -> None:
    helix = programs.required(programs.helix)
    env = {**world.env, "HOME": str(tmp_path)}
    for command in shell_commands(LANGUAGES.with_name("README.md"))[1:]:  # the first installs starfill
        subprocess.run(["bash", "-c", command], env=env, check=True, timeout=WAIT_S)
    languages = tomllib.loads(LANGUAGES.read_text("utf-8"))["language"]
    for name in ("python", "rust", "erlang"):
        assert name in {language["name"] for language in languages}
        done = subprocess.run([str(helix), "--health", name], env=env, capture_output=True, text=True, check=True)
        assert re.search(r"✓\S* starfill: ", done.stdout), done.stdout


def test_the_file_is_what_its_program_writes() -> None:
    shipped = tomllib.loads(LANGUAGES.read_text("utf-8"))
    # What Helix is built with has the same languages, without us.
    helix = {
        "language": [
            {**language, "language-servers": [each for each in language["language-servers"] if each != "starfill"]}
            for language in shipped["language"]
        ]
    }
    assert "".join(render(helix)) == LANGUAGES.read_text("utf-8")
