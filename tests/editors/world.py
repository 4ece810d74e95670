"""Where the editors' tests live: an empty home, one engine for all windows, files to edit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.harness.process import engine_pids, engine_records, read_metrics, wait_until

SERVER = Path(sys.executable).with_name("starfill")

CODE = '''\
import json
import os


def read_config(path):
    """Read a configuration file."""
    with open(path) as handle:
        return json.load(handle)


def write_config(path, config):
    """Write a configuration file."""
    {}


class Stack:
    """Last in, first out."""

    def __init__(self):
        self.items = []
'''
"""Something real to type into, at the braces."""

LINE, COLUMN = 12, 4


_WRAPPER = f"""\
#!/bin/sh
[ "$1" = lsp ] && shift && exec "{SERVER}" lsp --log-file "$STARFILL_HOME/lsp-$$.log" "$@"
exec "{SERVER}" "$@"
"""
"""Has each server leave a log, whatever its editor makes of what it prints."""


@dataclass(frozen=True, slots=True)
class World:
    """A home directory with one shared engine, and a folder of files."""

    home: Path
    folder: Path

    @classmethod
    def prepare(cls, home: Path, folder: Path) -> World:
        """One in an empty home, with the program where editors find it."""
        world = cls(home, folder)
        world.program.parent.mkdir()
        world.program.write_text(_WRAPPER)
        world.program.chmod(0o755)
        # What the tests accept and leave would decide what is shown in those that come after.
        (home / "settings.toml").write_text("min_confidence = 2\n", "utf-8")
        return world

    @property
    def program(self) -> Path:
        """The `starfill` that editors start."""
        return self.home / "bin" / "starfill"

    @property
    def env(self) -> dict[str, str]:
        """What an editor started from an empty home sees: nothing of the user's own set-up."""
        kept = {name: value for name, value in os.environ.items() if name in ("LANG", "LC_ALL", "TERM")}
        path = os.pathsep.join([str(self.program.parent), str(SERVER.parent), os.environ["PATH"]])
        return {**kept, "HOME": str(self.home), "PATH": path, "STARFILL_HOME": str(self.home)}

    def file(self, name: str, text: str = CODE.replace("{}", ""), line_end: str = "\n") -> Path:
        """A file to edit."""
        path = self.folder / name
        path.write_text(text, "utf-8", newline=line_end)
        return path

    def warm_up(self) -> None:
        """Have the engine loaded, as it is after the first completion of a day."""
        file = self.file("warm.py", "import os\n")
        command = [str(SERVER), "complete", str(file), "2:1"]
        subprocess.run(command, env=self.env, check=True, capture_output=True, timeout=120)

    def logs(self) -> dict[Path, list[str]]:
        """What each language server has logged so far, message by message."""
        return {
            file: [json.loads(line)["message"] for line in file.read_text("utf-8").splitlines()]
            for file in self.home.glob("lsp-*.log")
        }

    def engines(self) -> list[int]:
        """Engine processes that are alive."""
        return engine_pids(self.home)

    def kill_engine(self) -> None:
        """As the kernel does when memory runs out."""
        for pid in self.engines():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.engines(), "end of the engine")

    @contextmanager
    def held_engine(self) -> Iterator[None]:
        """The next engine that starts gets no further until the end, as if its model were large."""
        held: list[int] = []
        over = threading.Event()

        def hold() -> None:
            while not over.wait(0.005):
                for pid in self.engines():
                    if pid not in held:
                        os.kill(pid, signal.SIGSTOP)
                        held.append(pid)

        thread = threading.Thread(target=hold)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            for pid in held:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def running(self) -> float:
        """Generations that engines are at."""
        alive = self.engines()
        sockets = [Path(record["socket"]) for record in engine_records(self.home) if record["pid"] in alive]
        return sum(read_metrics(socket).value("starfill_running") for socket in sockets)

    def wait_until_idle(self) -> None:
        """The engine computes nothing for anybody."""
        wait_until(lambda: self.running() == 0, "rest of the engine", timeout=5)
