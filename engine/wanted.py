"""The engine that an editor's server would use, as `starfill doctor` looks at it: this user's own, or one at an address."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from engine import registry
from engine.api import CompletionRequest
from engine.client import EngineClient
from engine.errors import EngineAbsent, EngineUnavailable, Overloaded, RequestError, StarfillError
from engine.finding import Finding
from engine.models import ModelSource, locate
from engine.standing import describe

_PROBE_SECONDS = 120
_ASK_SECONDS = 5.0
_MOST_SIGNS = 100
_UNKNOWN = "see the token file, setting token_file or --token-file"
_ADDRESS = "start it, or correct the setting engine (--engine)"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which engine, as flags of `starfill lsp` and the settings say. `token` reads it; raises StarfillError."""

    engine: str = "auto"
    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    kv_memory: int = 512 * 2**20
    token: Callable[[], str | None] = lambda: None


def examine_wanted(wanted: Wanted) -> Iterator[Finding]:
    """Whether it could complete."""
    if wanted.engine != "auto":
        yield asyncio.run(_reach(wanted))
        return
    try:
        # As a language server does: a folder that is no path is not taken for a model.
        source = locate(wanted.model, trust_folder=False)
        running = _running(source)
    except StarfillError as error:
        yield Finding("model", False, str(error), "correct the setting model (--model)")
        return
    if running is not None:  # whose memory is taken already: what would fit beside it says nothing
        yield Finding("model", True, f"{source.id} in {source.directory}")
        yield Finding("device", True, _as_it_runs(wanted, running))
        return
    found = _foresee(source, wanted)
    if "error" in found:
        yield Finding("model", True, f"{source.id} in {source.directory}")
        yield Finding("device", False, found["error"], "correct what it names: the model, --device or --dtype")
        return
    yield Finding("model", True, f"{source.id} in {source.directory}, run by the {found['backend']} backend")
    yield Finding("device", True, f"{found['device']}, {found['dtype']} ({found['reason']})")


def _running(source: ModelSource) -> registry.EngineRecord | None:
    """Its engine, unless that could not load it: why is to be found out then."""
    socket = str(registry.socket_path(registry.engine_key(source)))
    record = next((record for record in registry.running_engines() if record.socket == socket), None)
    failed = record is not None and asyncio.run(describe(record))["state"] == "failed"
    return None if failed else record


def _as_it_runs(wanted: Wanted, running: registry.EngineRecord) -> str:
    """Where, and what of the wishes it was not started with."""
    if not running.device:
        return f"its engine is loading it (pid {running.pid})"
    where = f"its engine runs already, on {running.device} in {running.dtype} (pid {running.pid})"
    wishes = {"--device": (wanted.device, running.device), "--dtype": (wanted.dtype, running.dtype)}
    unmet = [f"{flag} {wish}" for flag, (wish, there) in wishes.items() if wish not in ("auto", there)]
    return f"{where}, without {' and '.join(unmet)}: starfill stop ends it" if unmet else where


def _foresee(source: ModelSource, wanted: Wanted) -> dict[str, str]:
    """In a child, because it takes torch."""
    command = [sys.executable, "-P", "-m", "engine.prospect"]
    arguments = [str(source.directory), wanted.device, wanted.dtype, str(wanted.kv_memory)]
    try:
        child = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False, cwd="/"
        )
    except subprocess.TimeoutExpired:
        return {"error": f"to look at it took over {_PROBE_SECONDS} s"}
    if child.returncode != 0:
        return {"error": (child.stderr.strip().splitlines() or ["no reason given"])[-1]}
    found: dict[str, str] = json.loads(child.stdout)
    return found


async def _reach(wanted: Wanted) -> Finding:
    """Ask an engine that nobody here starts who it is, and for one token of a text that is no user's."""
    where = wanted.engine
    try:
        client = EngineClient(where, wanted.token())
    except StarfillError as error:
        return Finding("engine", False, str(error), _UNKNOWN)
    try:
        who = _who(await client.model(_ASK_SECONDS))
        await _complete(client)
    except Overloaded:
        return Finding("engine", True, f"{where} answers as {who}, and has much to do")
    except RequestError as error:
        remedy = _UNKNOWN if error.status in (401, 403) else "see whether it has /v1/completions, and its own log"
        return Finding("engine", False, f"{where} refuses to complete (HTTP {error.status})", remedy)
    except EngineAbsent as error:
        return Finding("engine", False, f"{where}: {_printable(error)}", _ADDRESS)
    except EngineUnavailable as error:
        return Finding("engine", False, f"{where}: {_printable(error)}", f"see its own log, or {_ADDRESS}")
    finally:
        await client.aclose()
    return Finding("engine", True, f"{where} completes, as {who}")


async def _complete(client: EngineClient) -> None:
    async with client.complete(CompletionRequest(prompt="import ", max_tokens=1, temperature=0)) as chunks:
        async for _ in chunks:
            pass


def _who(model: dict[str, Any]) -> str:
    name = _printable(model.get("id") or "a model without a name")
    return f"{name}, an engine of starfill's" if isinstance(model.get("starfill"), dict) else name


def _printable(said: object) -> str:
    """A stranger's words for a terminal."""
    text = str(said)[:_MOST_SIGNS]
    return text if text.isprintable() else ascii(text)
