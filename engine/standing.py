"""How a running engine stands, as `starfill status`, `top` and `doctor` say it. No torch."""

from __future__ import annotations

from typing import Any

from engine import registry
from engine.client import EngineClient
from engine.errors import EngineAbsent, EngineUnavailable


async def describe(record: registry.EngineRecord) -> dict[str, Any]:
    """One entry of `starfill status`."""
    client = EngineClient(f"unix:{record.socket}")
    health: dict[str, Any]
    try:
        health = await client.health()
    except EngineAbsent:
        health = {"status": "leaving"}
    except EngineUnavailable:
        health = {"status": "not answering"}
    finally:
        await client.aclose()
    return {
        "pid": record.pid,
        "socket": record.socket,
        "model": record.model,
        "dtype": record.dtype,
        "device": record.device,
        "version": record.version,
        "state": health.get("status"),
        "slots": health.get("slots"),
        "uptime": health.get("uptime"),
        "why": health.get("why"),
        "backend": health.get("backend"),
        "note": health.get("note") or "",
        "asked": health.get("asked") or {},
        "error": health.get("error"),
    }
