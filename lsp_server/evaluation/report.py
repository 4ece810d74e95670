"""What came of many holes: means with intervals by language and kind, differences between variants, a table and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lsp_server.evaluation.runner import Result
from lsp_server.evaluation.scores import Estimate, estimate

MEASURES = {
    "exact": "exact match",
    "similarity": "edit similarity",
    "chrf": "chrF",
    "shown": "shown",
    "quiet": "quiet",
    "overrun": "over-generation",
    "broken": "parse failures",
    "repeated": "repetition",
    "tokens": "tokens",
    "seconds": "seconds",
    "computed": "prompt tokens",
}
"""Fields of a result and what they are called. All but the last three are shares; those of what was shown are so from
`overrun` to `repeated`, those of the holes where something (`shown`) or nothing (`quiet`) stood above them."""

SHARES = frozenset({"exact", "similarity", "chrf", "shown", "quiet", "overrun", "broken", "repeated"})
_NARROW = ("exact", "similarity", "shown", "quiet", "overrun", "broken", "tokens")
_WIDE = 220
COMPARED = ("exact", "similarity", "chrf", "shown", "quiet", "overrun", "broken", "tokens")

Estimates = dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class Group:
    """Results of one variant in one language and kind of hole; "all" for either."""

    variant: str
    language: str
    kind: str
    holes: int
    estimates: Estimates


def summarise(variant: str, results: Sequence[Result]) -> list[Group]:
    """All results, then by kind, by language, and by both where there are several of either."""
    languages = sorted({result.hole.language.id for result in results})
    kinds = sorted({str(result.hole.kind) for result in results})
    cells = [("all", "all"), *(("all", kind) for kind in kinds)]
    if len(languages) > 1:
        cells += [(language, "all") for language in languages]
        cells += [(language, kind) for language in languages for kind in kinds]
    groups = []
    for language, kind in cells:
        chosen = [
            result
            for result in results
            if language in ("all", result.hole.language.id) and kind in ("all", str(result.hole.kind))
        ]
        if chosen:
            groups.append(Group(variant, language, kind, len(chosen), measures(chosen)))
    return groups


def measures(results: Sequence[Result]) -> Estimates:
    """Every measure that applies to some of the results."""
    files = [result.hole.path for result in results]
    found = {name: estimate([getattr(result, name) for result in results], files) for name in MEASURES}
    return {name: value for name, value in found.items() if value is not None}


def differences(base: Sequence[Result], other: Sequence[Result]) -> Estimates:
    """Base minus other, hole by hole: what `base` has that `other` gives up. For shares, what is not shown counts as 0."""
    files = [result.hole.path for result in base]
    found: Estimates = {}
    for name in COMPARED:
        gains: list[float | None] = []
        for a, b in zip(base, other, strict=True):
            ours, theirs = getattr(a, name), getattr(b, name)
            gains.append(None if ours is None and theirs is None else (ours or 0.0) - (theirs or 0.0))
        value = estimate(gains, files)
        if value is not None:
            found[name] = value
    return found


def as_row(groups: Iterable[Group], gains: Mapping[str, Estimates], about: Mapping[str, Any]) -> dict[str, Any]:
    """One JSON object for a run."""
    return {
        **about,
        "groups": [
            {
                "variant": group.variant,
                "language": group.language,
                "kind": group.kind,
                "holes": group.holes,
                **{name: _numbers(name, value) for name, value in group.estimates.items()},
            }
            for group in groups
        ],
        "gains": {
            variant: {name: _numbers(name, value) for name, value in estimates.items()}
            for variant, estimates in gains.items()
        },
    }


def show(console: Console, groups: Sequence[Group], gains: Mapping[str, Estimates]) -> None:
    """Tables for a person; not on a terminal, as wide as they need to be."""
    if not console.is_terminal:
        console = Console(width=_WIDE, file=console.file)
    narrow = console.width < _WIDE // 2
    table = Table(title="shares in per cent; exact match with its 95 % interval", box=SIMPLE, pad_edge=False)
    asked = _NARROW if narrow else MEASURES
    names = [name for name in asked if any(name in group.estimates for group in groups)]
    for heading in ("variant", "language", "kind", "holes"):
        table.add_column(heading, no_wrap=not narrow)
    for name in names:
        table.add_column(MEASURES[name], justify="right")
    for group in groups:
        cells = [_cell(name, group.estimates.get(name)) for name in names]
        table.add_row(group.variant, group.language, group.kind, str(group.holes), *cells)
    console.print(table)
    if gains:
        title = "what each gives: with it minus without it, paired, 95 % interval; points or tokens"
        table = Table(title=title, box=SIMPLE, pad_edge=False)
        table.add_column("switched off")
        compared = [name for name in COMPARED if name in asked]
        for name in compared:
            table.add_column(MEASURES[name], justify="right")
        for variant, estimates in gains.items():
            table.add_row(variant, *(_gain(name, estimates.get(name)) for name in compared))
        console.print(table)


def _numbers(name: str, value: Estimate) -> dict[str, float]:
    factor, digits = (100, 2) if name in SHARES else (1, 4)
    return {
        "value": round(value.mean * factor, digits),
        "low": round(value.low * factor, digits),
        "high": round(value.high * factor, digits),
        "n": value.n,
    }


def _cell(name: str, value: Estimate | None) -> str:
    if value is None:
        return ""
    if name == "exact":
        return f"{100 * value.mean:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"
    return f"{100 * value.mean:.1f}" if name in SHARES else f"{value.mean:.3g}"


def _gain(name: str, value: Estimate | None) -> str:
    if value is None:
        return ""
    factor = 100 if name in SHARES else 1
    return f"{factor * value.mean:+.1f} ({factor * value.low:+.1f} to {factor * value.high:+.1f})"
