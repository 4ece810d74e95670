"""The `starfill` command."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from engine import __version__
from engine.cli import app as engine_app
from engine.cli import reported

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.registered_commands += engine_app.registered_commands

Engine = Annotated[str | None, typer.Option(help="auto, unix:PATH or http(s)://HOST:PORT.")]
Model = Annotated[str | None, typer.Option(help="A model directory or downloaded id; the starter if left out.")]
TokenFile = Annotated[Path | None, typer.Option(help="File with the bearer token of a remote engine.")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"starfill {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Local, private, instant code completion for every editor."""


@app.command()
def lsp(
    stdio: Annotated[bool, typer.Option("--stdio", help="Speak over standard input and output (the only way).")] = True,
    engine: Engine = None,
    model: Model = None,
    token_file: TokenFile = None,
    log_file: Annotated[Path | None, typer.Option(help="Write the log here instead of to standard error.")] = None,
) -> None:
    """Run the language server, as editors do."""
    from lsp_server.__main__ import run_lsp

    with reported():
        code = run_lsp(_flags(engine, model, token_file), log_file)
    sys.exit(code)


@app.command()
def complete(
    file: Annotated[Path, typer.Argument(help="A source file.")],
    at: Annotated[str, typer.Argument(metavar="LINE:COLUMN", help="The cursor, from 1, in characters.")],
    engine: Engine = None,
    model: Model = None,
    token_file: TokenFile = None,
    candidates: Annotated[int, typer.Option(min=1, max=16, help="Alternatives to ask for.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Complete a file at a place, through the language server's whole pipeline."""
    from lsp_server.once import complete_file

    with reported():
        result = _run(complete_file(file, at, _flags(engine, model, token_file), candidates))
        if as_json:
            typer.echo(json.dumps(result))
        elif result["text"]:
            typer.echo(result["text"])
        else:
            detail = f": {result['detail']}" if result["detail"] else ""
            typer.echo(f"starfill: nothing to show ({result['reason']}{detail})", err=True)


@app.command()
def generate(
    text: Annotated[str, typer.Argument(help="The text to continue, or - for standard input.")],
    engine: Engine = None,
    model: Model = None,
    token_file: TokenFile = None,
    raw: Annotated[bool, typer.Option("--raw", help="Control tokens act; <FILL_HERE> is filled in.")] = False,
    max_tokens: Annotated[int, typer.Option(min=0, help="Longest answer.")] = 128,
) -> None:
    """Continue a text from left to right, streaming."""
    from lsp_server.once import stream_text

    def show(piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    with reported():
        source = sys.stdin.read() if text == "-" else text
        _run(stream_text(source, _flags(engine, model, token_file), raw=raw, max_tokens=max_tokens, show=show))
        if sys.stdout.isatty():
            typer.echo()


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check the installation and say what to do about what is wrong."""
    from engine.doctor import examine

    findings = examine()
    if as_json:
        typer.echo(json.dumps([finding.as_dict() for finding in findings]))
    else:
        for finding in findings:
            mark = "ok  " if finding.ok else "BAD "
            typer.echo(f"{mark} {finding.name}: {finding.detail}")
            if not finding.ok:
                typer.echo(f"     {finding.remedy}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _flags(engine: str | None, model: str | None, token_file: Path | None) -> dict[str, Any]:
    return {"engine": engine, "model": model, "token_file": str(token_file) if token_file else None}


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
