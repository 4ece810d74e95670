"""`python -m benchmarks.keystrokes.chart`: rows of keystrokes and layouts in docs/performance.md, and a plot beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.bars import Bar, draw
from benchmarks.rows import Row, read_rows

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results"
PAGE, PLOT = ROOT / "docs/performance.md", ROOT / "docs/keystrokes.svg"
BEGIN, END = "<!-- benchmarks.keystrokes.chart begins -->\n", "<!-- benchmarks.keystrokes.chart ends -->\n"
LAYOUTS = ("anchored", "spm", "psm")


def latest(rows: Iterable[Row]) -> list[Row]:
    """The newest answer to each question, in the order in which they were first asked."""
    found: dict[tuple[object, ...], Row] = {}
    for row in rows:
        asked = (row.question, row.backend, row.detail.get("trace"), row.detail.get("suffix"), row.detail.get("healed"))
        found[asked] = row
    return list(found.values())


def rows_of(name: str) -> list[Row]:
    """What was committed; nothing where nothing was measured yet."""
    path = RESULTS / f"{name}.jsonl"
    return latest(read_rows([path])) if path.exists() else []


def counted(rows: Sequence[Row]) -> str:
    """Prompt tokens computed, by trace, layout and suffix."""
    of = {
        (row.detail["trace"], row.detail["suffix"], row.backend): row
        for row in rows
        if row.question == "computed prompt tokens an event" and "suffix" in row.detail
    }
    asked = list(dict.fromkeys((trace, suffix) for trace, suffix, _ in of))
    body = [
        (str(trace), str(suffix), *(_cost(of[trace, suffix, layout]) for layout in LAYOUTS))
        for trace, suffix in asked
        if all((trace, suffix, layout) in of for layout in LAYOUTS)
    ]
    return _table(("trace", "suffix", *(f"`{name}` mean (p50 / p95)" for name in LAYOUTS)), body)


def answered(rows: Sequence[Row]) -> str:
    """The rest of the line at every event, by us and by others."""
    body: list[Sequence[str]] = []
    for row in rows:
        if row.question != "the rest of the line":
            continue
        if row.value is None:
            body.append((row.backend, "left out: " + row.skipped, *[""] * 7))
            continue
        times = (_of(row, "first_ms_p50"), _of(row, "line_ms_p50"), _of(row, "cpu_ms_p50"))
        tokens = (_of(row, "decoded"), _of(row, "thrown_away"))
        body.append((row.backend, _of(row, "trace"), _cost(row), _of(row, "prompt_p50"), *times, *tokens))
    heads = ("server", "trace", "computed: mean (p50 / p95)", "prompt", "first, ms", "line, ms", "CPU, ms")
    return _table((*heads, "decoded", "thrown away"), body)


def authored(rows: Sequence[Row]) -> str:
    """Authors at the whole server."""
    body = []
    counts = ("keys", "calls", "forward_calls", "prompt_tokens_computed", "prompt_tokens_cached", "tokens_generated")
    for row in rows:
        if not row.question.startswith("through the server"):
            continue
        served = "; ".join(
            f"{key.removeprefix('served ')}: {text}" for key, text in row.detail.items() if key.startswith("served ")
        )
        times = f"{_of(row, 'first_ms_p50')} / {_of(row, 'line_ms_p50')}"
        body.append((row.backend, *(_of(row, name) for name in counts), _of(row, "thrown_away"), times, served))
    heads = ("author", "keys", "model calls", "forward passes", "computed", "cached", "decoded", "thrown away")
    return _table((*heads, "first / line, ms (p50)", "served, by kind of event"), body)


def promised(rows: Sequence[Row]) -> str:
    """Every figure with its limit."""
    body = [
        (row.question, f"{row.value:.4g}", f"{row.limit:g}", row.unit, "holds" if row.passed else "does not hold")
        for row in rows
        if row.passed is not None and row.value is not None
    ]
    return _table(("promise", "figure", "limit", "unit", ""), body)


def quality(rows: Sequence[Row]) -> str:
    """Exact match and similarity of each way."""
    of = {(row.question, row.backend): row for row in rows}
    body = []
    for row in rows:
        similar = of.get(("layouts: similarity", row.backend))
        if row.question != "layouts: exact" or similar is None:
            continue
        d = row.detail
        gain = f"{d['gain']:+} ({d['gain_low']:+} to {d['gain_high']:+}), to {d['minus']}" if "gain" in d else ""
        exact = f"{row.value} ({d['low']} to {d['high']})"
        body.append(
            (row.backend, exact, f"{similar.value}", gain, f"{row.n}", _of(row, "prompt"), _of(row, "held_back"))
        )
    heads = ("layout and suffix", "exact match", "edit similarity", "difference", "holes", "prompt", "held back")
    return _table(heads, body)


def plot(rows: Sequence[Row]) -> str:
    """SVG: computed prompt tokens an event, as bars."""
    bars = [
        Bar(f"{row.backend}, {row.detail['trace']}", row.value, f"{row.value:.1f}", good=row.backend == "starfill")
        for row in rows
        if row.question == "the rest of the line" and row.value is not None
    ]
    title = "prompt tokens computed at an event, mean (lower is better)"
    return draw(title, bars, left=270, highest=max((bar.value for bar in bars), default=1.0))


def section() -> str:
    """All tables, with where their rows come from."""
    keys, layouts = rows_of("keystrokes"), rows_of("layouts")
    parts = [
        ("Computed prompt tokens an event, without jumps:", counted(keys)),
        ("The rest of the line, asked for at every event of a file:", answered(keys)),
        ("", f"![prompt tokens computed at an event]({PLOT.name})\n" if answered(keys) else ""),
        ("Through the language server:", authored(keys)),
        ("Quality of layouts and suffix budgets:", quality(layouts)),
        ("What is promised:", promised([*keys, *layouts])),
    ]
    sources = dict.fromkeys(f"`{row.command}` ({row.started})" for row in (*keys, *layouts))
    text = "\n".join("\n\n".join(filter(None, part)) for part in parts if part[1])
    return f"{text}\nFrom {'; '.join(sources)}.\n" if sources else ""


def main() -> int:
    """Rewrite the page's section and the plot."""
    page = PAGE.read_text("utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{PAGE.name} has no place for the tables: {BEGIN.strip()} ... {END.strip()}", file=sys.stderr)
        return 1
    PAGE.write_text(before + BEGIN + section() + END + after, "utf-8")
    PLOT.write_text(plot(rows_of("keystrokes")), "utf-8")
    return 0


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    if not body:
        return ""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(cells) + " |" for cells in body]
    return "\n".join([*lines, ""])


def _cost(row: Row) -> str:
    return f"{row.value:.2f} ({row.detail['p50']} / {row.detail['p95']})"


def _of(row: Row, name: str) -> str:
    return f"{row.detail.get(name, '')}"


if __name__ == "__main__":
    raise SystemExit(main())
