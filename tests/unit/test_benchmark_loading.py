"""The benchmark of loading, on a model so small that only its form can be looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.loading import LIMIT, MEMORY, QUESTION, in_a_child, rows_of, write_checkpoint
from benchmarks.rows import Run
from benchmarks.shapes import FAMILY


def test_both_sides_are_measured_and_held_against_their_limits(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, replace(FAMILY["toy"], vocab_size=8_192), "bfloat16")
    found = in_a_child(tmp_path, rounds=2)
    files = list(tmp_path.glob("*.safetensors"))
    assert found["bytes"] == sum(file.stat().st_size for file in files)
    assert found["shard"] == max(file.stat().st_size for file in files) < found["bytes"]
    assert 0 < found["read_s"] < found["load_s"]
    assert found["dtype"] == "float32"
    speed, memory = rows_of("toy", "bfloat16", found, Run.of(["toy:bfloat16"], "cpu", 5, module="benchmarks.loading"))
    assert (speed.question, speed.limit, speed.command) == (
        QUESTION,
        LIMIT,
        "python -m benchmarks.loading toy:bfloat16",
    )
    assert speed.value == found["load_s"] / found["read_s"]
    assert speed.passed is (found["load_s"] <= LIMIT * found["read_s"])
    assert memory.question == MEMORY


def test_limits_are_the_projects() -> None:
    found = {"read_s": 2.0, "load_s": 3.0, "load_cpu_s": 4.0, "bytes": 100, "shard": 40, "model": 90,
             "peak": 130, "ratios": [1.5], "dtype": "bfloat16"}  # fmt: skip
    run = Run.of([], "cpu", 5, module="benchmarks.loading")
    assert [row.passed for row in rows_of("1b", "bfloat16", found, run)] == [True, True]
    assert [row.passed for row in rows_of("1b", "bfloat16", found | {"load_s": 3.1, "peak": 131}, run)] == [
        False,
        False,
    ]
