"""What a model that is told to do something does in the editors, and where what it says is known to stand already."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.editors import programs
from tests.editors.driver import wait_for_ghost
from tests.editors.emacs import Emacs, emacs_package
from tests.editors.engines import scripted_engine
from tests.editors.helix import Helix
from tests.editors.neovim import Neovim
from tests.editors.vscode import CodeServer, VSCode
from tests.editors.windows import neovim_plugin
from tests.editors.world import World
from tests.harness.corpora import build_index, write
from tests.harness.process import temporary_home, wait_until

WAIT_S = 60.0

# -- told to do something --------------------------------------------------------------------------------------------

SHOP = "def total(prices):\n    result = 0\n    return result\n"
SUMS = "def total(prices):\n    return sum(prices)"
FOLLOWS_NOTHING = "not known to follow instructions"


@contextmanager
def scripted_world(folder: Path, script: str, *options: str) -> Iterator[World]:
    """A home whose settings name an engine that says `script`."""
    with temporary_home() as home, scripted_engine(script, *options) as engine:
        world = World.prepare(home, folder)
        settings = home / "settings.toml"
        settings.write_text(settings.read_text("utf-8") + f'engine = "{engine}"\n', "utf-8")
        yield world


@pytest.fixture(scope="module")
def follower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Where the model follows instructions."""
    with scripted_world(tmp_path_factory.mktemp("shop"), f"\n{SUMS}\n", "--instruct", "alpaca") as world:
        yield world


def neovim(world: World, folder: Path) -> Neovim:
    return neovim_plugin(programs.required(programs.neovim_0_12), world, folder)


def test_neovim_says_that_the_model_follows_no_instructions(world: World, tmp_path: Path) -> None:
    editor = neovim(world, tmp_path)
    try:
        editor.open(world.file("plain.py", SHOP), 0, 0)
        editor.leave()
        editor.api.command("%StarfillRewrite shorter")
        wait_until(lambda: FOLLOWS_NOTHING in editor.api.command_output("messages"), "the reason", timeout=WAIT_S)
        assert editor.text() == SHOP.rstrip("\n")
    finally:
        editor.close()


def test_neovim_rewrites_and_explains(follower: World, tmp_path: Path) -> None:
    editor = neovim(follower, tmp_path)
    try:
        editor.open(follower.file("shop.py", SHOP), 0, 0)
        editor.leave()
        # The menu of code actions is one of vim.ui.select, which takes the first entry with the words here.
        editor.api.exec_lua(
            "vim.ui.select = function(items, options, on_choice)"
            " for _, item in ipairs(items) do"
            " if options.format_item(item):find('Explain') then return on_choice(item) end end end"
        )
        editor.api.exec_lua("vim.lsp.buf.code_action()")
        shown = (
            "local b = vim.fn.bufnr('starfill://answer'); return b > 0 and vim.fn.bufwinid(b) > 0 and "
            "vim.api.nvim_buf_get_lines(b, 0, -1, false) or {}"
        )
        wait_until(lambda: "\n".join(editor.api.exec_lua(shown)) == SUMS, "the answer", timeout=WAIT_S)
        assert editor.text() == SHOP.rstrip("\n")
        editor.api.command("%StarfillRewrite shorter")
        wait_until(lambda: editor.text() == SUMS, "the rewritten lines", timeout=WAIT_S)
        editor.api.command("undo")
        assert editor.text() == SHOP.rstrip("\n")
    finally:
        editor.close()


def test_emacs_rewrites_and_explains(follower: World, tmp_path: Path) -> None:
    editor = programs.required(lambda: emacs_package(programs.emacs(), follower, tmp_path))
    try:
        editor.open(follower.file("emacs-shop.py", SHOP), 0, 0)
        editor.terminal.keys("M-x")
        editor.terminal.type("starfill-explain\n")
        answer = '(let ((b (get-buffer "*starfill answer*"))) (and b (with-current-buffer b (buffer-string))))'
        wait_until(lambda: editor.lisp(answer) == SUMS, "the answer", timeout=WAIT_S)
        editor.terminal.keys("C-x", "h", "M-x")
        editor.terminal.type("starfill-rewrite\nshorter\n")
        wait_until(lambda: editor.text() == SUMS, "the rewritten lines", timeout=WAIT_S)
    finally:
        editor.close()


def test_helix_has_the_actions_in_its_menu(follower: World, tmp_path: Path) -> None:
    program = programs.required(programs.helix)
    alone = {**follower.env, "PATH": f"{follower.program.parent}:{os.defpath}"}  # no other server's actions in the menu
    helix = Helix(program, tmp_path, alone, follower.file("helix-shop.py", SHOP), 0, 0)
    try:
        helix.ready()
        helix.terminal.keys("Escape")

        def menu() -> bool:
            wait_until(lambda: " NOR " in helix.screen(), "normal mode")  # escape and a key at once are another key
            helix.terminal.keys("Space", "a")
            try:
                wait_until(lambda: "Explain (starfill)" in helix.screen(), "the menu", timeout=3)
            except AssertionError:  # the server is still starting
                helix.terminal.keys("Escape")
                return False
            return True

        wait_until(menu, "the menu of code actions", timeout=WAIT_S)
        entries = [line for line in helix.screen().splitlines() if "(starfill)" in line]
        place = next(number for number, line in enumerate(entries) if "Document" in line)
        helix.terminal.keys(*["Down"] * place, "Enter")  # the first is selected
        wait_until(lambda: "[+]" in helix.screen(), "the edit", timeout=WAIT_S)
        assert helix.text().rstrip("\n") == SUMS
    finally:
        helix.close()


# -- where it stands already -----------------------------------------------------------------------------------------

STATEMENTS = [f"v{n} = total_of({', '.join(f'x{n * k}' for k in range(1, 7))})" for n in range(40)]
INDEXED = "def f():\n" + "".join(f"    {each}\n" for each in STATEMENTS)
KNOWN = "def f():\n" + "".join(f"    {each}\n" for each in STATEMENTS[14:20]) + "    "
REST = STATEMENTS[20].removeprefix("v2")
ORIGIN = "as in many, lib/many.py"


def index(world: World, corpus: Path) -> Path:
    """Have what is indexed in a home be the statements above; -> the index's folder."""
    written = write(corpus, {"lib/many.py": INDEXED, "package.json": '{"name": "many", "license": "MIT"}'})
    file = world.home / "attribution" / "index"
    build_index(file, written)
    return file.parent


@pytest.fixture(scope="module")
def repeater(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Where the model says what is indexed."""
    with scripted_world(tmp_path_factory.mktemp("many"), REST) as world:
        index(world, tmp_path_factory.mktemp("corpus"))
        yield world


def at_its_end(world: World, name: str) -> tuple[Path, int, int]:
    """A file that goes on as the model says, and the place at its end."""
    lines = KNOWN.split("\n")
    return world.file(name, KNOWN), len(lines) - 1, len(lines[-1])


def test_neovim_names_source_and_licence_beside_the_ghost_text(repeater: World, tmp_path: Path) -> None:
    editor = neovim(repeater, tmp_path)
    note = (
        "local n = vim.api.nvim_get_namespaces()['starfill.note']; "
        "local m = vim.api.nvim_buf_get_extmarks(0, n, 0, -1, { details = true })[1]; "
        "return m and m[4].virt_text[1][1] or ''"
    )
    try:
        editor.open(*at_its_end(repeater, "neovim.py"))
        editor.type("v2")
        wait_for_ghost(editor, timeout=WAIT_S, wanted=lambda text: text == REST)
        wait_until(lambda: ORIGIN in editor.api.exec_lua(note), "source and licence", timeout=WAIT_S)
        assert editor.api.exec_lua(note).endswith("(MIT)")
        assert ORIGIN in editor.api.exec_lua("return require('starfill').statusline()")
        editor.accept()
        wait_until(lambda: editor.api.exec_lua(note) == "", "an end of it", timeout=WAIT_S)
    finally:
        editor.close()


def test_emacs_names_source_and_licence_in_its_echo_area(repeater: World, tmp_path: Path) -> None:
    editor: Emacs = programs.required(lambda: emacs_package(programs.emacs(), repeater, tmp_path))
    try:
        editor.open(*at_its_end(repeater, "emacs.py"))
        editor.type("v2")
        wait_for_ghost(editor, timeout=WAIT_S, wanted=lambda text: text == REST)
        wait_until(lambda: ORIGIN in editor.terminal.screen(), "source and licence", timeout=WAIT_S)
        assert "sf[many, MIT]" in editor.terminal.screen()
    finally:
        editor.close()


def test_helix_names_source_and_licence_beside_the_menu(repeater: World, tmp_path: Path) -> None:
    program = programs.required(programs.helix)
    helix = Helix(program, tmp_path, repeater.env, *at_its_end(repeater, "helix.py"))
    try:
        helix.ready()

        def shown() -> bool:
            helix.type("v2")
            try:
                wait_until(lambda: bool(helix.entries()), "an entry", timeout=3)
            except AssertionError:
                helix.terminal.keys("BSpace", "BSpace")
                return False
            return True

        wait_until(shown, "an entry in the menu", timeout=WAIT_S)
        helix.terminal.keys("Tab")
        wait_until(lambda: "starfill, as in many (MIT)" in helix.screen(), "source and licence", timeout=WAIT_S)
    finally:
        helix.close()


def test_vscode_says_that_the_model_follows_no_instructions(vscode: VSCode, world: World) -> None:
    vscode.open(world.file("plain.py", SHOP), 0, 0)
    vscode.run("starfill: Rewrite as Told", stays=True)
    vscode.answer("Rewrite as told", "shorter")
    vscode.message(FOLLOWS_NOTHING)
    assert vscode.text() == SHOP.rstrip("\n")
    vscode.dismiss_messages()


def test_vscode_rewrites_as_told_when_it_is_confirmed(vscode: VSCode, code_server: CodeServer, world: World) -> None:
    with (
        scripted_engine(f"\n{SUMS}\n", "--instruct", "alpaca") as engine,
        code_server.running_with(vscode, world, {"starfill.engine": engine}),
    ):
        vscode.open(world.file("shop.py", SHOP), 0, 0)
        vscode.page.keyboard.press("Control+a")
        vscode.run("starfill: Rewrite as Told", stays=True)
        vscode.answer("Rewrite as told", "shorter")
        vscode.confirm()
        wait_until(lambda: vscode.text() == SUMS, "the rewritten lines", timeout=WAIT_S)


def test_vscode_names_source_and_licence_in_its_status_bar(
    vscode: VSCode, code_server: CodeServer, world: World, tmp_path: Path
) -> None:
    folder = index(world, tmp_path / "corpus")
    try:
        with (
            scripted_engine(REST) as engine,
            code_server.running_with(vscode, world, {"starfill.engine": engine}),
        ):
            vscode.open(*at_its_end(world, "many.py"))
            vscode.type("v2")
            wait_for_ghost(vscode, timeout=WAIT_S, wanted=lambda text: text == REST)
            wait_until(lambda: any(ORIGIN in text for text in vscode.bar()), "source and licence", timeout=WAIT_S)
            assert vscode.status().endswith("(MIT)")
    finally:
        shutil.rmtree(folder)
