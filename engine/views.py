"""What the commands show of engines: tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_COLOURS = {"ready": "green", "served": "green", "decode": "cyan", "prefill": "cyan", "failed": "red", "refused": "red"}


def status_table(engines: list[dict[str, Any]]) -> Table:
    """One line for each engine of `starfill status`."""
    table = Table("pid", "model", "state", "backend", "dtype", "device", "slots held/cached/all", "up", "version")
    for engine in engines:
        why = f" ({engine['why']})" if engine.get("why") else ""
        table.add_row(
            str(engine["pid"]),
            engine["model"],
            _state(str(engine["state"])),
            engine.get("backend") or "?",
            f"{engine['dtype'] or '?'}{why}",
            engine["device"] or "?",
            _slots(engine["slots"]),
            _seconds(engine["uptime"]),
            engine["version"],
        )
    return table


def requests_view(engine: dict[str, Any], page: dict[str, Any], most: int) -> RenderableType:
    """One engine's part of `starfill top`: its totals, and its newest requests, at most `most` of them."""
    totals = page.get("totals") or {}
    head = Text.assemble(
        (f"{engine['model']} ", "bold"),
        f"{engine['state']}, {engine['dtype'] or '?'} on {engine['device'] or '?'}, pid {engine['pid']}, "
        f"up {_seconds(engine['uptime'])}, slots {_slots(engine['slots'])}, waiting {_count(totals, 'waiting')}\n"
        f"tokens of prompts: {_count(totals, 'prompt_tokens_cached')} reused, "
        f"{_count(totals, 'prompt_tokens_computed')} computed, "
        f"{_count(totals, 'kv_tokens_thrown_away')} thrown away; {_count(totals, 'tokens_generated')} generated in "
        f"{_count(totals, 'forward_calls')} passes",
    )
    table = Table(
        "request", "document", "state", "prompt", "reused", "computed", "discarded", "queued", "first", "total",
        "tokens", "tokens/s", "ended", "not shown", expand=True, box=None, header_style="dim",
    )  # fmt: skip
    for column in table.columns[3:12]:
        column.justify = "right"
    for request in (page.get("requests") or [])[:most]:
        table.add_row(*_row(request))
    return Group(head, table, "")


def _row(request: dict[str, Any]) -> list[str | Text]:
    spent = (request["total"] or 0.0) - (request["first"] or 0.0)
    rate = f"{(request['generated'] - 1) / spent:.0f}" if request["generated"] > 1 and spent > 0 else ""
    return [
        str(request["id"]),
        request["document"],
        _state(request["state"]),
        *(str(request[name]) for name in ("prompt", "reused", "computed", "discarded")),
        *(_milliseconds(request[name]) for name in ("queued", "first", "total")),
        str(request["generated"]),
        rate,
        request["ended"] or "",
        request["shown"] or "",
    ]


def _state(state: str) -> Text:
    return Text(state, style=_COLOURS.get(state, ""))


def _slots(slots: dict[str, Any] | None) -> str:
    return "/".join(str((slots or {}).get(name, "?")) for name in ("held", "cached", "total"))


def _count(totals: dict[str, Any], name: str) -> str:
    value = totals.get(name, totals.get(f"{name}_total"))
    return "?" if value is None else f"{value:,.0f}"


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f} s"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value * 1000:.0f} ms"
