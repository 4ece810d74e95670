"""`starfill models`: list, pull, show, remove, convert. What they need is imported when they run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import HubError, StarfillError

if TYPE_CHECKING:
    from rich.console import Console

    from engine.models.licences import Terms

app = typer.Typer(no_args_is_help=True, help="The models: which there are, getting and removing them.")

Name = Annotated[str, typer.Argument(metavar="ID[@REVISION]", help="As its card names it: bigcode/santacoder@no-fim.")]
_WIDE = 200

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_models(
    here: Annotated[bool, typer.Option("--here", help="Only models that are on this computer.")] = False,
    as_json: Json = False,
) -> None:
    """All models of the family, and those that are here: what fits this machine, best first."""
    with _reported():
        from engine.models import memory
        from engine.models.catalogue import entries

        machine = memory.this_machine()
        found = entries(machine, only_here=here)
        if as_json:
            # A program that asks for what is here means to use it.
            typer.echo(json.dumps([one.as_dict() for one in found if one.kept or not here]))
            return
        from engine.models.views import list_view

        _console().print(list_view(found, machine))


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """One model: sizes, what is particular, licence and who accepted it, how to cite it."""
    with _reported():
        from engine.errors import CheckpointError
        from engine.models import memory, shelf
        from engine.models.catalogue import entry
        from engine.models.known import KNOWN
        from engine.models.locate import STARTER_ID

        parsed = shelf.parse(name)
        try:
            kept = shelf.starter() if parsed.id == STARTER_ID else shelf.find(name)
        except CheckpointError:
            if parsed.id not in KNOWN:
                raise
            kept = None
        one = entry(parsed, kept, memory.this_machine())
        if as_json:
            record = kept.record if kept else None
            accepted = record.acceptance if record else None
            more = {
                "title": one.known.title if one.known else None,
                "particular": one.known.particular if one.known else None,
                "revisions": {name: r.what for name, r in one.known.revisions.items()} if one.known else {},
                "accepted": {"licences": accepted.licences, "at": accepted.at, "how": accepted.how}
                if accepted
                else None,
                "terms": one.terms.text() if one.terms else None,
                "citation": one.known.citation.bibtex() if one.known else None,
            }
            typer.echo(json.dumps(one.as_dict() | more))
            return
        from engine.models.views import show_view

        _console().print(show_view(one))


@app.command()
def pull(
    name: Name,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licence's use restrictions without being asked.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare each file that is here with its sum; damaged ones come again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, line by line as bytes come.")] = False,
) -> None:
    """Download a model. The only command of starfill that uses the network."""
    with _reported():
        from engine.models import shelf
        from engine.models.hub import Hub
        from engine.models.pulling import pull as download
        from engine.models.views import Bar, Lines
        from engine.sizes import human_size

        parsed = shelf.parse_pulled(name)
        console = _console(stderr=True)
        with Lines(typer.echo) if as_json else Bar(console, str(parsed)) as bar:

            def agree(terms: Terms, page: str) -> str:
                bar.__exit__(None, None, None)  # a question and a moving bar do not go together
                how = _agree(terms, page, str(parsed), accepted=accept_licence, console=console)
                bar.__enter__()
                return how

            try:
                done = download(parsed, Hub(), agree, bar, check_sums=verify)
            except KeyboardInterrupt:
                raise HubError(f"stopped; what has come is kept: starfill models pull {parsed} goes on") from None
        if as_json:
            typer.echo(json.dumps({"id": str(parsed), "commit": done.record.commit, "fresh": done.fresh}))
            return
        kept = shelf.find(str(parsed))
        verb = "Pulled" if done.fresh else "Already here:"
        typer.echo(f"{verb} {parsed} at commit {done.record.commit} ({human_size(kept.size)}) in {done.directory}")
        if done.fresh:
            typer.echo(f"Use it with: starfill serve --model {parsed}")


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Without being asked.")] = False,
) -> None:
    """Delete a downloaded model, unless an engine runs it, and what is left of a download that stopped on its way."""
    with _reported():
        from engine.models import shelf
        from engine.sizes import human_size

        kept, begun = shelf.on_disk(name)
        parts = [f"{human_size(kept.size)} in {kept.directory}"] if kept else []
        parts += [f"{human_size(begun.size)} of a download that stopped"] if begun else []
        parsed = shelf.parse(name)
        if not yes:
            if not sys.stdin.isatty():
                raise StarfillError(f"remove {parsed}? Nobody is there to ask: add --yes")
            typer.confirm(f"Delete {parsed}, {' and '.join(parts)}?", abort=True)
        led_to = kept.directory.resolve() if kept and kept.directory.is_symlink() else None
        freed = shelf.remove(kept, begun)
        typer.echo(f"Removed {parsed}: {human_size(freed)} are free again.")
        if led_to is not None:
            typer.echo(f"Its folder was a link; what is in {led_to} stays.")


@app.command()
def convert(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory with pytorch_model*.bin.")],
    force: Annotated[bool, typer.Option("--force", help="Replace safetensors that are there.")] = False,
) -> None:
    """Make safetensors of pickled .bin weights, in a process that can do nothing else. The .bin files stay."""
    with _reported():
        from engine.models.conversion.convert import convert as make
        from engine.sizes import human_size

        if not directory.is_dir():
            raise StarfillError(f"{directory}: no such directory")
        errors = _console(stderr=True)
        done = make(directory, force=force, told=lambda file, n, of: errors.print(f"{file} ({n} of {of})"))
        typer.echo(f"Wrote {', '.join(done.files)} ({human_size(done.size)}) in {directory}")
        if done.dropped:
            typer.echo(
                f"Left out, as they repeat or mask: {', '.join(done.dropped[:4])}{', …' * (len(done.dropped) > 4)}"
            )
        _tell_fitness(directory)


def _tell_fitness(directory: Path) -> None:
    """Whether the tensors are what config.json calls for: said now, not when an editor waits."""
    from engine.fitness import check_tensors

    try:
        check_tensors(directory)
    except StarfillError as error:
        typer.echo(f"It could not be served as it is: {error}", err=True)


def _agree(terms: Terms, page: str, name: str, *, accepted: bool, console: Console) -> str:
    """Show the terms, and have them accepted -> how they were; raises StarfillError."""
    console.print(f"{name} comes under these terms ({page}):\n\n{terms.text()}\n")
    if accepted:
        return "--accept-licence"
    if not sys.stdin.isatty():
        raise StarfillError(
            f"{name}: its licence ({terms.names}) restricts use and must be accepted; nobody is there to ask, so read the "
            "above and run the command again with --accept-licence"
        )
    if not typer.confirm("Do you accept them?", default=False, err=True):
        raise StarfillError(f"{name}: not accepted, so nothing was downloaded")
    return "asked"


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDE  # what reads a pipe folds nothing
    return console


@contextmanager
def _reported() -> Iterator[None]:
    """Our errors as one line on standard error and exit code 1."""
    try:
        yield
    except StarfillError as error:
        typer.echo(f"starfill: {error}", err=True)
        raise typer.Exit(1) from error
