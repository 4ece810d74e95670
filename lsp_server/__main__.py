"""Where the `starfill` command begins. `starfill lsp` goes straight to the server: an editor starts it with every window, and
the library behind the other commands costs 100 ms of imports.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import StarfillError


def main() -> None:
    """Entry point."""
    arguments = sys.argv[1:]
    try:
        if arguments[:1] == ["lsp"]:
            sys.exit(serve_lsp(arguments[1:]))
        from lsp_server.cli import app

        app(prog_name="starfill")
    except BrokenPipeError:  # `starfill generate … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def serve_lsp(arguments: Sequence[str]) -> int:
    """`starfill lsp` -> exit code."""
    import argparse

    from lsp_server.settings.flags import add_flags

    parser = argparse.ArgumentParser(
        "starfill lsp", description="Run the language server, as editors do.", allow_abbrev=False
    )
    parser.add_argument("--stdio", action="store_true", help="Speak over standard input and output (the only way).")
    parser.add_argument("--log-file", type=Path, help="Write the log here instead of to standard error.")
    add_flags(parser)
    flags = vars(parser.parse_args(arguments))
    del flags["stdio"]
    try:
        return _run_lsp(flags, flags.pop("log_file"))
    except StarfillError as error:
        sys.stderr.write(f"starfill: {error}\n")
        return 1


def _run_lsp(flags: Mapping[str, Any], log_file: Path | None) -> int:
    gc.disable()  # the protocol's 500 types would be walked over and over while they are made
    import asyncio
    import time

    from engine import logs, paths
    from lsp_server.settings import LiveSettings
    from lsp_server.stdio import run_stdio

    gc.freeze()
    gc.enable()
    logs.configure(log_file)
    settings = LiveSettings(flags, time.monotonic, paths.settings_file())
    return asyncio.run(run_stdio(settings))


if __name__ == "__main__":
    main()
