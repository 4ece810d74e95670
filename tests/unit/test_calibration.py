"""From which confidence on completions are shown: learned from a user's own acceptances, with evidence, within bounds."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_server.calibration import EDGES, ENOUGH_ACCEPTED, LEAST, MEMORY, MOST, Calibration, bin_of
from lsp_server.features.acceptance import Acceptance
from lsp_server.features.confidence import WRITE_EVERY, Confidence
from lsp_server.features.offers import Offer

BINS = len(EDGES) + 1
SURE = math.log(0.7)


def logprob(per_cent: float) -> float:
    return math.log(per_cent / 100)


def seen(known: Calibration, per_cent: float, *, offered: int, accepted: int) -> None:
    """So many, the accepted ones spread among them."""
    for number in range(offered):
        known.offer(logprob(per_cent))
        if (number + 1) * accepted // offered > number * accepted // offered:
            known.accept(logprob(per_cent))


def test_the_bins() -> None:
    assert [bin_of(logprob(p)) for p in (0.001, 4.9, 5.1, 12, 29.9, 30.1, 100)] == [0, 0, 1, 2, 5, 6, 6]
    assert bin_of(0.3) == BINS - 1  # above certainty, by rounding


def test_nothing_is_silenced_before_enough_is_known() -> None:
    known = Calibration()
    assert known.least() == LEAST
    seen(known, 3, offered=900, accepted=0)
    assert known.least() == LEAST, "an editor that tells of no acceptance silences nothing"
    seen(known, 70, offered=ENOUGH_ACCEPTED + 5, accepted=ENOUGH_ACCEPTED + 5)
    assert known.least() == 5
    fresh = Calibration()
    seen(fresh, 70, offered=200, accepted=60)
    seen(fresh, 3, offered=12, accepted=0)
    assert fresh.least() == LEAST, "a dozen say little"


def test_what_is_hardly_ever_accepted_is_silenced_and_what_is_surer_is_not() -> None:
    known = Calibration()
    seen(known, 70, offered=300, accepted=90)
    for per_cent, accepted in ((3, 0), (8, 1), (13, 2), (18, 30), (23, 40), (28, 45)):
        seen(known, per_cent, offered=150, accepted=accepted)
    assert known.least() == 15


def test_a_user_who_accepts_seldom_at_all_hears_no_less() -> None:
    known = Calibration()
    seen(known, 70, offered=600, accepted=18)
    for per_cent in (3, 8, 13, 18, 23, 28):
        seen(known, per_cent, offered=150, accepted=4)
    assert known.least() == LEAST


COUNTS = st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1)), min_size=BINS, max_size=BINS)


def known_of(counts: list[tuple[int, float]]) -> Calibration:
    return Calibration([float(n) for n, _ in counts], [n * share for n, share in counts])


@given(counts=COUNTS)
@settings(max_examples=300, deadline=None)
def test_it_stays_within_bounds_so_that_sure_completions_are_always_shown(counts: list[tuple[int, float]]) -> None:
    assert LEAST <= known_of(counts).least() <= MOST
    worst = Calibration([1e6] * BINS, [0.0] * (BINS - 1) + [1e6])
    assert worst.least() == MOST


@given(counts=COUNTS, at=st.integers(0, BINS - 2), more=st.integers(1, 200))
@settings(max_examples=300, deadline=None)
def test_acceptances_never_silence_more_and_refusals_never_less(
    counts: list[tuple[int, float]], at: int, more: int
) -> None:
    before, accepted, refused = (known_of(counts) for _ in range(3))
    accepted.offered[at] += more
    accepted.accepted[at] += more
    refused.offered[at] += more
    assert accepted.least() <= before.least() <= refused.least()


def test_old_behaviour_is_forgotten() -> None:
    known = Calibration()
    seen(known, 70, offered=100, accepted=40)
    seen(known, 8, offered=300, accepted=0)
    assert known.least() == 10
    seen(known, 70, offered=4 * MEMORY, accepted=MEMORY)
    assert known.least() == LEAST, "a bin that was silent for long is tried again"
    assert sum(known.offered) <= MEMORY + 1


# -- what is kept ------------------------------------------------------------------------------------------------------


def session(file: Path, model: str = "m") -> tuple[Acceptance, Confidence]:
    confidence = Confidence(file, lambda: 0.0)
    confidence.configure(enabled=True, model=model)
    return Acceptance(file.with_name("acceptance.json"), lambda: 0.0, confidence), confidence


def offer(acceptance: Acceptance, value: float, *, taken: bool, by_hand: bool = False) -> None:
    made = Offer("python", "secret text", value, by_hand)
    acceptance.offered(made)
    if taken:
        acceptance.partially(made, 3)
        acceptance.accepted(made)


def habit(acceptance: Acceptance) -> None:
    """Takes what is sure, never what is not."""
    for number in range(120):
        offer(acceptance, SURE, taken=number % 3 == 0)
        offer(acceptance, logprob(8), taken=False)


def test_it_is_kept_as_numbers_by_model_and_several_servers_add_to_it(tmp_path: Path) -> None:
    file = tmp_path / "starfill" / "confidence.json"
    first, second = session(file), session(file)
    for acceptance, confidence in (first, second):
        habit(acceptance)
        assert confidence.least() == 10
        confidence.flush()
    text = file.read_text()
    assert "secret" not in text
    assert "python" not in text
    (entry,) = json.loads(text)["models"].values()
    assert entry["offered"][1] == pytest.approx(entry["offered"][-1], rel=0.01)
    assert 200 < entry["offered"][1] < 240
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert session(file)[1].least() == 10
    assert session(file, "another model")[1].least() == LEAST
    summary = session(file)[1].summary()
    assert summary["least"] == 10
    assert summary["from"] == [*EDGES, MOST]


def test_what_was_asked_for_by_hand_teaches_nothing(tmp_path: Path) -> None:
    acceptance, confidence = session(tmp_path / "confidence.json")
    for _ in range(200):
        offer(acceptance, SURE, taken=True, by_hand=True)
        offer(acceptance, logprob(8), taken=False, by_hand=True)
        offer(acceptance, None, taken=True)  # type: ignore[arg-type]
    assert confidence.summary()["offered"] == [0.0] * BINS


def test_an_acceptance_counts_once_however_it_comes(tmp_path: Path) -> None:
    acceptance, confidence = session(tmp_path / "confidence.json")
    offer(acceptance, SURE, taken=True)
    assert confidence.summary()["accepted"][-1] == 1.0


def test_it_can_be_switched_off_and_reset(tmp_path: Path) -> None:
    file = tmp_path / "confidence.json"
    acceptance, confidence = session(file)
    habit(acceptance)
    confidence.flush()
    confidence.configure(enabled=False, model="m")
    assert confidence.least() == LEAST
    habit(acceptance)
    confidence.flush()
    confidence.configure(enabled=True, model="m")
    assert confidence.least() == 10
    confidence.reset()
    acceptance.reset()
    assert confidence.least() == LEAST
    assert not file.exists()
    assert not list(tmp_path.glob("*.json"))


def test_a_broken_file_and_a_folder_that_cannot_be_written_hinder_nothing(tmp_path: Path) -> None:
    file = tmp_path / "confidence.json"
    key = session(file)[1]._model
    counts = [1.0] * BINS
    broken: list[Any] = [
        "", "[]", '{"version": 1}', '{"version": 1, "models": []}', "\0" * 99, "[" * 10_000,
        *(json.dumps({"version": 1, "models": {key: entry}}) for entry in (
            None, {}, {"offered": counts}, {"offered": counts, "accepted": [2.0] * BINS},
            {"offered": ["1"] * BINS, "accepted": counts}, {"offered": counts[1:], "accepted": counts[1:]},
            {"offered": [float("nan")] * BINS, "accepted": counts}, {"offered": [-1.0] * BINS, "accepted": [-1.0] * BINS},
        )),
    ]  # fmt: skip
    for text in broken:
        file.write_text(text)
        acceptance, confidence = session(file)
        assert confidence.least() == LEAST
        habit(acceptance)
        confidence.flush()
        assert session(file)[1].least() == 10, text[:80]
        file.unlink()
    (tmp_path / "blocked").write_text("")
    acceptance, confidence = session(tmp_path / "blocked" / "below" / "confidence.json")
    habit(acceptance)
    confidence.flush()
    habit(acceptance)
    assert confidence.least() == LEAST


def test_it_is_written_from_time_to_time(tmp_path: Path) -> None:
    now, file = 0.0, tmp_path / "confidence.json"
    confidence = Confidence(file, lambda: now)
    confidence.configure(enabled=True, model="m")
    confidence.offered(SURE)
    assert not file.exists()
    now = WRITE_EVERY
    confidence.offered(SURE)
    assert file.exists()
