"""Flags that editors are configured with, and those of them that `starfill doctor` knows as well."""

from __future__ import annotations

from pathlib import Path

import typer.main

from lsp_server.cli import app
from lsp_server.settings.flags import flag_of
from lsp_server.settings.schema import SETTINGS


def of_lsp() -> list[str]:
    """Those of `starfill lsp` that are settings."""
    return [flag for setting in SETTINGS.values() if (flag := flag_of(setting)) is not None]


def of_doctor() -> list[str]:
    """Those that say what there is to examine: all that both commands have."""
    group = typer.main.get_command(app)
    options = {name for option in group.commands["doctor"].params for name in option.opts}  # type: ignore[attr-defined]
    return [flag for flag in of_lsp() if flag in options]


def configured() -> list[str]:
    """Every flag with a value, some in one word, some in two, one value that looks like another flag."""
    written = [[f"{flag}=1"] if at % 2 else [flag, "1"] for at, flag in enumerate(of_lsp())]
    return [argument for each in written for argument in each] + ["--model", "--device", "--model=--dtype"]


def examined() -> str:
    """What `starfill doctor` is to be called with then, in one line."""
    known = of_doctor()
    written = [f"{flag}=1" if at % 2 else f"{flag} 1" for at, flag in enumerate(of_lsp()) if flag in known]
    return " ".join(["doctor", "--json", *written, "--model", "--device", "--model=--dtype"])


def recorder(folder: Path) -> Path:
    """A program that notes how its `doctor` was called, in the file `asked`, and finds nothing."""
    program = folder / "program"
    program.write_text(f'#!/bin/sh\n[ "$1" = doctor ] && echo "$@" > {folder}/asked && echo "[]"\n')
    program.chmod(0o755)
    return program
