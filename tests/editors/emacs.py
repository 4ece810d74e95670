"""Emacs in a terminal: keys go in as typed, overlays and buffers are read by evaluating Lisp in it."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.editors.pages import snippet
from tests.editors.terminal import Terminal
from tests.editors.world import World
from tests.harness.process import ROOT, wait_until

PACKAGE = ROOT / "editors" / "emacs"

_ANSWERS_S = 60.0


class Emacs:
    """One Emacs with the given init file, from an otherwise empty home."""

    def __init__(
        self, program: Path, init: str, folder: Path, env: Mapping[str, str], *, ghost: str, attached: str, accept: str
    ) -> None:
        """`ghost` and `attached` are Lisp: the ghost text or nil; whether the server knows the buffer.

        `accept` is tmux's name of the key that takes all.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # Emacs wants a private one for its socket
        self._server = folder / "server"
        config = folder / "init.el"
        # Locks would ask questions where one file is in two windows; the screen is for what the tests look at.
        config.write_text(
            f"""(setq inhibit-startup-screen t create-lockfiles nil make-backup-files nil auto-save-default nil
      server-socket-dir "{folder}" ring-bell-function #'ignore vc-handled-backends nil)
(menu-bar-mode -1)
{init}
(server-start)
"""
        )
        self._ghost, self._attached, self._accept = ghost, attached, accept
        own = {**env, "HOME": str(folder), "STARFILL_HOME": env["STARFILL_HOME"]}
        self.terminal = Terminal([str(program), "-nw", "-Q", "-l", str(config)], folder, own)
        try:
            wait_until(self._listens, "Emacs", timeout=_ANSWERS_S)
        except AssertionError as error:
            screen = self.terminal.screen()
            self.terminal.close()
            raise AssertionError(f"{error}\n{screen}") from error

    def lisp(self, form: str) -> Any:
        """The value of a form in the buffer that is shown, as JSON has it."""
        inner = f"(with-current-buffer (window-buffer (selected-window)) {form})"
        code = f"(base64-encode-string (encode-coding-string (json-encode {inner}) 'utf-8) t)"
        return json.loads(base64.b64decode(self._evaluate(code).strip('"')))

    def open(self, file: Path, line: int, column: int) -> None:
        self.lisp(
            f'(progn (find-file "{file}") (goto-char (point-min)) (forward-line {line}) (forward-char {column}) t)'
        )
        self.terminal.keys("C-l")  # a command of the user's: what is done over the socket is none
        wait_until(lambda: bool(self.lisp(f"(and {self._attached} t)")), "language server in Emacs", timeout=_ANSWERS_S)

    def type(self, text: str) -> None:
        self.terminal.type(text)

    def ghost(self) -> str:
        return str(self.lisp(self._ghost) or "")

    def accept(self) -> None:
        self.terminal.keys(self._accept)

    def leave(self) -> None:
        self.terminal.keys("C-g")

        def read() -> bool:
            """Emacs throws away keys that came while it took the C-g."""
            self.terminal.keys("C-l")
            return bool(self.lisp('(format "%s" last-command)') == "recenter-top-bottom")

        wait_until(read, "an end of the keys")

    def text(self) -> str:
        text: str = self.lisp("(buffer-substring-no-properties (point-min) (point-max))")
        return text.removesuffix("\n")

    def save(self) -> None:
        self.lisp("(let ((save-silently t)) (save-buffer) t)")

    def close(self) -> None:
        self.terminal.close()

    def _listens(self) -> bool:
        """Whether it takes questions: its socket is there a moment before it does."""
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self._server)) == 0

    def _evaluate(self, code: str) -> str:
        """Speak as emacsclient does, without a process for each question."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWERS_S)
            connection.connect(str(self._server))
            connection.sendall(f"-eval {_quoted(code)}\n".encode())
            data = b""
            while received := connection.recv(65536):  # a long value comes in pieces; the end closes the connection
                data += received
        said = [line.split(" ", 1) for line in data.decode().splitlines() if " " in line]
        failed = [_unquoted(value) for name, value in said if name == "-error"]
        assert not failed, f"{code}: {failed[0]}"
        return "".join(_unquoted(value) for name, value in said if name in ("-print", "-print-nonl"))


def emacs_package(program: Path, world: World, folder: Path, *, before: str = "") -> Emacs:
    """Emacs with our package, from a folder on its load path; `before` is Lisp that comes first."""
    init = f"""
(add-to-list 'load-path "{PACKAGE}")
{before}
(require 'starfill)
(global-starfill-mode)
"""
    attached = "(starfill-document-told-p)"
    return Emacs(program, init, folder, world.env, ghost="(starfill-ghost-text)", attached=attached, accept="Tab")


def emacs_lsp_mode(program: Path, libraries: list[Path], world: World, folder: Path) -> Emacs:
    """Emacs with lsp-mode 10 and its own inline completion."""
    paths = " ".join(f'"{path}"' for path in [PACKAGE, *libraries])
    page = snippet("editors/emacs/README.md", "elisp", "starfill-lsp")
    init = f"""
(dolist (path '({paths})) (add-to-list 'load-path path))
{page}
(require 'lsp-mode)
;; What an installed package would load by itself.
(mapc #'require '(lsp-inline-completion lsp-completion lsp-diagnostics lsp-lens lsp-modeline lsp-headerline))
(setq lsp-auto-guess-root t lsp-client-packages nil lsp-warn-no-matched-clients nil lsp-enable-snippet nil
      lsp-session-file "{folder}/session" lsp-enable-file-watchers nil lsp-keep-workspace-alive t)
(add-hook 'prog-mode-hook #'lsp)
"""
    ghost = """
(when (overlayp (bound-and-true-p lsp-inline-completion--overlay))
  (let ((text (concat (overlay-get lsp-inline-completion--overlay 'display)
                      (overlay-get lsp-inline-completion--overlay 'after-string)))
        (start (overlay-start lsp-inline-completion--overlay)))
    (and (overlay-buffer lsp-inline-completion--overlay)
         (substring-no-properties text (- lsp-inline-completion--start-point start)))))
"""
    attached = "(and (bound-and-true-p lsp-inline-completion-mode) (lsp-workspaces))"
    return Emacs(program, init, folder, world.env, ghost=ghost, attached=attached, accept="Tab")


def emacs_eglot(program: Path, libraries: list[Path], world: World, folder: Path) -> Emacs:
    """Emacs with eglot, which has no inline completion, and starfill as the language's only server."""
    paths = " ".join(f'"{path}"' for path in libraries)
    init = f"""
(dolist (path '({paths})) (add-to-list 'load-path path))
(require 'eglot)
(setq eglot-server-programs '((python-mode . ("starfill" "lsp"))))
(add-hook 'python-mode-hook #'eglot-ensure)
"""
    return Emacs(program, init, folder, world.env, ghost="nil", attached="(eglot-managed-p)", accept="M-Tab")


def _quoted(text: str) -> str:
    text = text.replace("&", "&&").replace("\n", "&n").replace(" ", "&_")
    return "&" + text if text.startswith("-") else text


def _unquoted(text: str) -> str:
    parts = text.split("&&")
    return "&".join(part.replace("&_", " ").replace("&n", "\n").replace("&-", "-") for part in parts)
