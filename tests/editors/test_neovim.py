"""What the Neovim plugin does beyond the scenarios: parts of a suggestion, candidates, switches, status, health."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.editors import flags, programs
from tests.editors.driver import SETTLE_S, wait_for_ghost
from tests.editors.neovim import Neovim
from tests.editors.pages import snippet, with_checkout
from tests.editors.terminal import Terminal
from tests.editors.windows import neovim_plugin
from tests.editors.world import CODE, COLUMN, LINE, World
from tests.harness.process import ROOT, wait_until

BEFORE, AFTER = CODE.split("{}")
TAIL = AFTER.rstrip("\n")
PICTURES = ROOT / "out" / "pictures"
VERSIONS = {"0.12": programs.neovim_0_12, "0.11": programs.neovim_0_11, "0.10": programs.neovim_0_10}
EACH = pytest.mark.parametrize("program", list(VERSIONS.values()), ids=list(VERSIONS))


@pytest.fixture(params=list(VERSIONS.values()), ids=list(VERSIONS))
def nvim(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Iterator[Neovim]:
    editor = neovim_plugin(programs.required(request.param), world, tmp_path)
    editor.open(world.file("plugin.py"), LINE, COLUMN)
    yield editor
    editor.close()


def test_words_are_taken_one_by_one_and_the_rest_stays(nvim: Neovim) -> None:
    nvim.type("with open(")
    whole = wait_for_ghost(nvim, wanted=lambda text: text.startswith("path") and len(text) > 6)
    nvim.api.input("<M-Right>")
    wait_until(lambda: nvim.ghost() == whole.removeprefix("path"), "the rest of the suggestion")
    assert nvim.text() == BEFORE + "with open(path" + TAIL
    nvim.accept()
    wait_until(lambda: nvim.text() == BEFORE + "with open(" + whole + TAIL, "the whole suggestion")


def test_a_line_is_taken_and_the_rest_stays(nvim: Neovim) -> None:
    nvim.type("def pop(self):\n")
    whole = wait_for_ghost(nvim)
    before = nvim.text()
    nvim.api.input("<M-C-Right>")
    first = whole.split("\n")[0]
    wait_until(lambda: nvim.text() != before, "an accepted line")
    assert first in nvim.text()


def test_accepting_is_undone_on_its_own(nvim: Neovim) -> None:
    nvim.type("with open(")
    wait_for_ghost(nvim)
    nvim.accept()
    wait_until(lambda: nvim.text() != BEFORE + "with open(" + TAIL, "the accepted text")
    nvim.leave()
    nvim.api.command("undo")
    assert nvim.text() == BEFORE + "with open(" + TAIL


def test_dismissed_it_goes_and_the_key_is_itself_again(nvim: Neovim) -> None:
    nvim.type("with open(")
    wait_for_ghost(nvim)
    nvim.api.input("<C-]>")
    wait_until(lambda: nvim.ghost() == "", "an end of the ghost text")
    nvim.api.input("<Tab>")
    wait_until(lambda: nvim.text() != BEFORE + "with open(" + TAIL, "a tab")
    assert nvim.text().splitlines()[LINE].rstrip() == "    with open("


PUT = 'vim.api.nvim_put({ "mine" }, "c", false, true)'


@pytest.mark.parametrize("mapped", ['"mine"', f"function() {PUT} end"], ids=["keys", "function"])
def test_a_mapping_of_the_user_still_works_when_nothing_is_shown(mapped: str, world: World, tmp_path: Path) -> None:
    program = programs.required(programs.neovim_0_12)
    editor = neovim_plugin(program, world, tmp_path, before=f'vim.keymap.set("i", "<Tab>", {mapped})')
    try:
        editor.api.command("Starfill disable")
        editor.api.input("i<Tab>")
        wait_until(lambda: editor.text() == "mine", "what the user mapped")
    finally:
        editor.close()


def test_interrupted_it_goes_and_the_model_stops(nvim: Neovim, world: World) -> None:
    nvim.type("with open(")
    wait_for_ghost(nvim)
    nvim.api.input("<C-c>")
    wait_until(lambda: nvim.ghost() == "", "an end of the ghost text")
    nvim.api.input("o")
    nvim.type("for name in")
    wait_until(lambda: "for name in" in nvim.text(), "the typed text")
    nvim.api.input("<C-c>")
    world.wait_until_idle()
    assert nvim.ghost() == ""


@EACH
def test_what_is_asked_for_before_the_server_is_there_comes(
    program: Callable[[], Path], world: World, tmp_path: Path
) -> None:
    setup = '{ cmd = { "sh", "-c", "sleep 3; exec starfill lsp" }, settings = { trigger = "manual" } }'
    editor = neovim_plugin(programs.required(program), world, tmp_path, setup=setup)
    try:
        editor.api.command(f"edit {world.file('early.py')}")
        editor.api.funcs.cursor(LINE + 1, COLUMN)
        editor.type("Awith open(")
        editor.api.input("<M-\\>")
        assert editor.api.exec_lua("return #vim.lsp.get_clients()") == 0, "too late to be early"
        wait_for_ghost(editor)
    finally:
        editor.close()


def test_what_is_asked_for_while_the_model_loads_comes(world: World, tmp_path: Path) -> None:
    setup = '{ settings = { trigger = "manual" } }'
    editor = neovim_plugin(programs.required(programs.neovim_0_11), world, tmp_path, setup=setup)
    try:
        world.kill_engine()
        with world.held_engine():
            editor.open(world.file("loading.py"), LINE, COLUMN)
            editor.type("with open(")
            editor.api.input("<M-\\>")
            reason = "return require('starfill.server').status.reason or ''"
            wait_until(lambda: editor.api.exec_lua(reason) == "loading", "a model that loads")
        wait_for_ghost(editor, timeout=60)
    finally:
        editor.close()


def test_switched_off_it_asks_nothing(nvim: Neovim) -> None:
    nvim.api.command("Starfill disable")
    nvim.type("with open(")
    with pytest.raises(AssertionError):
        wait_for_ghost(nvim, timeout=3)
    assert nvim.api.exec_lua("return require('starfill').statusline()") == "✧"
    nvim.api.exec_lua("require('starfill').toggle(true)")
    nvim.type("p")
    wait_for_ghost(nvim)


def test_another_candidate_can_be_asked_for_and_the_first_comes_back(nvim: Neovim) -> None:
    nvim.type("with open(")
    first = wait_for_ghost(nvim)
    nvim.api.input("<M-]>")
    items = "local s = require('starfill').current(); return s and s.asked_for_more and #s.items or 0"
    wait_until(lambda: nvim.api.exec_lua(items) > 0, "more candidates", timeout=20)
    count = nvim.api.exec_lua(items)
    for _ in range(count - 1):
        nvim.api.input("<M-]>")
    assert wait_for_ghost(nvim) == first


def test_health_says_that_all_is_well(nvim: Neovim) -> None:
    nvim.leave()
    nvim.api.command("checkhealth starfill")
    report = nvim.text()
    assert "server runs" in report
    assert "torch" in report
    assert "ERROR" not in report


def test_health_looks_at_the_model_that_is_configured(world: World, tmp_path: Path) -> None:
    command = ", ".join(f'"{argument}"' for argument in [flags.recorder(tmp_path), "lsp", *flags.configured()])
    program = programs.required(programs.neovim_0_12)
    editor = neovim_plugin(program, world, tmp_path, setup=f"{{ cmd = {{ {command} }} }}")
    try:
        editor.api.command("checkhealth starfill")
    finally:
        editor.close()
    assert (tmp_path / "asked").read_text("utf-8").rstrip("\n") == flags.examined()


def test_a_missing_program_is_named_once(world: World, tmp_path: Path) -> None:
    program = programs.required(programs.neovim_0_12)
    editor = neovim_plugin(program, world, tmp_path, setup='{ cmd = { "starfil", "lsp" } }')
    try:
        editor.api.command(f"edit {world.file('missing.py')}")
        assert "starfil is not on PATH" in editor.api.exec_lua("return require('starfill').statusline()") + str(
            editor.api.command_output("messages")
        )
    finally:
        editor.close()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("{ keymaps = {} }", "keymaps"),
        ('{ cmd = "starfill" }', "cmd"),
        ('{ keymap = { accpt = "x" } }', "keymap.accpt"),
    ],
)
def test_a_wrong_option_is_named(world: World, tmp_path: Path, options: str, named: str) -> None:
    editor = neovim_plugin(programs.required(programs.neovim_0_12), world, tmp_path, setup=None)
    try:
        said = editor.api.exec_lua(f"return select(2, pcall(require('starfill').setup, {options}))")
        assert said.startswith("starfill: ")
        assert named in said
    finally:
        editor.close()


def _is_still(terminal: Terminal) -> bool:
    before = terminal.screen()
    time.sleep(SETTLE_S)
    return terminal.screen() == before


def test_a_picture_for_its_page(world: World, tmp_path: Path) -> None:
    # The 0.12 that is unpacked beside the system cannot start itself anew, which its terminal interface does.
    program = programs.required(programs.neovim_0_11)
    config = tmp_path / ".config" / "nvim" / "init.lua"
    config.parent.mkdir(parents=True)
    config.write_text(with_checkout(snippet("editors/neovim/README.md", "lua", "\nrequire")))
    environment = {**world.env, "HOME": str(tmp_path)}
    file = world.file("write_config.py")
    nvim = f"cd {file.parent} && exec {program} -n '+call cursor({LINE + 1}, {COLUMN})' {file.name}"
    terminal = programs.required(lambda: Terminal(["sh", "-c", nvim], tmp_path / "terminal", environment))
    try:
        wait_until(lambda: "def write_config" in terminal.screen(), "Neovim", timeout=20)
        terminal.type("Awith open(")
        wait_until(lambda: terminal.screen().count("with open(path") == 2, "ghost text", timeout=30)
        wait_until(partial(_is_still, terminal), "all of the ghost text", timeout=30)
        terminal.picture(PICTURES / "neovim.txt")
    finally:
        terminal.close()
    assert file.read_text("utf-8") == BEFORE + AFTER
