"""`starfill attribution`: index code, see what is indexed, look a text up in it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine import paths
from engine.cli import reported
from engine.errors import StarfillError

if TYPE_CHECKING:
    from lsp_server.attribution.build import Progress
    from lsp_server.attribution.index import Index

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Index code that completions are compared with, so that verbatim passages carry source and licence.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_SHOWN = 12  # packages and licences that `show` lists


@app.command()
def build(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders of source; those of the last build if none.")
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Keep the folders of the last build too.")] = False,
    length: Annotated[
        int | None,
        typer.Option(min=24, max=200, help="Tokens of a passage that is sure to hold a fingerprint; 40 at first."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes; one for each processor if left out.")
    ] = None,
) -> None:
    """Index folders of source, or bring the index up to date; what did not change is not read again."""
    from lsp_server.attribution.build import build as build_index

    with reported(), _interruptible():
        target = paths.attribution_index()
        with _bar() as progress:
            done = build_index(folders or [], target, add=add, length=length, jobs=jobs, progress=progress)
        typer.echo(
            f"{done.read:,} files read ({done.bytes_read / 1e6:.1f} MB), {done.kept:,} as before, {done.gone:,} gone, "
            f"in {done.seconds:.1f} s"
        )
        typer.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


@app.command()
def show(as_json: Json = False) -> None:
    """What is indexed, and where else to look."""
    from lsp_server.attribution.origin import SEARCH_INDEXES

    with reported():
        index = _open()
        found = _summary(index)
        if as_json:
            typer.echo(json.dumps(found | {"search_indexes": SEARCH_INDEXES}))
            return
        typer.echo(f"{index.path}: {index.bytes / 1e6:.1f} MB, built {index.built}")
        typer.echo(
            f"{found['files']:,} files, {found['tokens']:,} tokens, {found['fingerprints']:,} fingerprints; every passage "
            f"of {found['length']} tokens holds one"
        )
        for root in index.roots:
            typer.echo(f"  {root}")
        for title in ("licences", "packages"):
            named = list(found[title].items())
            typer.echo(f"{title}:")
            for name, files in named[:_SHOWN]:
                typer.echo(f"  {files:>8,}  {name}")
            if len(named) > _SHOWN:
                typer.echo(f"            and {len(named) - _SHOWN:,} more (--json lists all)")
        typer.echo("What the models were trained on can be searched in a browser:")
        for model, address in SEARCH_INDEXES.items():
            typer.echo(f"  {model}: {address}")


@app.command()
def find(
    file: Annotated[str, typer.Argument(help="A file, or - for standard input.")],
    length: Annotated[int, typer.Option(min=20, help="Least length of a passage, in tokens.")] = 50,
    as_json: Json = False,
) -> None:
    """What of a text stands verbatim in the index, and where."""
    from lsp_server.attribution import passages

    with reported():
        text = _read(file)
        index = _open()
        stopped: list[int] = []
        found = passages.of_text(index, text, length, stopped.append)
        lines = passages.lines_of(text, [each.begin for each in found])
        if as_json:
            typer.echo(
                json.dumps(
                    [
                        {"line": line, "origin": passages.origin_of(each).as_dict() | {"root": each.source.root}}
                        for line, each in zip(lines, found, strict=True)
                    ]
                )
            )
        else:
            for line, each in zip(lines, found, strict=True):
                typer.echo(f"line {line}: {each.tokens} tokens as in {passages.origin_of(each).text}")
        if not found:
            typer.echo(f"starfill: no passage of {length} tokens and more stands in the index", err=True)
        for line in passages.lines_of(text, stopped):
            typer.echo(f"starfill: too much is alike; nothing was looked for from line {line} on", err=True)


def _open() -> Index:
    from lsp_server.attribution.index import Index

    path = paths.attribution_index()
    if not path.exists():
        raise StarfillError(f"{path}: nothing is indexed yet; run starfill attribution build DIR")
    return Index(path)


def _summary(index: Index) -> dict[str, Any]:
    licences, packages = Counter[str](), Counter[str]()
    for number in range(len(index)):
        source = index.source(number)
        if source.end > source.first:
            licences[source.licence] += 1
            packages[source.package] += 1
    return {
        "file": str(index.path),
        "bytes": index.bytes,
        "built": index.built,
        "roots": index.roots,
        "files": licences.total(),
        "tokens": len(index.tokens),
        "fingerprints": index.fingerprints,
        "length": index.header.guaranteed,
        "licences": dict(licences.most_common()),
        "packages": dict(packages.most_common()),
    }


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise StarfillError(f"{file}: {error.strerror}") from error
    return data.decode("utf-8", "replace")


@contextmanager
def _bar() -> Iterator[Progress]:
    """A progress bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def progress(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total or None)

        yield progress


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("starfill: interrupted; the index is as it was before", err=True)
        raise typer.Exit(130) from None
