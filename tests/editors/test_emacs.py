"""What the Emacs package does beyond the scenarios: parts, candidates, switches, status, doctor; and how well it is made."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lsp_server.buffer import Buffer, Encoding
from tests.editors import flags, programs
from tests.editors.driver import wait_for_ghost
from tests.editors.emacs import PACKAGE, Emacs, emacs_eglot, emacs_package
from tests.editors.pages import shell_commands
from tests.editors.terminal import Terminal
from tests.editors.world import CODE, COLUMN, LINE, World
from tests.harness.process import ROOT, wait_until

BEFORE, AFTER = CODE.split("{}")
TAIL = AFTER.rstrip("\n")
PICTURES = ROOT / "out" / "pictures"
WAIT_S = 60.0


@pytest.fixture
def emacs(world: World, tmp_path: Path) -> Iterator[Emacs]:
    editor = programs.required(lambda: emacs_package(programs.emacs(), world, tmp_path))
    editor.open(world.file("package.py"), LINE, COLUMN)
    yield editor
    editor.close()


def taken(emacs: Emacs, text: str) -> None:
    """Wait until the line reads so."""
    wait_until(lambda: emacs.text() == BEFORE + text + TAIL, f"{text!r} in the buffer", timeout=WAIT_S)


def batch(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run Emacs without a terminal."""
    program = programs.required(programs.emacs)
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    command = [str(program), "-Q", "--batch", "-L", str(PACKAGE), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=WAIT_S, check=False)


# -- typing ----------------------------------------------------------------------------------------------------------


def test_the_cursor_stands_before_the_ghost_text(emacs: Emacs) -> None:
    emacs.type("with open(")
    ghost = wait_for_ghost(emacs, timeout=WAIT_S)
    first = ghost.partition("\n")[0]
    wait_until(lambda: "with open(" + first in emacs.terminal.screen(), "ghost text on the screen")
    line, column = emacs.terminal.cursor()
    assert emacs.terminal.screen().splitlines()[line] == "    with open(" + first
    assert column == len("    with open(")
    emacs.terminal.picture(PICTURES / "emacs.txt")


def test_words_are_taken_one_by_one_and_the_rest_stays(emacs: Emacs) -> None:
    emacs.type("with open(")
    whole = wait_for_ghost(emacs, timeout=WAIT_S, wanted=lambda text: text.startswith("path") and len(text) > 6)
    emacs.terminal.keys("M-Right")
    wait_until(lambda: emacs.ghost() == whole.removeprefix("path"), "the rest of the suggestion")
    assert emacs.text() == BEFORE + "with open(path" + TAIL
    emacs.accept()
    taken(emacs, "with open(" + whole)


def test_a_line_is_taken_and_the_rest_stays(emacs: Emacs) -> None:
    emacs.type("def pop(self):\n")
    whole = wait_for_ghost(emacs, timeout=WAIT_S)
    before = emacs.text()
    emacs.terminal.keys("M-C-Right")
    wait_until(lambda: emacs.text() != before, "an accepted line")
    assert whole.split("\n")[0] in emacs.text()


def test_accepting_is_undone_in_one_step(emacs: Emacs) -> None:
    emacs.type("with open(")
    ghost = wait_for_ghost(emacs, timeout=WAIT_S)
    emacs.accept()
    taken(emacs, "with open(" + ghost)
    emacs.leave()
    emacs.terminal.keys("C-_")
    taken(emacs, "with open(")
    with pytest.raises(AssertionError):  # undoing is no typing
        wait_for_ghost(emacs, timeout=2)


def test_dismissed_it_goes_and_the_key_is_itself_again(emacs: Emacs) -> None:
    emacs.type("with open(")
    wait_for_ghost(emacs, timeout=WAIT_S)
    emacs.terminal.keys("C-g")
    wait_until(lambda: emacs.ghost() == "", "an end of the ghost text")
    assert emacs.lisp('(list (eq (key-binding (kbd "TAB")) \'starfill-accept) starfill--pending)') == [None, None]
    assert emacs.text() == BEFORE + "with open(" + TAIL


def test_the_minibuffer_has_its_keys_for_itself(emacs: Emacs) -> None:
    emacs.type("with open(")
    wait_for_ghost(emacs, timeout=WAIT_S)
    emacs.terminal.keys("M-x")
    wait_until(lambda: emacs.ghost() == "", "an end of the ghost text")
    emacs.terminal.type("starfill-doc")
    emacs.terminal.keys("Tab")
    wait_until(lambda: "M-x starfill-doctor" in emacs.terminal.screen(), "completion in the minibuffer")
    emacs.terminal.keys("C-g")


def test_it_stands_in_the_window_where_somebody_types_alone(emacs: Emacs) -> None:
    emacs.terminal.keys("C-x", "2")
    emacs.type("with open(")
    ghost = wait_for_ghost(emacs, timeout=WAIT_S).partition("\n")[0]
    wait_until(lambda: emacs.terminal.screen().count("with open(" + ghost) == 1, "ghost text on the screen")
    assert emacs.terminal.screen().count("    with open(") == 4, (
        "two windows, each with the line of read_config as well"
    )


def test_another_candidate_can_be_asked_for_and_the_first_comes_back(emacs: Emacs) -> None:
    emacs.type("with open(")
    first = wait_for_ghost(emacs, timeout=WAIT_S)
    emacs.terminal.keys("M-n")
    more = "(and starfill--current (starfill-suggestion-asked-for-more starfill--current) t)"
    wait_until(lambda: bool(emacs.lisp(more)), "more candidates", timeout=WAIT_S)
    count = emacs.lisp("(length (starfill-suggestion-items starfill--current))")
    for _ in range(count - 1):
        emacs.terminal.keys("M-n")
    assert wait_for_ghost(emacs, timeout=WAIT_S) == first


def test_switched_off_it_asks_nothing(emacs: Emacs) -> None:
    emacs.lisp("(progn (starfill-mode -1) t)")
    emacs.type("with open(")
    with pytest.raises(AssertionError):
        wait_for_ghost(emacs, timeout=3)
    emacs.lisp("(progn (starfill-mode) t)")
    emacs.type("p")
    wait_for_ghost(emacs, timeout=WAIT_S)


def test_what_is_asked_for_before_the_server_is_there_comes(world: World, tmp_path: Path) -> None:
    program = tmp_path / "slow"
    program.write_text('#!/bin/sh\nsleep 3\nexec starfill "$@"\n')
    program.chmod(0o755)
    before = f"""(setq starfill-program "{program}" starfill-settings '((trigger . "manual")))"""
    editor = programs.required(lambda: emacs_package(programs.emacs(), world, tmp_path / "home", before=before))
    try:
        place = f"(goto-char (point-min)) (forward-line {LINE}) (forward-char {COLUMN})"
        editor.lisp(f'(progn (find-file "{world.file("early.py")}") {place} t)')
        editor.type("with open(")
        editor.terminal.keys("C-c", "\\")
        wait_until(lambda: bool(editor.lisp("(eq last-command 'starfill-trigger)")), "the key")
        assert editor.lisp("(starfill-server-ready-p)") is None, "too late to be early"
        wait_for_ghost(editor, timeout=WAIT_S)
    finally:
        editor.close()


def test_what_is_asked_for_while_the_model_loads_comes(world: World, tmp_path: Path) -> None:
    before = """(setq starfill-settings '((trigger . "manual")))"""
    editor = programs.required(lambda: emacs_package(programs.emacs(), world, tmp_path / "home", before=before))
    try:
        world.kill_engine()
        with world.held_engine():
            editor.open(world.file("loading.py"), LINE, COLUMN)
            editor.type("with open(")
            editor.terminal.keys("C-c", "\\")
            wait_until(
                lambda: editor.lisp("(plist-get starfill-server-status :reason)") == "loading", "a model that loads"
            )
        wait_for_ghost(editor, timeout=WAIT_S)
    finally:
        editor.close()


# -- other clients ---------------------------------------------------------------------------------------------------


def test_eglot_completes_at_point(world: World, tmp_path: Path) -> None:
    editor = programs.required(lambda: emacs_eglot(programs.emacs(), programs.eglot(), world, tmp_path))
    try:
        editor.open(world.file("eglot.py"), LINE, COLUMN)
        editor.type("with open(pa")
        wait_until(lambda: "with open(pa" in editor.text(), "the typed text")

        def completed() -> bool:
            editor.terminal.keys("M-Tab")  # what is not there in time is there the next time
            return "    with open(path" in editor.text().splitlines()[LINE]

        wait_until(completed, "a completion at point", timeout=WAIT_S)
    finally:
        editor.close()


# -- the document ----------------------------------------------------------------------------------------------------

EDITS = r"""
((insert "face = \"😀👍🏽\"\n")
 (progn (search-forward "😀") (insert "é") (delete-char 1))
 (while (search-forward "config" nil t) (replace-match "CONFIG"))
 (upcase-region (point-min) (line-end-position 2))
 (subst-char-in-region (point-min) (point-max) ?e ?a)
 (progn (goto-char (point-max)) (insert "a\rb\n" (string #x3fff80) " tail\n"))
 (insert "after a carriage return and a byte that is no character\n")
 (progn (forward-line 1) (transpose-lines 1))
 (progn (narrow-to-region (- (point-max) 20) (point-max)) (goto-char (point-min)) (kill-word 1) (yank) (widen))
 (let ((inhibit-modification-hooks t)) (insert "unseen\n"))
 (progn (let ((inhibit-modification-hooks t)) (insert "unseen\n")) (insert "and then seen\n"))
 (progn (insert "seen\n")
        (let ((inhibit-modification-hooks t)) (upcase-word -1))
        (insert "unseen of the same size, then seen\n"))
 (let* ((once t)
        (other (lambda (&rest _) (when once (setq once nil) (save-excursion (insert "of another hook\n"))))))
   (add-hook 'after-change-functions other nil t)
   (insert "with a hook before ours\n")
   (remove-hook 'after-change-functions other t))
 (progn (undo-boundary) (insert "seen\n") (undo-boundary) (primitive-undo 1 buffer-undo-list))
 (dotimes (_ 300) (insert "many\n"))
 (let ((coding-system-for-write 'utf-8-emacs) (coding-system-for-read 'utf-8))
   (write-region (point-min) (point-max) buffer-file-name nil 'silent)
   (erase-buffer)
   (revert-buffer t t t))
 (insert "last\n"))
"""
"""Each kind of edit that Emacs tells of in its own way, and those that it does not tell of. Each starts at the top."""


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_what_the_server_is_told_is_what_the_buffer_holds(encoding: Encoding, tmp_path: Path) -> None:
    file = tmp_path / "mirrored.py"
    file.write_text(CODE.replace("{}", ""), "utf-8")
    script = tmp_path / "script.el"
    script.write_text(
        f"""(require 'starfill-document)
(find-file "{file}")
(buffer-enable-undo)
(let ((opened (starfill-document-open "{encoding}")) steps)
  (dolist (form '{EDITS})
    (goto-char (point-min))
    (eval form t)
    (let ((changes (plist-get (starfill-document-changes) :contentChanges)))
      (push (list :changes (or changes []) :text (starfill-document-text)) steps)))
  (let ((json (json-serialize (list :opened opened :steps (vconcat (nreverse steps))))))
    (princ (if (multibyte-string-p json) json (decode-coding-string json 'utf-8)))))
""",
        "utf-8",
    )
    done = batch("-l", str(script), home=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    mirror = Buffer(said["opened"]["textDocument"]["text"], encoding=encoding)
    whole = 0
    for step in said["steps"]:
        for change in step["changes"]:
            if "range" in change:
                start, end = (change["range"][name] for name in ("start", "end"))
                places = [mirror.position(at["line"], at["character"]) for at in (start, end)]
                mirror.replace(places[0], places[1], change["text"])
            else:
                mirror.set_text(change["text"])
                whole += 1
        assert mirror.text == step["text"]
        assert "\r" not in mirror.text
    assert whole == 6, "sent whole: what was not told of, what came in too many pieces, and what was read from disk"


# -- status ----------------------------------------------------------------------------------------------------------


def test_the_status_says_what_is_going_on(emacs: Emacs) -> None:
    emacs.type("with open(")
    wait_for_ghost(emacs, timeout=WAIT_S)
    assert emacs.lisp("(substring-no-properties (starfill-lighter))").startswith(" sf")
    emacs.lisp("(progn (starfill-status) t)")
    report = '(with-current-buffer (get-buffer-create "*starfill status*") (buffer-string))'
    wait_until(lambda: "engine: ready" in emacs.lisp(report), "a status", timeout=WAIT_S)
    assert "items: 1" in emacs.lisp(report)


def test_the_reason_stands_in_the_mode_line(world: World, tmp_path: Path) -> None:
    before = "(setq starfill-settings '((languages . ((python . nil)))))"
    editor = programs.required(lambda: emacs_package(programs.emacs(), world, tmp_path, before=before))
    try:
        editor.open(world.file("reason.py"), LINE, COLUMN)
        editor.type("with open(")
        wait_until(lambda: "sf-[language_off]" in editor.terminal.screen(), "a reason in the mode line", timeout=WAIT_S)
        assert editor.ghost() == ""
    finally:
        editor.close()


def test_the_doctor_says_that_all_is_well(emacs: Emacs) -> None:
    emacs.lisp("(progn (starfill-doctor) t)")
    report = '(with-current-buffer "*starfill doctor*" (buffer-string))'
    wait_until(lambda: "That is all." in emacs.lisp(report), "a report", timeout=WAIT_S)
    said = emacs.lisp(report)
    assert "server: runs, positions in utf-32" in said
    assert "torch" in said
    assert "WRONG" not in said


def test_the_doctor_looks_at_the_model_that_is_configured(tmp_path: Path) -> None:
    arguments = " ".join(f'"{argument}"' for argument in flags.configured())
    code = f"""
(progn
  (require 'starfill-doctor)
  (setq starfill-program "{flags.recorder(tmp_path)}" starfill-flags '({arguments}))
  (starfill-doctor)
  (with-current-buffer "*starfill doctor*"
    (with-timeout ({WAIT_S}) (while (not (string-search "That is all." (buffer-string))) (accept-process-output nil 0.1)))))
"""
    done = batch("--eval", code, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text("utf-8").rstrip("\n") == flags.examined()


def test_a_missing_program_is_named_with_the_remedy(world: World, tmp_path: Path) -> None:
    before = '(setq starfill-program "starfil")'
    editor = programs.required(lambda: emacs_package(programs.emacs(), world, tmp_path, before=before))
    try:
        editor.lisp(f'(progn (find-file "{world.file("missing.py")}") t)')
        editor.terminal.keys("C-l")
        wait_until(lambda: "starfil is not on exec-path" in editor.terminal.screen(), "the message", timeout=WAIT_S)
    finally:
        editor.close()


def test_a_server_that_ends_is_started_again(emacs: Emacs) -> None:
    emacs.type("with open(")
    wait_for_ghost(emacs, timeout=WAIT_S)
    emacs.leave()
    emacs.lisp("(progn (delete-process starfill-server--process) t)")
    wait_until(lambda: emacs.lisp("(plist-get starfill-server-status :kind)") == "Error", "the end of the server")
    for _ in range(20):
        emacs.type("p")
        try:
            wait_for_ghost(emacs, timeout=3)
            return
        except AssertionError:
            emacs.terminal.keys("BSpace")
    pytest.fail("no server after one ended")


# -- safety ----------------------------------------------------------------------------------------------------------


def test_no_file_and_no_directory_chooses_the_program_its_flags_or_the_settings(tmp_path: Path) -> None:
    for place in ("file", "directory"):
        folder = tmp_path / place
        folder.mkdir()
        variables = '(starfill-program . "/evil") (starfill-flags . ("-x")) (starfill-settings . ((engine . "evil")))'
        if place == "directory":
            (folder / ".dir-locals.el").write_text(f"((nil . ({variables})))")
            (folder / "a.py").write_text("x = 1\n")
        else:
            lines = [
                'starfill-program: "/evil"',
                'starfill-flags: ("-x")',
                'starfill-settings: ((engine . "evil"))',
            ]
            tail = "\n".join(f"# {line}" for line in ("Local Variables:", *lines, "End:"))
            (folder / "a.py").write_text(f"x = 1\n{tail}\n")
        code = f"""
(progn
  (require 'starfill-options)
  (setq enable-local-variables :all)
  (find-file "{folder / "a.py"}")
  (princ (format "%S %S" (starfill-options-command) (hash-table-count (starfill-options-settings)))))
"""
        done = batch("--eval", code, home=tmp_path)
        assert done.stdout == '("starfill" "lsp") 0', done.stdout + done.stderr
        for name in ("starfill-program", "starfill-flags", "starfill-settings"):
            done = batch(
                "--eval", f"(progn (require 'starfill-options) (princ (risky-local-variable-p '{name})))", home=tmp_path
            )
            assert done.stdout == "t"


# -- how it is made --------------------------------------------------------------------------------------------------

FILES = sorted(path.name for path in PACKAGE.glob("*.el"))


@pytest.mark.parametrize("name", FILES)
def test_it_compiles_without_a_warning(name: str, tmp_path: Path) -> None:
    for file in PACKAGE.glob("*.el"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    strict = "(setq byte-compile-error-on-warn t)"
    done = batch("-L", str(tmp_path), "--eval", strict, "-f", "batch-byte-compile", str(tmp_path / name), home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("name", FILES)
def test_checkdoc_has_nothing_to_say(name: str, tmp_path: Path) -> None:
    done = batch("--eval", f'(checkdoc-file "{PACKAGE / name}")', home=tmp_path)
    assert done.stderr.strip() == ""


def test_the_commands_of_its_page_lead_to_ghost_text(world: World, tmp_path: Path) -> None:
    program = programs.required(programs.emacs)
    home = tmp_path / "home"
    home.mkdir()
    env = {**world.env, "HOME": str(home), "STARFILL_HOME": str(world.home)}
    for command in shell_commands(PACKAGE / "README.md")[1:]:  # the first installs starfill
        subprocess.run(["bash", "-c", command], env=env, check=True, timeout=WAIT_S, capture_output=True)
    file = world.file("by_hand.py")
    terminal = Terminal([str(program), "-nw", f"+{LINE + 1}:{COLUMN + 1}", str(file)], tmp_path / "terminal", env)
    try:
        wait_until(lambda: " sf" in terminal.screen(), "starfill-mode", timeout=WAIT_S)
        terminal.type("with open(")

        def ghost() -> str:
            line, column = terminal.cursor()
            return terminal.screen().split("\n")[line][column:]

        wait_until(lambda: bool(ghost()), "ghost text", timeout=WAIT_S)
    finally:
        terminal.close()


def test_it_is_a_package_that_can_be_installed(tmp_path: Path) -> None:
    install = f"""
(progn
  (require 'package)
  (package-initialize)
  (package-install-file "{PACKAGE}")
  (princ (mapconcat #'symbol-name (seq-filter #'fboundp '(starfill-mode global-starfill-mode starfill-doctor)) " ")))
"""
    done = batch("--eval", install, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("starfill-mode global-starfill-mode starfill-doctor")
