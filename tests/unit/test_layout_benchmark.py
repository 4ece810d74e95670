"""The benchmark of layouts: every way of every hole is asked for once, kept, taken up again, and held against the default."""

from __future__ import annotations

import inspect
import shlex
from pathlib import Path

import pytest

from benchmarks.keystrokes.replay import counting_engine
from benchmarks.layouts.generations import KINDS, Generations, Recordings, Said
from benchmarks.layouts.scores import Answered, rows_of, shaped
from benchmarks.layouts.ways import DEFAULT, PREFIX, REACHES, UNHEALED, Way, healed_ways, window_for
from benchmarks.rows import Run
from engine.fim import Budget, Layout
from engine.models import STARTER
from engine.tokenizer import Tokenizer
from lsp_server.evaluation.holes import Hole, cut
from lsp_server.evaluation.sources import Source
from lsp_server.rules.languages import by_path
from tests.harness.inprocess import InProcessEngine
from tests.harness.scripted import ScriptedRunner

TOKENIZER = Tokenizer(STARTER / "tokenizer.json")
WAYS = [*healed_ways((128, 512, 224)), *UNHEALED]
RUN = Run.of([], "cpu", 1, module="benchmarks.layouts")


@pytest.fixture(scope="module")
def holes() -> list[Hole]:
    return cut([Source("p/shlex.py", by_path("shlex.py"), inspect.getsource(shlex))], 6, KINDS, seed=3)


def _engine() -> InProcessEngine:
    engine = counting_engine(TOKENIZER, window=window_for(WAYS), slots=24)
    engine.runner = ScriptedRunner(TOKENIZER, TOKENIZER.encode("x = 1\nmore"), slots=24, window=window_for(WAYS))
    return engine


def test_the_ways_are_all_layouts_with_all_budgets_and_the_default_is_the_engines_own() -> None:
    assert len(set(WAYS)) == 12
    assert {(way.layout, way.suffix) for way in WAYS if way.heal} == {
        (layout, suffix) for layout in (Layout.ANCHORED, Layout.SPM, Layout.PSM) for suffix in (128, 224, 512)
    }
    assert WAYS[0] == Way(Layout.ANCHORED, 512)  # whose head the others go on from
    assert DEFAULT in REACHES
    assert DEFAULT.suffix == Budget.of(2_048, 64).suffix
    assert healed_ways((128,), [Layout.SPM]) == [Way(Layout.SPM, 128)]


def test_two_ways_differ_in_nothing_but_what_they_are_named_for() -> None:
    """A short suffix is the same in each, and what it leaves of its budget goes to no prefix."""
    text = "".join(f"line {n} = {n} * {n}\n" for n in range(400))
    start = text.index("= 396")
    hole = Hole("p/a.py", by_path("a.py"), KINDS[0], text, start, text.index("\n", start), "p")
    generations = Generations(_engine(), TOKENIZER, Recordings(None))
    prompts = [generations.prompt(hole, way) for way in WAYS if way.layout is Layout.ANCHORED and way.heal]
    assert len({tuple(prompt.ids) for prompt in prompts}) == 1
    assert PREFIX * 0.8 < len(prompts[0].ids) < PREFIX * 1.5


def test_a_run_that_ended_is_taken_up_where_it_was(holes: list[Hole], tmp_path: Path) -> None:
    file = tmp_path / "recording.jsonl"
    first = Generations(_engine(), TOKENIZER, Recordings(file))
    assert list(first.record(holes[:2], WAYS)) == [2]
    kept = file.read_text("utf-8").splitlines()
    assert len(kept) == 2 * len(WAYS)

    engine, recordings = _engine(), Recordings(file)
    assert all((hole, way) in recordings for hole in holes[:2] for way in WAYS)
    list(Generations(engine, TOKENIZER, recordings).record(holes[:2], WAYS))
    assert engine.scheduler.prompt_tokens_computed == 0
    assert file.read_text("utf-8").splitlines() == kept


def test_prompts_share_their_heads_and_a_line_is_all_that_is_asked_for(holes: list[Hole]) -> None:
    engine, recordings = _engine(), Recordings(None)
    list(Generations(engine, TOKENIZER, recordings, together=1).record(holes, WAYS))
    said = [recordings[hole, way] for hole in holes for way in WAYS]
    assert engine.scheduler.prompt_tokens_computed < 0.8 * sum(each.prompt for each in said)
    assert all("\n" not in each.text for each in said)
    assert all(recordings[hole, way].healed == 0 for hole in holes for way in UNHEALED)


def test_another_way_that_is_better_by_more_than_a_point_fails(holes: list[Hole]) -> None:
    recordings = Recordings(None)
    other = next(way for way in REACHES if way != DEFAULT)
    for hole in holes:
        recordings.put(hole, DEFAULT, Said("?", "stop", 9, 1, 2, 1))
        recordings.put(hole, other, Said(hole.truth, "stop", 9, 1, 2, 1))
    answered = shaped(holes, recordings, [DEFAULT, other])
    rows = list(rows_of(answered, RUN))
    assert [row.passed for row in rows if row.limit is not None] == [False]
    assert {row.backend: row.value for row in rows if row.question == "layouts: exact"}[DEFAULT.name] == 0

    same = {DEFAULT: answered[DEFAULT], other: Answered(answered[DEFAULT].scores, answered[DEFAULT].said)}
    bars = [row for row in rows_of(same, RUN) if row.limit is not None]
    assert [(row.passed, row.value, row.n) for row in bars] == [(True, 0.0, len(holes))]
