"""Settings as flags of `starfill lsp`, so that an editor's package can pass those that no message may set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsp_server.settings.schema import SETTINGS, Setting

if TYPE_CHECKING:
    import argparse


def flag_of(setting: Setting) -> str | None:
    """A setting's flag, if its kind of value has one."""
    return f"--{setting.name.replace('_', '-')}" if setting.kind.from_flag is not None else None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting that can have one; what is not given is None."""
    for known in SETTINGS.values():
        if (flag := flag_of(known)) is not None and known.kind.from_flag is not None:
            parser.add_argument(
                flag,
                dest=known.name,
                type=known.kind.from_flag,
                metavar=known.name.upper(),
                help=known.text.replace("%", "%%"),
            )
