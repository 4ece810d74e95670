"""A key costs the same in a long file as in a short one, from the bytes of the edit to the call of the engine."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

from benchmarks.server import LINES, SUBJECTS, Starfill, main, measure
from tests.harness.aio import async_test


@async_test(timeout=120)
async def test_the_length_of_the_file_does_not_count() -> None:
    taken = await measure(LINES, keys=120, subjects={"starfill": Starfill})
    short, long = (statistics.median(taken["starfill", lines]) for lines in LINES)
    assert long < 2 * short, f"{short * 1e3:.2f} ms at {LINES[0]} lines, {long * 1e3:.2f} ms at {LINES[1]}"
    # The bound is for loaded machines; the figure is measured by `python -m benchmarks.server`.
    assert long < 0.005


def test_both_servers_are_measured_and_each_result_is_a_row(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), "--lines", "200", "400", "--keys", "20"]) == 0
    taken = asyncio.run(measure((200,), keys=20))
    assert set(taken) == {(name, 200) for name in SUBJECTS}
    assert all(len(seconds) == 20 and min(seconds) > 0 for seconds in taken.values())
