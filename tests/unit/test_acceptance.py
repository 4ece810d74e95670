"""Counts of what is accepted: by language, without text, shared by several servers, gone when switched off."""

from __future__ import annotations

import json
import random
import stat
from pathlib import Path
from typing import Any

from lsp_server.features.acceptance import WRITE_EVERY, Acceptance
from lsp_server.features.offers import Offer, Offers
from lsp_server.state.outcome import Item


def _acceptance(file: Path | None) -> Acceptance:
    return Acceptance(file, lambda: 0.0)


def test_each_offer_is_counted_once_however_it_is_accepted(tmp_path: Path) -> None:
    counted = _acceptance(tmp_path / "a.json")
    offer = Offer("python", "😀 = 12", -0.3)
    counted.offered(offer)
    counted.partially(offer, 2)  # one emoji
    counted.partially(offer, 1)
    counted.accepted(offer)
    counted.accepted(offer)
    assert counted.summary() == {
        "python": {
            "accepted": 1,
            "accepted above -0.4": 1,
            "characters": 7,
            "offered": 1,
            "offered above -0.4": 1,
            "partially accepted": 1,
        }
    }


def test_a_client_may_say_that_more_was_accepted_than_there_is() -> None:
    offer = Offer("python", "ab", None)
    counted = _acceptance(Path("/nowhere/a.json"))
    counted.partially(offer, 10**9)
    counted.partially(offer, -5)
    assert counted.summary()["python"]["characters"] == 2


def test_servers_add_to_one_file_that_is_the_users_alone(tmp_path: Path) -> None:
    file = tmp_path / "starfill" / "a.json"
    first, second = _acceptance(file), _acceptance(file)
    for counted, times in ((first, 3), (second, 4)):
        for _ in range(times):
            counted.accepted(Offer("rust", "x", -0.05))
    first.flush()
    second.flush()
    first.flush()
    assert first.summary()["rust"]["accepted"] == 7
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_a_client_calls_its_language_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    counted = _acceptance(file)
    counted.accepted(Offer("my secret language", "secret text", -0.05))
    counted.flush()
    assert "secret" not in file.read_text()
    assert counted.summary()["plaintext"]["accepted"] == 1


def test_it_is_written_from_time_to_time(tmp_path: Path) -> None:
    now, file = 0.0, tmp_path / "a.json"
    counted = Acceptance(file, lambda: now)
    counted.accepted(Offer("go", "x", None))
    assert not file.exists()
    now = WRITE_EVERY
    counted.accepted(Offer("go", "x", None))
    assert json.loads(file.read_text())["languages"]["go"]["accepted"] == 2


def test_switched_off_nothing_is_counted_or_written(tmp_path: Path) -> None:
    counted = _acceptance(None)
    counted.accepted(Offer("go", "x", None))
    counted.flush()
    assert counted.summary() == {}
    assert not list(tmp_path.iterdir())


def test_it_can_be_switched_off_and_on_while_it_counts(tmp_path: Path) -> None:
    counted = _acceptance(tmp_path / "a.json")
    counted.accepted(Offer("go", "x", None))
    counted.flush()
    counted.accepted(Offer("go", "x", None))
    counted.enabled = False
    counted.accepted(Offer("go", "x", None))
    counted.flush()
    assert counted.summary() == {}
    counted.enabled = True
    counted.accepted(Offer("go", "x", None))
    assert counted.summary()["go"]["accepted"] == 2


def test_a_broken_file_and_a_folder_that_cannot_be_written_hinder_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for broken in ("", "[]", '{"version": 1}', '{"version": 1, "languages": {"go": {"accepted": "x"}}}', "\0" * 99):
        file.write_text(broken)
        counted = _acceptance(file)
        counted.accepted(Offer("go", "x", None))
        counted.flush()
        assert counted.summary()["go"]["accepted"] == 1
    blocked = _acceptance(file / "below" / "a.json")
    blocked.accepted(Offer("go", "x", None))
    blocked.flush()
    blocked.accepted(Offer("go", "x", None))
    assert blocked.file is None


def test_ids_are_opaque_and_only_those_of_late_are_known() -> None:
    offers, rng = Offers(), random.Random(1)
    first = offers.add(Item("a", None), "a", "go")
    assert offers.get(first) is not None
    strange: tuple[Any, ...] = (None, 3, "x", [first], first.upper() + "x", {})
    for other in strange:
        assert offers.get(other) is None
    for _ in range(1_000):
        offers.add(Item(str(rng.random()), None), "b", "go")
    assert offers.get(first) is None
    assert offers.add(Item("a", None), "a", "go", offers.name()) != first
