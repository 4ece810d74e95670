"""The benchmark of keys: what is counted, what is held against a limit, what the page shows, how peers are asked."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from benchmarks.cpu.peer import PeerMissing
from benchmarks.keystrokes import chart, figures, peers
from benchmarks.keystrokes.replay import Cost, wasted
from benchmarks.rows import Row, read_rows
from engine.models import STARTER
from engine.tokenizer import Tokenizer
from tests.harness.traces import Event

TOKENIZER = Tokenizer(STARTER / "tokenizer.json")
ROW = Row(
    "the rest of the line", "m", "float32", "cpu", True, 2.0, "tokens", "python -m x", backend="starfill",
    detail={"trace": "typing", "p50": 1, "p95": 3, "prompt_p50": 900, "decoded": 4.0},
)  # fmt: skip


@pytest.mark.parametrize(
    ("said", "want", "count"),
    [(["re", "turn"], "return x", 0), (["re", "st"], "return", 1), (["a", "b"], "c", 2), ([], "x", 0), (["x"], "", 1)],
)
def test_tokens_are_wasted_from_the_first_that_the_author_did_not_type(said: list[str], want: str, count: int) -> None:
    assert wasted(said, want) == count


def test_jumps_are_no_keys_and_the_dearest_event_is_held_against_the_window() -> None:
    costs = [Cost("jump", 900, 900), *[Cost("char", 900, 1)] * 18, Cost("newline", 900, 5), Cost("rename", 900, 700)]
    assert figures.mean_computed(costs) == pytest.approx(23 / 19)
    found = figures.detail(costs)
    assert (found["events"], found["p50"], found["p95"], found["jump_most"]) == (21, 1, 5, 900)
    held = {bar.name: bar.held for bar in figures.bars("typing", costs)}
    assert held == {"a jump, most": True, "p50": True, "p95": False, "mean": True}
    assert not next(iter(figures.bars("walking", costs, window=800))).held


def test_means_and_times_are_of_what_a_subject_can_say() -> None:
    costs = [Cost("char", 9, 1, calls=2, generated=3, first=0.01), Cost("char", 9, 1, calls=4, generated=5, first=0.03)]
    found = figures.detail(costs)
    assert (found["calls"], found["decoded"], found["first_ms_p50"]) == (3, 4, 30.0)
    assert "cpu_ms_p50" not in found
    assert "thrown_away" not in found


def test_the_usual_window_slides_with_the_cursor_and_ours_does_not() -> None:
    lines = [f"value_{number} = compute(number={number})\n" for number in range(400)]
    usual, ours = peers.usual_prompt(TOKENIZER), peers.our_prompt(TOKENIZER)
    prompts = [
        [make(Event("char", "".join(lines[:at]), "\n" + "".join(lines[at:]), "")) for at in (200, 201)]
        for make in (usual, ours)
    ]
    for (first, then), stays in zip(prompts, (False, True), strict=True):
        assert len(first) <= 2_048
        assert (first[:200] == then[:200]) is stays
    assert prompts[0][0][0] == TOKENIZER.control.fim_prefix
    assert prompts[0][0][-1] == TOKENIZER.control.fim_middle


def test_a_peer_that_is_not_there_says_how_it_could_be(tmp_path: Path) -> None:
    with pytest.raises(PeerMissing, match="--vllm"), peers.vllm_server(tmp_path / "python", 1, tmp_path):
        pass


def test_the_latest_answer_counts_and_what_was_left_out_says_why() -> None:
    newer = dataclasses.replace(ROW, value=1.5)
    missing = dataclasses.replace(ROW, value=None, backend="vLLM", detail={}, skipped="no Python there")
    rows = chart.latest([ROW, newer, missing])
    table = chart.answered(rows)
    assert "| starfill | typing | 1.50 (1 / 3) | 900 |" in table
    assert "| vLLM | left out: no Python there |" in table
    assert re.findall(r">([\d.]+)</text>", chart.plot(rows)) == ["1.5"]


def test_the_page_shows_the_rows_that_are_there() -> None:
    shown = chart.PAGE.read_text("utf-8").partition(chart.BEGIN)[2].partition(chart.END)[0]
    assert shown == chart.section()
    assert chart.PLOT.read_text("utf-8") == chart.plot(chart.rows_of("keystrokes"))


def test_every_promise_that_was_measured_holds() -> None:
    rows = chart.latest(read_rows([chart.RESULTS / "keystrokes.jsonl"]))
    promised = [row for row in rows if row.passed is not None]
    assert len(promised) >= 10
    assert [row.question for row in promised if row.failed] == []
