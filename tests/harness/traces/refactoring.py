"""Changes in several places at once: a name that becomes another everywhere, a line that an editor adds at the top."""

from __future__ import annotations

import ast
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from tests.harness.traces.events import Event
from tests.harness.traces.typing import picked_bodies, type_body


def rename_trace(source: str, seed: int = 7, names: int = 3) -> Iterator[Event]:
    """A name is renamed in the whole file by one command, from one of its places; then the author types on there."""
    rng = random.Random(seed)
    counts = Counter(node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))
    common = sorted(name for name, count in counts.items() if count >= 4 and len(name) >= 3 and name.isidentifier())
    text = source
    for name in rng.sample(common, min(names, len(common))):
        pattern = re.compile(rf"\b{name}\b")
        places = [match.end() for match in pattern.finditer(text)]
        if not places:
            continue
        nth = rng.randrange(len(places))
        yield Event("jump", text[: places[nth]], text[places[nth] :], "")
        text = pattern.sub(f"{name}_renamed", text)
        at = [match.end() for match in re.finditer(rf"\b{name}_renamed\b", text)][nth]
        yield Event("rename", text[:at], text[at:], "")
        end = text.find("\n", at)
        for typed in range(len("  # was another") + 1):
            left = text[:end] + "  # was another"[:typed]
            yield Event("walk" if not typed else "char", left, text[end:], "")
        text = text[:end] + "  # was another" + text[end:]


def import_trace(source: str, seed: int = 7, functions: int = 3) -> Iterator[Event]:
    """Functions are typed again; in the middle of each, a name brings its import to the top of the file with it."""
    rng = random.Random(seed)
    imports = ""
    bodies = picked_bodies(source, rng, functions)
    for number, (start, end) in enumerate(bodies):
        typed = list(type_body(rng, source[:start], source[start:end], source[end:]))
        middle = len(typed) // 2
        for at, event in enumerate(typed):
            if at == middle:
                imports += f"import helper_{number}\n"
                yield replace(event, kind="import", prefix=imports + event.prefix)
            else:
                yield replace(event, prefix=imports + event.prefix)
