"""A terminal, kept by tmux: keys go in, the screen comes out."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.editors import programs

COLUMNS, ROWS = 100, 30


class Terminal:
    """One program in a terminal of its own."""

    def __init__(self, command: list[str], folder: Path, env: Mapping[str, str]) -> None:
        if shutil.which("tmux") is None:
            raise programs.NotInstalled("tmux is missing (apt-get install tmux)")
        folder.mkdir(parents=True, exist_ok=True)
        self._socket = folder / "tmux"
        self._env = {**env, "TERM": "screen-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        # Else tmux waits after each escape to see whether more comes.
        options = ["set-option", "-g", "escape-time", "0", ";", "set-option", "-g", "status", "off", ";"]
        self._tmux("-f", "/dev/null", *options, "new-session", "-d", *size, *command)

    def keys(self, *names: str) -> None:
        """Press keys by tmux's names, such as `C-g` and `M-Right`."""
        self._tmux("send-keys", *names)

    def type(self, text: str) -> None:
        """Type text key by key."""
        for character in text:
            if character == "\n":
                self._tmux("send-keys", "Enter")
            else:
                # A single semicolon would end tmux's command.
                self._tmux("send-keys", "-l", "\\;" if character == ";" else character)

    def screen(self) -> str:
        """What is on the screen, blanks at the ends of lines cut off."""
        return "\n".join(line.rstrip() for line in self._tmux("capture-pane", "-p").splitlines())

    def cursor(self) -> tuple[int, int]:
        """Line and column of the cursor, both from 0."""
        line, column = self._tmux("display-message", "-p", "#{cursor_y} #{cursor_x}").split()
        return int(line), int(column)

    def picture(self, path: Path) -> None:
        """Keep what is on the screen, with a mark where the cursor stands, for the editor's page."""
        lines = self.screen().rstrip().split("\n")
        line, column = self.cursor()
        lines[line] = f"{lines[line][:column]}▏{lines[line][column:]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", "utf-8")

    def pid(self) -> int:
        """The program's process."""
        return int(self._tmux("display-message", "-p", "#{pane_pid}"))

    def close(self) -> None:
        """End the program."""
        subprocess.run(["tmux", "-S", str(self._socket), "kill-server"], capture_output=True, check=False)

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-u", "-S", str(self._socket), *arguments]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, encoding="utf-8", check=False)
        if done.returncode != 0:
            raise AssertionError(f"tmux {arguments[0]}: {done.stderr.strip()}")
        return done.stdout
