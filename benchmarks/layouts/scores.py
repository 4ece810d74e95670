"""How good each way is, and how far from the default: rows."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import track

from benchmarks.layouts.generations import MAX_TOKENS, Recordings, Said
from benchmarks.layouts.ways import DEFAULT, PREFIX, REACHES, Way
from benchmarks.rows import Detail, Row, Run, per_cent
from engine.models import STARTER_ID
from lsp_server.evaluation.holes import Hole
from lsp_server.evaluation.runner import window_of
from lsp_server.evaluation.scores import Estimate, edit_similarity, estimate, exact
from lsp_server.shaping import ALL_RULES, Shaper
from lsp_server.window import Window

DTYPE = "bfloat16"
WITHIN = 1.0
"""Points of exact match that the default may be behind."""


@dataclass(frozen=True, slots=True)
class Score:
    """How good what would be shown at one hole is; `file` is whose holes do not count as independent."""

    file: str
    exact: float
    similarity: float


@dataclass(frozen=True, slots=True)
class Answered:
    """One way's scores by hole, and what the model said there."""

    scores: Mapping[str, Score]
    said: Sequence[Said]


def shaped(holes: Sequence[Hole], recordings: Recordings, ways: Sequence[Way]) -> dict[Way, Answered]:
    """Every recorded generation, as it would be shown."""
    scores: dict[Way, dict[str, Score]] = {way: {} for way in ways}
    said: dict[Way, list[Said]] = {way: [] for way in ways}
    for hole in track(holes, "shaping", console=Console(stderr=True), transient=True):
        there = [way for way in ways if (hole, way) in recordings]
        window = window_of(hole) if there else None
        alike: dict[tuple[str, str], Score] = {}
        for way in there:
            each = recordings[hole, way]
            if (each.text, each.finish) not in alike:
                assert window is not None
                alike[each.text, each.finish] = _score(hole, window, each)
            scores[way][hole.key] = alike[each.text, each.finish]
            said[way].append(each)
    return {way: Answered(scores[way], said[way]) for way in ways if said[way]}


def _score(hole: Hole, window: Window, said: Said) -> Score:
    shaper = Shaper(window, hole.language, ALL_RULES)
    enough = shaper.feed(said.text).enough
    text, _ = shaper.finish(cut_short=not enough and said.finish == "length")
    return Score(hole.path, float(exact(text, hole.truth)), edit_similarity(text, hole.truth))


def rows_of(answered: Mapping[Way, Answered], run: Run) -> Iterator[Row]:
    """Exact match and similarity of each way, its difference to the default over the holes that both have, and the bar."""
    for way, answers in answered.items():
        yield from _of_way(way, answers, _against(way), answered, run)
    behind = {
        way: _gain(answered[way], answered[DEFAULT], "exact")
        for way in REACHES
        if way in answered and way != DEFAULT and DEFAULT in answered
    }
    if behind:
        best = max(behind, key=lambda way: behind[way].mean)
        gain = behind[best]
        detail: Detail = {"best other": best.name, "holes": gain.n, **per_cent(gain)}
        value = round(100 * gain.mean, 2)
        yield _row("layouts: exact match that another way has more", value, DEFAULT.name, detail, gain.n, run, WITHIN)


def _gain(one: Answered, other: Answered, measure: str) -> Estimate:
    """What `one` has more than `other`, over the holes that both have."""
    common = [key for key in one.scores if key in other.scores]
    values = [getattr(one.scores[key], measure) - getattr(other.scores[key], measure) for key in common]
    found = estimate(values, [one.scores[key].file for key in common])
    assert found is not None
    return found


def _against(way: Way) -> Way:
    """What a way is held against: the default, or for one without healing the same with it."""
    return DEFAULT if way.heal else Way(way.layout, way.suffix)


def _of_way(way: Way, answers: Answered, other: Way, answered: Mapping[Way, Answered], run: Run) -> Iterator[Row]:
    for measure in ("exact", "similarity"):
        scores = answers.scores.values()
        value = estimate([getattr(score, measure) for score in scores], [score.file for score in scores])
        assert value is not None
        detail: dict[str, int | float | str | bool] = {
            "suffix": way.suffix, "healed": way.heal, "holes": value.n, "prefix": PREFIX, "new": MAX_TOKENS,
            **per_cent(value),
            "prompt": round(statistics.fmean(each.prompt for each in answers.said), 1),
            "held_back": round(statistics.fmean(each.healed for each in answers.said), 2),
        }  # fmt: skip
        if way != other and other in answered:
            gain = _gain(answers, answered[other], measure)
            detail |= {"minus": other.name, "common": gain.n, **per_cent(gain, "gain")}
        yield _row(f"layouts: {measure}", round(100 * value.mean, 2), way.name, detail, value.n, run)


def _row(
    question: str, value: float, backend: str, detail: Detail, n: int, run: Run, limit: float | None = None
) -> Row:
    return Row(
        question=question, model=STARTER_ID, dtype=DTYPE, measured=True, value=value,
        unit="%" if limit is None else "points", backend=backend, detail=detail, n=n,
        passed=None if limit is None else value <= limit, limit=limit, torch=run.torch, **run.shared(),
    )  # fmt: skip
