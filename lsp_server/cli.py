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
from lsp_server.attribution.command import app as attribution_app

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.registered_commands += engine_app.registered_commands
app.registered_groups += engine_app.registered_groups
app.add_typer(attribution_app, name="attribution")

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


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def lsp(context: typer.Context) -> None:
    """Run the language server, as editors do."""
    from lsp_server.__main__ import serve_lsp

    sys.exit(serve_lsp(context.args))


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
            if origins := result["items"][0].get("attribution"):
                from lsp_server.attribution.origin import Origin, sentence

                typer.echo(f"starfill: {sentence([Origin(**found) for found in origins])}", err=True)
        else:
            _say_nothing_to_show(result["reason"], result["detail"])


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
        flags = _flags(engine, model, token_file)
        said = _run(stream_text(source, flags, raw=raw, max_tokens=max_tokens, show=show))
        if sys.stdout.isatty():
            typer.echo()
        if not said.items:
            _say_nothing_to_show(said.reason, said.detail)
        elif said.items[0].origins:
            from lsp_server.attribution.origin import sentence

            typer.echo(f"starfill: {sentence(said.items[0].origins)}", err=True)


@app.command("eval")
def evaluate(
    paths: Annotated[list[Path], typer.Argument(help="Folders, files or wheels to cut holes into.")],
    engine: Engine = None,
    model: Model = None,
    token_file: TokenFile = None,
    holes: Annotated[
        int | None, typer.Option(min=1, help="How many; 200 if left out, of a suite all.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, other holes.")] = 0,
    kind: Annotated[list[str] | None, typer.Option(help="Only these kinds of holes.")] = None,
    language: Annotated[list[str] | None, typer.Option(help="Only files of these languages.")] = None,
    layout: Annotated[str | None, typer.Option(help="anchored, spm or psm; the engine's choice if left out.")] = None,
    context: Annotated[list[str] | None, typer.Option(help="files (as if open) or path; none if left out.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, max=1_024, help="Longest completion.")] = None,
    invoked: Annotated[bool, typer.Option("--invoked", help="As if asked for by hand, inside words too.")] = False,
    ablate: Annotated[bool, typer.Option("--ablate", help="Switch each rule, layout and context off in turn.")] = False,
    as_json: Annotated[Path | None, typer.Option("--json", help="Append one JSON row to this file.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw where it gains.")] = None,
    recording: Annotated[Path | None, typer.Option(help="Keep whole generations here, and use those kept.")] = None,
    suite: Annotated[str | None, typer.Option(help="The paths are this published suite's files.")] = None,
    run_code: Annotated[
        bool,
        typer.Option(
            "--run-code",
            help="Allow to run what the model wrote: it can read your files, and change and delete them where this kernel "
            "lets nobody prevent that.",
        ),
    ] = False,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each problem of a suite with tests.")] = 1,
    prompted: Annotated[
        bool,
        typer.Option("--prompted", help="Show each such problem as one of a file of solutions, as StarCoder's card."),
    ] = False,
) -> None:
    """Cut holes into code, complete them through the whole pipeline, and say how good that is."""
    from rich.console import Console

    from lsp_server.evaluation.command import Options, contexts_of, evaluate, kinds_of, layout_of

    with reported():
        options = Options(
            paths=tuple(paths),
            holes=holes,
            seed=seed,
            kinds=kinds_of(kind or ()),
            languages=tuple(language or ()),
            layout=layout_of(layout),
            contexts=contexts_of(context or ()),
            max_tokens=max_tokens,
            automatic=not invoked,
            ablate=ablate,
            json_file=as_json,
            picture=svg,
            recording=recording,
            suite=suite,
            run_code=run_code,
            samples=samples,
            prompted=prompted,
        )
        _run(evaluate(options, _flags(engine, model, token_file), Console()))


@app.command()
def doctor(
    engine: Engine = None,
    model: Model = None,
    token_file: TokenFile = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16, int8 or int4.")] = None,
    kv_memory: Annotated[str | None, typer.Option(help="Memory for KV slots.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the installation, and the engine that these flags of `lsp` mean, and say what to do about what is wrong."""
    from engine.doctor import examine
    from lsp_server.once import wanted_engine

    with reported():
        flags = _flags(engine, model, token_file) | {"device": device, "dtype": dtype, "kv_memory": kv_memory}
        findings = examine(wanted_engine(flags))
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


def _say_nothing_to_show(reason: str | None, detail: str | None) -> None:
    from lsp_server.reasons import Reason

    said = ["starfill: nothing to show.", Reason(reason).text if reason else "", detail or ""]
    typer.echo(" ".join(filter(None, said)), err=True)


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
