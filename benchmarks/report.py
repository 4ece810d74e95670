"""Rows as tables: plain text at the end of a run, Markdown for the docs (`python -m benchmarks.report results/*.jsonl`)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.rows import Row, read_rows

HEADINGS = ("question", "model", "dtype", "backend", "detail", "measured", "p10..p90", "predicted", "unit", "n")


def text_table(rows: Sequence[Row]) -> str:
    """Every row on one line, for a terminal, and a verdict."""
    cells = [("question", "model", "dtype", "backend", "value", "unit", "what", "detail")]
    cells += [
        (
            r.question,
            r.model,
            r.dtype,
            r.backend,
            _number(r.value),
            r.unit,
            _what(r),
            "; ".join(filter(None, (_detail(r), r.error, r.skipped))),
        )
        for r in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(7)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[7]]).rstrip() for line in cells]
    checks = [row for row in rows if row.passed is not None]
    failed, errors = sum(row.failed for row in rows), sum(bool(row.error) for row in rows)
    verdict = f"{len(checks) - failed} of {len(checks)} correctness rows passed, {errors} questions raised an error"
    return "\n".join([*lines, verdict])


def markdown(rows: Iterable[Row]) -> str:
    """Measured beside predicted, one table per device; the latest of equal questions counts."""
    latest: dict[tuple[object, ...], Row] = {}
    for row in rows:
        latest[(*_subject(row), row.backend, row.measured, tuple(sorted(_asked(row).items())))] = row
    lines = []
    devices = list(dict.fromkeys(row.device for row in latest.values()))
    for device in devices:
        mine = [row for row in latest.values() if row.device == device]
        lines += [f"### {device}", "", _line(HEADINGS), _line(["---"] * len(HEADINGS))]
        predicted = [row for row in mine if not row.measured]
        used: set[int] = set()
        for row in mine:
            if row.measured:
                match = next((p for p in predicted if _predicts(p, row)), None)
                used |= {id(match)}
                lines.append(_markdown_row(row, match))
        lines += [_markdown_row(None, p) for p in predicted if id(p) not in used]
        sources = dict.fromkeys(f"`{r.command}` at {r.commit[:12] or 'an unknown commit'} ({r.started})" for r in mine)
        lines += ["", "From " + "; ".join(sources) + ".", ""]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print the Markdown of some files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    try:
        print(markdown(read_rows(parser.parse_args(arguments).files)))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _subject(row: Row) -> tuple[str, ...]:
    return (row.device, row.question, row.model, row.dtype)


def _asked(row: Row) -> dict[str, object]:
    """What the detail says of the question, without what it says of the answer."""
    keep = ("context", "tokens", "mode", "operation", "pieces")
    return {k: v for k, v in row.detail.items() if k in keep}


def _predicts(prediction: Row, row: Row) -> bool:
    return _subject(prediction) == _subject(row) and _asked(prediction).items() <= _asked(row).items()


def _markdown_row(row: Row | None, prediction: Row | None) -> str:
    of = row or prediction
    assert of is not None
    measured = "" if row is None else row.error or row.skipped or _number(row.value)
    if row is not None and row.passed is not None:
        measured += " (passed)" if row.passed else " (FAILED)"
    spread = "" if row is None or row.p10 is None else f"{_number(row.p10)}..{_number(row.p90)}"
    guess = "" if prediction is None else f"{_number(prediction.value)} ({prediction.backend})"
    n = str(row.n) if row is not None and row.value is not None else ""
    return _line((of.question, of.model, of.dtype, of.backend, _detail(of), measured, spread, guess, of.unit, n))


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _detail(row: Row) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in row.detail.items())


def _what(row: Row) -> str:
    if row.error:
        return "ERROR"
    if row.skipped:
        return "skipped"
    if row.passed is not None:
        return "passed" if row.passed else "FAILED"
    return "measured" if row.measured else "predicted"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
