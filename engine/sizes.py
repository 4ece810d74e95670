"""Bytes as people write them."""

from __future__ import annotations

import math
import re

from engine.errors import DeviceError


def human_size(count: float) -> str:
    """Bytes as a person writes them: 3.4 GiB."""
    power = min(4, int(math.log(max(count, 1), 1024)))
    return f"{count / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def parse_size(text: str) -> int:
    """Bytes of `512MiB`, `2G` or `1000000`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?", text.strip().lower())
    if not match:
        raise DeviceError(f"{text!r} is not a size; write 512MiB or 2GiB")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2] or " "))
