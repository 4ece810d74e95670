"""Every way to install the Neovim plugin that its page names, from an empty home, to ghost text."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.editors import programs
from tests.editors.driver import wait_for_ghost
from tests.editors.neovim import Neovim
from tests.editors.pages import shell_commands, snippet, with_checkout
from tests.editors.world import COLUMN, LINE, World
from tests.harness.process import ROOT

PAGE = ROOT / "editors" / "neovim" / "README.md"
WAIT_S = 60.0

EACH = pytest.mark.parametrize(
    "program", [programs.neovim_0_12, programs.neovim_0_11, programs.neovim_0_10], ids=["0.12", "0.11", "0.10"]
)


def leads_to_ghost_text(program: Path, init: str, world: World, home: Path) -> None:
    """Start Neovim with an init.lua in a home, and type."""
    editor = Neovim(program, init, "starfill", home, world.env)
    try:
        editor.open(world.file("installed.py"), LINE, COLUMN)
        editor.type("with open(")
        wait_for_ghost(editor, timeout=WAIT_S)
    finally:
        editor.close()


@EACH
def test_the_commands_of_its_page_are_enough(program: Callable[[], Path], world: World, tmp_path: Path) -> None:
    nvim = programs.required(program)
    env = {**world.env, "HOME": str(tmp_path)}
    for command in shell_commands(PAGE)[1:]:  # the first installs starfill
        subprocess.run(["bash", "-c", command], env=env, check=True, timeout=WAIT_S)
    leads_to_ghost_text(nvim, "", world, tmp_path)


def test_it_stays_asleep_if_told_so(world: World, tmp_path: Path) -> None:
    nvim = programs.required(programs.neovim_0_12)
    site = tmp_path / ".local" / "share" / "nvim" / "site" / "pack" / "starfill" / "start"
    site.mkdir(parents=True)
    (site / "neovim").symlink_to(PAGE.parent)
    editor = Neovim(nvim, "vim.g.starfill = false", "starfill", tmp_path, world.env)
    try:
        editor.api.command(f"edit {world.file('asleep.py')}")
        assert editor.api.exec_lua("return require('starfill').is_set_up()") is False
        assert editor.api.exec_lua("return #vim.lsp.get_clients()") == 0
    finally:
        editor.close()


@EACH
def test_options_may_stand_in_a_variable(program: Callable[[], Path], world: World, tmp_path: Path) -> None:
    init = f'vim.g.starfill = {{ keymap = {{ accept = "<C-l>" }} }}\nvim.opt.runtimepath:prepend("{PAGE.parent}")'
    editor = Neovim(programs.required(program), init, "starfill", tmp_path, world.env)
    try:
        assert editor.api.exec_lua("return require('starfill').is_set_up()") is True
        described = "return vim.fn.maparg(..., 'i', false, true).desc or ''"
        assert editor.api.exec_lua(described, "<C-l>").startswith("starfill: accept")
        assert not editor.api.exec_lua(described, "<Tab>").startswith("starfill")
    finally:
        editor.close()


@EACH
def test_with_lazy_nvims_table(program: Callable[[], Path], world: World, tmp_path: Path) -> None:
    """What lazy.nvim does with such a table: its folder onto the runtime path, then `main` is set up with `opts`."""
    table = with_checkout(snippet("editors/neovim/README.md", "lua", "opts = {}"))
    init = f"""
local plugin = {table}
vim.opt.runtimepath:prepend(plugin.dir)
vim.cmd.source(plugin.dir .. "/plugin/starfill.lua")
require(plugin.main).setup(plugin.opts)
"""
    leads_to_ghost_text(programs.required(program), init, world, tmp_path)


def test_with_vim_pack(world: World, tmp_path: Path) -> None:
    nvim = programs.required(programs.neovim_0_12)
    repository = tmp_path / "repository"
    (repository / "editors").mkdir(parents=True)
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    copy = ["cp", "-r", str(PAGE.parent), str(repository / "editors" / "neovim")]
    for command in (copy, [*git, "init", "-q"], [*git, "add", "."], [*git, "commit", "-q", "-m", "all"]):
        subprocess.run(command, check=True, timeout=WAIT_S)
    init = snippet("editors/neovim/README.md", "lua", "vim.pack.add").replace("/path/to/starfill", str(repository))
    assert init.count("  load = ") == 1
    # Nobody is there to say yes.
    leads_to_ghost_text(nvim, init.replace("  load = ", "  confirm = false,\n  load = "), world, tmp_path / "home")
