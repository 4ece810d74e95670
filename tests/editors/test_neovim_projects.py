"""Neovim tells the server of the projects that are open: what is excluded is named from their roots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.editors import programs
from tests.editors.neovim import Neovim
from tests.editors.pages import snippet
from tests.editors.windows import neovim_plugin
from tests.editors.world import World
from tests.harness.process import ROOT, wait_until

EACH = pytest.mark.parametrize(
    "program", [programs.neovim_0_12, programs.neovim_0_11, programs.neovim_0_10], ids=["0.12", "0.11", "0.10"]
)
SETUP = '{ settings = { exclude = { "/vendor/**" } } }'
ASK = """
local server = require("starfill.server")
local client = server.client(0)
Said = nil
server.request(client, true, function(_, final)
  if final then
    server.describe(client, function(result) Said = result.last.reason or "shown" end)
  end
end)
"""
ROOTS = "return vim.tbl_map(function(each) return each.name end, vim.lsp.get_clients()[1].workspace_folders)"


def project(folder: Path, marker: str) -> Path:
    """A project with a file that is excluded, in a package of its own -> that file."""
    (folder / "vendor" / "package").mkdir(parents=True)
    if marker == ".git":
        (folder / marker).mkdir()
    else:
        (folder / marker).write_text("", "utf-8")
    (folder / "vendor" / "package" / "package.json").write_text("{}", "utf-8")
    file = folder / "vendor" / "package" / "code.py"
    file.write_text("import os\n", "utf-8")
    return file


def asked(editor: Neovim, file: Path) -> str:
    """Ask for a suggestion in a file -> why there is none."""
    editor.api.command(f"edit! {file}")
    wait_until(
        lambda: bool(editor.api.exec_lua("return #vim.lsp.get_clients({ bufnr = 0 })")), "the server", timeout=20
    )
    editor.api.exec_lua(ASK)
    wait_until(lambda: bool(editor.api.exec_lua("return Said or false")), "an answer", timeout=20)
    return str(editor.api.exec_lua("return Said"))


@EACH
def test_each_project_is_known_by_its_repository(program: Callable[[], Path], world: World, tmp_path: Path) -> None:
    first, second, third = (project(tmp_path / name, ".git") for name in ("first", "second", "third"))
    editor = neovim_plugin(programs.required(program), world, tmp_path / "home", setup=SETUP)
    try:
        # The second while the server is still starting, the third when it has long run.
        editor.api.exec_lua("for _, file in ipairs(...) do vim.cmd.edit(file) end", [str(first), str(second)])
        for file in (first, second, third):
            assert asked(editor, file) == "excluded"
        assert editor.api.exec_lua("return #vim.lsp.get_clients()") == 1
        assert sorted(editor.api.exec_lua(ROOTS)) == [str(tmp_path / name) for name in ("first", "second", "third")]
    finally:
        editor.close()


def test_a_server_that_is_started_anew_knows_where_it_is(world: World, tmp_path: Path) -> None:
    first, second = (project(tmp_path / name, ".git") for name in ("first", "second"))
    editor = neovim_plugin(programs.required(programs.neovim_0_11), world, tmp_path / "home", setup=SETUP)
    try:
        assert asked(editor, first) == "excluded"
        assert asked(editor, second) == "excluded"
        editor.api.exec_lua("require('starfill.server').stop()")
        wait_until(lambda: editor.api.exec_lua("return #vim.lsp.get_clients()") == 0, "an end of the server")
        for file in (second, first):
            assert asked(editor, file) == "excluded"
    finally:
        editor.close()


def test_without_a_repository_it_is_the_nearest_package(world: World, tmp_path: Path) -> None:
    file = project(tmp_path / "first", "pyproject.toml")
    editor = neovim_plugin(programs.required(programs.neovim_0_11), world, tmp_path / "home", setup=SETUP)
    try:
        editor.open(file, 0, 0)
        assert editor.api.exec_lua(ROOTS) == [str(file.parent)]
    finally:
        editor.close()


def test_without_the_plugin_the_page_names_roots_too(world: World, tmp_path: Path) -> None:
    init = snippet("editors/neovim/README.md", "lua", "vim.lsp.enable")
    help_page = (ROOT / "editors" / "neovim" / "doc" / "starfill.txt").read_text("utf-8")
    assert [line.strip() for line in help_page.splitlines() if '".git"' in line] == ['{ ".git", ".hg", ".jj" },']
    file = project(tmp_path / "first", ".git")
    program = programs.required(programs.neovim_0_12)
    editor = Neovim(program, init, "nvim.lsp.inline_completion", tmp_path / "home", world.env)
    try:
        editor.open(file, 0, 0)
        assert editor.api.exec_lua(ROOTS) == [str(tmp_path / "first")]
    finally:
        editor.close()
