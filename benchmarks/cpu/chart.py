"""`python -m benchmarks.cpu.chart`: the rows of `cpu.jsonl` as a table in docs/performance.md and a plot beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars import Bar, draw
from benchmarks.rows import Row, read_rows

ROOT = Path(__file__).resolve().parents[2]
ROWS = ROOT / "benchmarks/results/cpu.jsonl"
PAGE, PLOT = ROOT / "docs/performance.md", ROOT / "docs/cpu.svg"
BEGIN, END = "<!-- benchmarks.cpu.chart begins -->\n", "<!-- benchmarks.cpu.chart ends -->\n"
BAR = 0.9
_BACKENDS = ("starfill", "llama.cpp", "starfill / llama.cpp")
_HEADINGS = (
    "model",
    "precision",
    "question",
    "starfill, tokens/s",
    "llama.cpp, tokens/s",
    "ratio",
    "ratio by CPU time",
)


@dataclass(frozen=True, slots=True)
class Pair:
    """One question's three rows."""

    ours: Row
    theirs: Row
    ratio: Row

    @property
    def question(self) -> str:
        """In words."""
        context = self.ratio.detail["context"]
        return f"prefill of {context}" if self.ratio.question == "prefill" else f"decode after {context:,}"


def pairs(rows: Iterable[Row]) -> list[Pair]:
    """The latest complete answer to each question."""
    latest: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in rows:
        key = (row.model, row.dtype, row.question, row.detail["context"], row.device)
        latest.setdefault(key, {})[row.backend] = row
    return [Pair(*(found[name] for name in _BACKENDS)) for found in latest.values() if set(found) >= set(_BACKENDS)]


def measured() -> list[Pair]:
    """What the committed rows say; nothing where none were measured yet."""
    return pairs(read_rows([ROWS])) if ROWS.exists() else []


def table(found: Sequence[Pair]) -> str:
    """Markdown, with where the rows come from; nothing without rows."""
    if not found:
        return ""
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|" + "---|" * len(_HEADINGS)]
    for pair in found:
        ratio = pair.ratio
        cells = (
            ratio.model, ratio.dtype, pair.question, f"{pair.ours.value:.4g}", f"{pair.theirs.value:.4g}",
            f"{ratio.value:.2f}", f"{ratio.detail['by_cpu_time']:.2f}",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    sources = dict.fromkeys(f"`{pair.ratio.command}` on {pair.ratio.device} ({pair.ratio.started})" for pair in found)
    lines += ["", f"![ratios by CPU time]({PLOT.name})"]
    return "\n".join([*lines, "", "From " + "; ".join(sources) + ".", ""])


def plot(found: Sequence[Pair]) -> str:
    """SVG: the ratio of each question as a bar, by CPU time, and a line where the two are equal."""
    bars = []
    for pair in found:
        ratio = float(pair.ratio.detail["by_cpu_time"])
        label = f"{pair.ratio.model}, {pair.ratio.dtype}, {pair.question}"
        bars.append(Bar(label, ratio, f"{ratio:.2f}", good=ratio >= BAR))
    title = "starfill / llama.cpp, tokens per second of CPU time (higher is better)"
    return draw(title, bars, left=250, highest=max(1.5, *(bar.value for bar in bars)), mark=1.0)


def main(arguments: Sequence[str]) -> int:
    """Rewrite the page's section and the plot."""
    found = measured()
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + table(found) + END + after, "utf-8")
    if found:
        PLOT.write_text(plot(found), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
