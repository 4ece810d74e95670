"""Runs a program that a model wrote: bounded in time and memory, and where the kernel allows that without the network and
without anything that it can change but a folder in memory.

It is no jail: a program can read what its user can read. It is run only when the user asked for that.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SECONDS = 10.0
_MEMORY = 2 * 2**30
_FILE = 16 * 2**20
_REFUSED = 7

_INTERPRETERS = {
    "python": (sys.executable, "-I"),
    "javascript": ("node",),
    "bash": ("bash",),
    "lua": ("lua",),
    "perl": ("perl",),
    "php": ("php",),
    "r": ("Rscript",),
    "ruby": ("ruby",),
}
_LAST_WORDS = {
    "python": '__import__("os").write({fd}, b"{word}")',
    "javascript": 'require("fs").writeSync({fd}, "{word}");',
    "bash": 'ended=$?; [ "$ended" = 0 ] && echo {word} >&{fd}; exit "$ended"',
    "lua": 'do local ended = io.open("/dev/fd/{fd}", "w"); ended:write("{word}"); ended:close() end',
    "perl": 'open(my $ended, ">&=", {fd}); print {{$ended}} "{word}"; close($ended);',
    "php": 'file_put_contents("php://fd/{fd}", "{word}");',
    "r": 'cat("{word}", file = "/dev/fd/{fd}")',
    "ruby": 'File.write("/dev/fd/{fd}", "{word}")',
}
"""What says, in each language, that a program came to its end: one that leaves before its tests leaves with 0 too."""

_LUA_UNIT = re.compile(r"\nos\.exit\((.*)\)\s*\Z")
"""The last line of MultiPL-E's programs in Lua, behind which nothing is reached."""

_CHILD = str(Path(__file__).with_name("confined.py"))
_APART = ("--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")


@dataclass(frozen=True, slots=True)
class Isolation:
    """What the kernel lets a user take from a program. `command` begins it apart, without network and other processes."""

    command: tuple[str, ...] = ()
    confines: bool = False
    """Whether it can change nothing."""

    @property
    def warning(self) -> str | None:
        """What somebody should know who lets programs run."""
        if self.confines:
            return None
        network = "" if self.command else ", and use the network"
        return f"this kernel lets nobody confine programs: they can read, change and delete what you can{network}"


def runs(language: str) -> bool:
    """Whether an interpreter for the language is installed."""
    command = _INTERPRETERS.get(language)
    return command is not None and shutil.which(command[0]) is not None


def passes(program: str, language: str, seconds: float = SECONDS) -> bool:
    """Whether the program comes to its end in time, and ends with 0."""
    word = secrets.token_hex(16)
    heard, said = os.pipe()
    try:
        os.set_blocking(heard, False)
        text = _with_last_words(program, language, said, word)
        return _run(isolation(), text, language, seconds, said) == 0 and word in _read(heard)
    finally:
        os.close(heard)
        os.close(said)


@cache
def isolation() -> Isolation:
    """What there is of it here, tried."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return Isolation()
    command = (unshare, *_APART)
    tried = subprocess.run([*command, "true"], capture_output=True, check=False, timeout=SECONDS)
    if tried.returncode:
        return Isolation()
    with tempfile.NamedTemporaryFile(prefix="starfill-") as outside:
        attempt = f"open('mine', 'w')\ntry: open({outside.name!r}, 'w')\nexcept OSError: raise SystemExit({_REFUSED})\n"
        full = Isolation(command, confines=True)
        return full if _run(full, attempt, "python", SECONDS) == _REFUSED else Isolation(command)


def _run(how: Isolation, program: str, language: str, seconds: float, *handles: int) -> int | None:
    """The exit status; None if it took longer."""
    limits = (str(max(1, int(seconds))), str(_MEMORY), str(_FILE), "confined" if how.confines else "open")
    with tempfile.TemporaryDirectory(prefix="starfill-") as folder:
        file = Path(folder) / "program"
        file.write_text(program, encoding="utf-8")
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}
        child = subprocess.Popen(
            [*how.command, sys.executable, "-I", _CHILD, *limits, *_INTERPRETERS[language], str(file)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=handles,
        )
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):  # it and all that it started may be gone
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _with_last_words(program: str, language: str, fd: int, word: str) -> str:
    words = _LAST_WORDS[language].format(fd=fd, word=word)
    if language == "lua" and (found := _LUA_UNIT.search(program)):
        return (
            f"{program[: found.start()]}\nlocal failed = {found[1]}\nif failed == 0 then {words} end\nos.exit(failed)\n"
        )
    return f"{program}\n{words}\n"


def _read(handle: int) -> str:
    try:
        return os.read(handle, 4_096).decode("ascii", "replace")
    except BlockingIOError:
        return ""
