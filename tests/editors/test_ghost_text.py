"""What every editor must do, in the real programs with the real server and the model that starfill comes with."""

from __future__ import annotations

from functools import partial

import pytest

from tests.editors.conftest import Open
from tests.editors.driver import Editor, wait_for_ghost
from tests.editors.world import CODE, COLUMN, LINE, World
from tests.harness.process import wait_until

BEFORE, AFTER = CODE.split("{}")


def test_ghost_text_appears_and_accepting_puts_exactly_that_text(window: Open, world: World) -> None:
    editor = window()
    editor.open(world.file("appears.py"), LINE, COLUMN)
    editor.type("with open(")
    ghost = wait_for_ghost(editor)
    assert editor.text() == BEFORE + "with open(" + AFTER.rstrip("\n")
    editor.accept()
    wait_until(lambda: editor.text() == BEFORE + "with open(" + ghost + AFTER.rstrip("\n"), "text as it was shown")


def test_typing_through_it_neither_flickers_nor_duplicates(window: Open, world: World) -> None:
    editor = window()
    editor.open(world.file("through.py"), LINE, COLUMN)
    editor.type("with open(")
    whole = wait_for_ghost(editor, wanted=lambda text: len(text) > 3)
    first = whole.partition("\n")[0]
    for at in range(1, len(first)):
        editor.type(first[at - 1])
        assert wait_for_ghost(editor, timeout=5).startswith(first[at:])
        assert editor.text() == BEFORE + "with open(" + first[:at] + AFTER.rstrip("\n")


def test_leaving_stops_the_model(window: Open, world: World) -> None:
    editor = window()
    editor.open(world.file("leaves.py"), LINE, COLUMN)
    editor.type("for name in")
    editor.leave()
    world.wait_until_idle()
    assert editor.ghost() == ""


def test_several_lines_are_drawn_and_accepted(window: Open, world: World) -> None:
    editor = window()
    for number, opening in enumerate(("while True:\n", "class Queue:\n", "for line in handle:\n", "try:\n")):
        editor.open(world.file(f"lines-{number}.py"), LINE, COLUMN)
        editor.type(opening)
        try:
            ghost = wait_for_ghost(editor, timeout=6, wanted=lambda text: "\n" in text)
        except AssertionError:
            editor.leave()
            continue
        wanted = editor.text().count("\n") + ghost.count("\n")
        editor.accept()
        wait_until(partial(_has_lines, editor, wanted), "the lines as they were shown")
        for line in ghost.split("\n"):
            assert line.strip() in editor.text()
        return
    pytest.fail("no suggestion of several lines at any place")


def _has_lines(editor: Editor, ends: int) -> bool:
    return editor.text().count("\n") == ends


def test_emoji_before_the_cursor_do_not_shift_it(window: Open, world: World) -> None:
    editor = window()
    editor.open(world.file("emoji.py"), LINE, COLUMN)
    editor.type('face = "😀👍🏽"; handle = open(')
    ghost = wait_for_ghost(editor)
    editor.accept()
    line = 'face = "😀👍🏽"; handle = open('
    wait_until(lambda: editor.text() == BEFORE + line + ghost + AFTER.rstrip("\n"), "text as it was shown")


def test_a_file_with_carriage_returns_keeps_them_all(window: Open, world: World) -> None:
    editor = window()
    file = world.file("windows.py", line_end="\r\n")
    editor.open(file, LINE, COLUMN)
    editor.type("with open(")
    ghost = wait_for_ghost(editor)
    assert "\r" not in ghost
    editor.accept()
    wait_until(lambda: ghost.partition("\n")[0] in editor.text(), "the accepted text")
    editor.leave()
    editor.save()
    data = file.read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r")


def test_an_auto_closed_bracket_is_not_doubled(window: Open, world: World) -> None:
    editor = window()
    editor.open(world.file("bracket.py", CODE.replace("{}", "handle = open()")), LINE, COLUMN + len("handle = open("))
    editor.type("p")
    ghost = wait_for_ghost(editor)
    editor.accept()
    wait_until(lambda: editor.text().splitlines()[LINE] != "    handle = open(p)", "the accepted text")
    line = editor.text().splitlines()[LINE]
    assert line == f"    handle = open(p{ghost})"
    assert line.count("(") == line.count(")")


def test_the_engine_is_killed_and_comes_back(window: Open, world: World) -> None:
    editor = window()
    editor.open(world.file("killed.py"), LINE, COLUMN)
    editor.type("with open(")
    wait_for_ghost(editor)
    editor.leave()
    world.kill_engine()
    for number in range(60):  # as a user who just goes on
        editor.open(world.file(f"killed-{number}.py"), LINE, COLUMN)
        editor.type("with open(")
        try:
            wait_for_ghost(editor, timeout=2)
            break
        except AssertionError:
            editor.leave()
    else:
        pytest.fail("no ghost text after the engine was killed")
    assert len(world.engines()) == 1


def test_two_windows_share_one_engine(window: Open, world: World) -> None:
    one, other = window(), window()
    for number, editor in enumerate((one, other)):
        editor.open(world.file(f"two-{number}.py"), LINE, COLUMN)
        editor.type("with open(")
    assert wait_for_ghost(one) == wait_for_ghost(other)
    assert len(world.engines()) == 1
