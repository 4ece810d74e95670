"""`starfill top`: the engines of this user at work. Reads their accounts over their sockets; knows no user text."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from engine import registry
from engine.client import EngineClient
from engine.errors import EngineUnavailable
from engine.registry import EngineRecord
from engine.standing import describe

_REFRESH_SECONDS = 0.5


async def look() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each running engine's status and page of accounts; an engine that does not answer has an empty page."""
    return list(await asyncio.gather(*(_look_at(record) for record in registry.running_engines())))


async def watch() -> None:
    """Draw until cancelled."""
    from rich.console import Console, Group
    from rich.live import Live

    from engine.views import requests_view

    console = Console(markup=False, highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            seen = await look()
            most = max(3, console.height // max(1, len(seen)) - 5)
            parts = [requests_view(engine, page, most) for engine, page in seen]
            live.update(Group(*parts) if parts else "No engine is running.", refresh=True)
            await asyncio.sleep(_REFRESH_SECONDS)


async def print_once(*, as_json: bool) -> None:
    """What `watch` would draw now, once."""
    seen = await look()
    if as_json:
        print(json.dumps([{"engine": engine, **page} for engine, page in seen]))  # noqa: T201
        return
    from rich.console import Console

    from engine.views import requests_view

    console = Console(markup=False, highlight=False)
    if not seen:
        console.print("No engine is running.")
    for engine, page in seen:
        console.print(requests_view(engine, page, 20))


async def _look_at(record: EngineRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    client = EngineClient(f"unix:{record.socket}")
    page: dict[str, Any] = {}
    try:
        page = await client.requests()
    except EngineUnavailable:
        pass
    finally:
        await client.aclose()
    return await describe(record), page
