"""Where the `starfill` command begins. `starfill lsp` goes straight to the server: an editor starts it with every window, and
the library behind the other commands costs 100 ms of imports.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import StarfillError


def main() -> None:
    """Entry point."""
    arguments = sys.argv[1:]
    try:
        if arguments[:1] == ["lsp"] and not {"-h", "--help"} & set(arguments):
            sys.exit(_lsp(arguments[1:]))
        from lsp_server.cli import app

        app(prog_name="starfill")
    except BrokenPipeError:  # `starfill generate … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_lsp(flags: Mapping[str, Any], log_file: Path | None) -> int:
    """Serve one editor -> exit code. `flags` as `load_settings` takes them."""
    gc.disable()  # the protocol's 500 types would be walked over and over while they are made
    import asyncio

    from lsp_server.settings import load_settings
    from lsp_server.stdio import run_stdio

    gc.freeze()
    gc.enable()
    _log_to(log_file)
    return asyncio.run(run_stdio(load_settings(flags)))


def _lsp(arguments: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="starfill lsp", add_help=False, allow_abbrev=False)
    parser.add_argument("--stdio", action="store_true")
    parser.add_argument("--engine")
    parser.add_argument("--model")
    parser.add_argument("--token-file")
    parser.add_argument("--log-file", type=Path)
    found = vars(parser.parse_args(arguments))
    del found["stdio"]  # the only way
    try:
        return run_lsp(found, found.pop("log_file"))
    except StarfillError as error:
        sys.stderr.write(f"starfill: {error}\n")
        return 1


def _log_to(file: Path | None) -> None:
    import logging
    import time

    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file is not None:
        from logging.handlers import RotatingFileHandler

        try:
            handler = RotatingFileHandler(file, maxBytes=2**20, backupCount=1)
        except OSError as error:
            raise StarfillError(f"--log-file {file}: {error.strerror}") from error
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # pygls logs whole messages, which hold user text; httpx2 logs every request.
    for name, level in (("pygls", logging.CRITICAL + 1), ("httpx2", logging.WARNING), ("httpcore2", logging.WARNING)):
        logging.getLogger(name).setLevel(level)


if __name__ == "__main__":
    main()
