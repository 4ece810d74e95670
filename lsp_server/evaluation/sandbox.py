"""Runs a program that a model wrote: bounded in time, memory and files, without the network where the kernel allows that.

It is no jail: a program can read what its user can read. It is run only when the user asked for that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SECONDS = 10.0
_MEMORY = 2 * 2**30
_FILE = 16 * 2**20

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
_LIMITS = """
import os, resource, sys
seconds, memory, size = map(int, sys.argv[1:4])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
os.execvp(sys.argv[4], sys.argv[4:])
"""
_NO_NETWORK = ("--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


def runs(language: str) -> bool:
    """Whether an interpreter for the language is installed."""
    command = _INTERPRETERS.get(language)
    return command is not None and shutil.which(command[0]) is not None


def passes(program: str, language: str, seconds: float = SECONDS) -> bool:
    """Whether the program ends with 0 in time."""
    limits = [sys.executable, "-I", "-c", _LIMITS, str(max(1, int(seconds))), str(_MEMORY), str(_FILE)]
    with tempfile.TemporaryDirectory(prefix="starfill-") as folder:
        file = Path(folder) / "program"
        file.write_text(program, encoding="utf-8")
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}
        child = subprocess.Popen(
            [*isolation(), *limits, *_INTERPRETERS[language], str(file)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return child.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            with contextlib.suppress(ProcessLookupError):  # it and all that it started may be gone
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


@cache
def isolation() -> tuple[str, ...]:
    """The command that takes the network and other processes away; empty where the kernel does not allow it."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    command = (unshare, *_NO_NETWORK)
    tried = subprocess.run([*command, "true"], capture_output=True, check=False, timeout=SECONDS)
    return command if tried.returncode == 0 else ()
