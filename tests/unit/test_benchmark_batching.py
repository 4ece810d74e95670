"""The question of what company costs, asked of a toy: every row is there and says how it was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import batching
from benchmarks.rows import read_rows


def test_every_comparison_has_a_row_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CONTEXT", 20), ("WINDOW", 256), ("ROUNDS", 1)):
        monkeypatch.setattr(batching, name, value)
    monkeypatch.setattr(batching, "COMPARED", {"2 decoding": ([1, 1], [[1], [1]]), "mixed": ([1, 9], [[1], [9]])})
    assert batching.main(["--out", str(tmp_path), "toy"]) == 0
    rows = read_rows([tmp_path / "batching.jsonl"])
    assert [(row.model, row.backend, row.unit) for row in rows] == [
        ("toy", "2 decoding", "ratio"),
        ("toy", "mixed", "ratio"),
        ("toy", "temperature", "ms"),
        ("toy", "top_p", "ms"),
    ]
    assert all(row.measured and row.value is not None for row in rows)
    assert all(row.command.startswith("python -m benchmarks.batching --out") for row in rows)


def test_both_sides_of_a_comparison_compute_the_same_tokens() -> None:
    for together, apart in batching.COMPARED.values():
        assert sorted(together) == sorted(length for lengths in apart for length in lengths)
        assert len(together) <= batching.SLOTS
        assert batching.CONTEXT + max(together) <= batching.WINDOW
