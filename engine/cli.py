"""Commands about engines: serve, status, stop. Imports torch only inside `serve`."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from engine import launcher, registry
from engine.errors import StarfillError
from engine.models import locate
from engine.sizes import parse_size

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _main() -> None:
    """The engine's own commands; `starfill` offers them too."""


@app.command()
def serve(
    model: Annotated[
        str | None, typer.Option(help="A model directory or downloaded id; the starter if left out.")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto or native.")] = "auto",
    socket: Annotated[Path | None, typer.Option(help="Listen on this Unix socket.")] = None,
    host: Annotated[str, typer.Option(help="With --port: the address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Listen on TCP instead; needs --token-file.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the bearer token that TCP clients send.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    window: Annotated[int | None, typer.Option(min=64, help="Context tokens, if fewer than the model has.")] = None,
    kv_memory: Annotated[str, typer.Option(help="Memory for KV slots.")] = "512MiB",
    max_batch: Annotated[int | None, typer.Option(min=1, help="At most so many requests at a time.")] = None,
    idle_exit: Annotated[str, typer.Option(help="Leave when unused for so long (30m, 45s; 0 for never).")] = "0",
) -> None:
    """Run an engine in the foreground."""
    with reported():
        if backend not in ("auto", "native"):
            raise StarfillError(f"--backend {backend!r}: this version has auto and native")
        logging.basicConfig(
            level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        from engine.loading import LoadOptions, load
        from engine.serve import Endpoint
        from engine.serve import serve as run

        source = locate(model)
        options = LoadOptions(source, device, dtype, window, parse_size(kv_memory), max_batch)
        if port is not None:
            endpoint = Endpoint(host=host, port=port, token=_token(token_file))
        else:
            endpoint = Endpoint(socket or _own_socket(registry.engine_key(source, dtype, device)))
        raise typer.Exit(run(source.id, lambda: load(options), endpoint, parse_duration(idle_exit)))


@app.command()
def status(as_json: Json = False) -> None:
    """List the running engines."""
    engines = asyncio.run(_describe_all())
    if as_json:
        typer.echo(json.dumps(engines))
    elif not engines:
        typer.echo("No engine is running. One starts with the first completion.")
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("pid", "model", "state", "dtype", "device", "slots held/cached/all", "up", "version")
        for e in engines:
            slots = e["slots"] or {}
            held = "/".join(str(slots.get(k, "?")) for k in ("held", "cached", "total"))
            up = f"{e['uptime']:.0f} s" if e["uptime"] is not None else "?"
            table.add_row(str(e["pid"]), e["model"], e["state"], e["dtype"], e["device"], held, up, e["version"])
        Console().print(table)


@app.command()
def stop(model: Annotated[str | None, typer.Argument(help="Only engines of this model.")] = None) -> None:
    """Stop running engines; they finish what they are streaming."""
    wanted = [record for record in registry.running_engines() if model in (None, record.model)]
    if not wanted:
        typer.echo(f"No engine of {model} is running." if model else "No engine is running.")
    for record in wanted:
        went = launcher.stop(record)
        typer.echo(f"Stopped {record.model} (pid {record.pid})" + ("." if went else ", by force."))


def parse_duration(text: str) -> float | None:
    """Seconds of `30m`, `45s`, `1h` or `90`; None for 0, which means never."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match:
        raise StarfillError(f"{text!r} is not a duration; write 45s, 30m, 1h, or 0 for never")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] or None


async def _describe_all() -> list[dict[str, Any]]:
    records = registry.running_engines()
    return list(await asyncio.gather(*(launcher.describe(record) for record in records)))


def _own_socket(key: str) -> Path:
    """A socket for an engine that is nobody's shared one: the shared name if free, else a numbered one beside it."""
    shared = registry.socket_path(key)
    for path in (shared, *(shared.with_stem(f"{key}-{n}") for n in range(1, 100))):
        record = registry.read_record(registry.record_path(path))
        if record is None or not record.alive:
            return path
    raise StarfillError("99 engines of this model are running; stop some with: starfill stop")


def _token(file: Path | None) -> str:
    if file is None:
        raise StarfillError("--port needs --token-file: a file that holds the token which clients must send")
    try:
        token = file.read_text().strip()
    except OSError as error:
        raise StarfillError(f"--token-file {file}: {error.strerror}") from error
    if len(token) < 16:
        raise StarfillError(f"--token-file {file}: the token must have at least 16 characters")
    return token


class reported:  # noqa: N801  (reads as a statement)
    """Turn our errors into one line on stderr and exit code 1."""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, StarfillError):
            typer.echo(f"starfill: {error}", err=True)
            raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
