"""The flags with which an engine is started, and what becomes of them when it runs already with others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine.errors import RequestError

NAMES = ("device", "dtype", "window", "kv_memory", "max_batch")
"""Those that make a difference to what is served."""

MAX_VALUE = 64
"""Characters of one value."""


def parse_flags(body: bytes) -> dict[str, str | int]:
    """What a client asks for, defaults left out; raises RequestError."""
    try:
        found = json.loads(body)
        items = dict(found.items())
    except (ValueError, AttributeError, RecursionError) as error:
        raise RequestError("send a JSON object of flags", code="invalid_value") from error
    for name, value in items.items():
        sound = isinstance(value, int) or (isinstance(value, str) and len(value) <= MAX_VALUE and value.isprintable())
        if name not in NAMES or not sound or isinstance(value, bool):
            raise RequestError(f"flags are {', '.join(NAMES)}, each a word or a number", code="invalid_value")
    return {name: value for name, value in items.items() if value != "auto"}


def not_in_effect(
    wanted: Mapping[str, str | int], flags: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, str | int]:
    """Those of the wanted flags that an engine started with `flags` does not meet; `facts` say what `auto` came to."""
    return {name: value for name, value in wanted.items() if value not in (flags.get(name), facts.get(name))}


def as_words(flags: Mapping[str, Any]) -> str:
    """As one would type them."""
    return " ".join(f"--{name.replace('_', '-')} {flags[name]}" for name in NAMES if name in flags)
