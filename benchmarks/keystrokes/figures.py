"""What many events come to, and the bars that they are held against."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.keystrokes.replay import WINDOW, Cost
from benchmarks.rows import Detail
from tests.harness.traces.events import JUMPS


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure and the most that it may be."""

    name: str
    value: float
    limit: float

    @property
    def held(self) -> bool:
        """Whether it is no more."""
        return self.value <= self.limit


def at(values: Iterable[float], share: float) -> float:
    """A quantile; 0 of nothing."""
    found = sorted(values)
    return found[min(len(found) - 1, int(share * len(found)))] if found else 0.0


def keys(costs: Iterable[Cost]) -> list[Cost]:
    """All events but those that change the text around the cursor from end to end."""
    return [cost for cost in costs if cost.kind not in JUMPS]


def mean_computed(costs: Iterable[Cost]) -> float:
    """Prompt tokens computed at an event that is no jump."""
    return statistics.fmean(cost.computed for cost in keys(costs))


def detail(costs: Sequence[Cost]) -> Detail:
    """All that is worth knowing of a trace; times in milliseconds."""
    typed, jumps = keys(costs), [cost.computed for cost in costs if cost.kind in JUMPS]
    found: dict[str, int | float | str | bool] = {
        "events": len(costs),
        "p50": int(at((cost.computed for cost in typed), 0.5)),
        "p95": int(at((cost.computed for cost in typed), 0.95)),
        "jump_p50": int(at(jumps, 0.5)),
        "jump_most": max(jumps, default=0),
        "prompt_p50": int(at((cost.prompt for cost in costs), 0.5)),
        "reused": round(1 - sum(c.computed for c in costs) / sum(c.prompt for c in costs), 4),
    }
    for name, pick in _COUNTED.items():
        values = [value for cost in typed if (value := pick(cost)) is not None]
        if values:
            found[name] = round(statistics.fmean(values), 2)
    for name, time in _TIMED.items():
        values = [1000 * value for cost in typed if (value := time(cost)) is not None]
        if values:
            found |= {f"{name}_p50": round(at(values, 0.5), 1), f"{name}_p95": round(at(values, 0.95), 1)}
    return found


_COUNTED: dict[str, Callable[[Cost], float | None]] = {
    "calls": lambda cost: cost.calls,
    "regrown": lambda cost: cost.regrown,
    "decoded": lambda cost: cost.generated,
    "thrown_away": lambda cost: cost.wasted,
}
_TIMED: dict[str, Callable[[Cost], float | None]] = {
    "first_ms": lambda cost: cost.first,
    "line_ms": lambda cost: cost.whole,
    "cpu_ms": lambda cost: cost.cpu,
}


def bars(trace: str, costs: Sequence[Cost], window: int = WINDOW) -> list[Bar]:
    """What is promised of a trace under the default layout."""
    typed = [cost.computed for cost in keys(costs)]
    most = max((cost.computed for cost in costs), default=0)
    found = [Bar("a jump, most", most, window), Bar("p50", at(typed, 0.5), 2)]
    if trace == "walking":
        return [*found, Bar("mean", statistics.fmean(typed), 50)]
    return [*found, Bar("p95", at(typed, 0.95), 4), Bar("mean", statistics.fmean(typed), 6)]
