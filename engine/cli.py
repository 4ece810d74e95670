"""Commands about engines and what they serve: serve, status, stop, top, tune. Imports torch only inside a command."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from engine import launcher, logs, registry
from engine.backends import check_name
from engine.errors import EndpointTaken, StarfillError
from engine.models import locate
from engine.models.commands import app as models_app
from engine.sizes import parse_size
from engine.standing import describe

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(models_app, name="models")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _main() -> None:
    """The engine's own commands; `starfill` offers them too."""


@app.command()
def serve(
    model: Annotated[
        str | None, typer.Option(help="A model directory or downloaded id; the starter if left out.")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="auto, native or transformers (slower; other families of models).")
    ] = "auto",
    socket: Annotated[Path | None, typer.Option(help="Listen on this Unix socket.")] = None,
    host: Annotated[str, typer.Option(help="With --port: the address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Listen on TCP instead; needs --token-file.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the bearer token that TCP clients send.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16, int8 or int4.")] = "auto",
    window: Annotated[int | None, typer.Option(min=64, help="Context tokens, if fewer than the model has.")] = None,
    kv_memory: Annotated[str, typer.Option(help="Memory for KV slots.")] = "512MiB",
    max_batch: Annotated[int | None, typer.Option(min=1, help="At most so many requests at a time.")] = None,
    idle_exit: Annotated[str, typer.Option(help="Leave when unused for so long (30m, 45s; 0 for never).")] = "0",
    log_file: Annotated[
        Path | None, typer.Option(help="Log here as JSON lines, rotated; else to standard error.")
    ] = None,
) -> None:
    """Run an engine in the foreground."""
    with reported():
        check_name(backend)
        logs.configure(log_file)
        logs.catch_all()
        from engine.endpoint import Endpoint, read_token
        from engine.loading import LoadOptions, load
        from engine.serve import Manner
        from engine.serve import serve as run

        source = locate(model)
        options = LoadOptions(source, device, dtype, window, parse_size(kv_memory), max_batch, backend)
        flags = {
            "device": device, "dtype": dtype, "window": window, "kv_memory": kv_memory, "max_batch": max_batch,
        }  # fmt: skip
        manner = Manner(parse_duration(idle_exit), flags=flags)
        if port is not None:
            endpoints = iter([Endpoint(host=host, port=port, token=read_token(token_file))])
        elif socket is not None:
            endpoints = iter([Endpoint(socket)])
        else:
            endpoints = map(Endpoint, _own_sockets(registry.engine_key(source)))
        for endpoint in endpoints:
            try:
                raise typer.Exit(run(source.id, lambda: load(options), endpoint, manner))
            except EndpointTaken:
                if socket is not None:
                    raise
        raise StarfillError("99 engines of this model are running; stop some with: starfill stop")


@app.command()
def status(as_json: Json = False) -> None:
    """List the running engines."""
    with reported():
        engines = asyncio.run(_describe_all())
    if as_json:
        typer.echo(json.dumps(engines))
    elif not engines:
        typer.echo("No engine is running. One starts with the first completion.")
    else:
        from rich.console import Console

        from engine.views import status_table

        console = Console(markup=False, highlight=False)
        console.print(status_table(engines))
        for engine in engines:
            if engine["note"]:
                console.print(f"{engine['model']}: {engine['note']}.")
            for flags, times in engine["asked"].items():
                console.print(
                    f"{engine['model']} was asked for {flags} ({times}x) while it ran already: stop it to change that."
                )


@app.command()
def stop(model: Annotated[str | None, typer.Argument(help="Only engines of this model.")] = None) -> None:
    """Stop running engines; they finish what they are streaming."""
    with reported():
        wanted = [record for record in registry.running_engines() if model in (None, record.model)]
    if not wanted:
        typer.echo(f"No engine of {model} is running." if model else "No engine is running.")
    for record in wanted:
        went = launcher.stop(record)
        typer.echo(f"Stopped {record.model} (pid {record.pid})" + ("." if went else ", by force."))


@app.command()
def top(
    once: Annotated[bool, typer.Option("--once", help="Print what is known now, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --once: print JSON.")] = False,
) -> None:
    """Watch the engines at work, request by request. Ctrl-C ends it."""
    from engine.top import print_once, watch

    with reported():
        if once or as_json:
            asyncio.run(print_once(as_json=as_json))
        else:
            try:
                asyncio.run(watch())
            except KeyboardInterrupt:
                raise typer.Exit(0) from None


@app.command()
def tune(
    path: Annotated[
        Path | None, typer.Argument(help="A repository, or a .jsonl file of instruction, input and response.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to start from, which is not changed; the starter if left out.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What --model is to call the result.")] = None,
    adapter: Annotated[
        bool | None,
        typer.Option("--adapter/--whole", help="A low-rank adapter, or all weights; left out, the size decides."),
    ] = None,
    rank: Annotated[int, typer.Option(min=1, max=256, help="Of an adapter.")] = 8,
    minutes: Annotated[float, typer.Option(min=0.01, help="How long to train.")] = 10.0,
    steps: Annotated[int, typer.Option(min=0, help="So many steps instead, to be repeated exactly.")] = 0,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Files to leave out, as in .gitignore; may be given again.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N; a GPU if there is one.")] = "",
    seed: Annotated[int, typer.Option(help="Another seed, another order.")] = 1,
    undo: Annotated[str | None, typer.Option(metavar="NAME", help="Remove a tuned model.")] = None,
) -> None:
    """Tune a model on your own code, or on instruction pairs. What does not help on held-out examples is not kept."""
    from engine import tuning

    with reported():
        if undo is not None:
            typer.echo(f"Removed {tuning.undo(undo)}.")
            return
        if path is None:
            raise StarfillError("tune: give a repository or a .jsonl file of pairs")
        from engine.training.tune import TunePlan

        plan = TunePlan(minutes=minutes, steps=steps, adapter=adapter, rank=rank, device=device, seed=seed)
        try:
            tuned = tuning.tune(path, model, name, plan, tuple(exclude or ()))
        except KeyboardInterrupt:
            typer.echo("starfill: stopped; nothing was written", err=True)
            raise typer.Exit(130) from None
        for line in tuned.report():
            typer.echo(line)
        if tuned.directory is None:
            raise typer.Exit(1)


def parse_duration(text: str) -> float | None:
    """Seconds of `30m`, `45s`, `1h` or `90`; None for 0, which means never."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match:
        raise StarfillError(f"{text!r} is not a duration; write 45s, 30m, 1h, or 0 for never")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] or None


async def _describe_all() -> list[dict[str, Any]]:
    records = registry.running_engines()
    return list(await asyncio.gather(*(describe(record) for record in records)))


def _own_sockets(key: str) -> Iterator[Path]:
    """Sockets for an engine that is nobody's shared one: the shared name if free, else a numbered one beside it."""
    registry.sweep()
    shared = registry.socket_path(key)
    yield shared
    yield from (shared.with_stem(f"{key}-{n}") for n in range(1, 100))


class reported:  # noqa: N801  (reads as a statement)
    """Turn our errors into one line on stderr and exit code 1."""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, StarfillError):
            typer.echo(f"starfill: {error}", err=True)
            raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
