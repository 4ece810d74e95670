"""SantaCoder's branches as `ID@REVISION`: named, downloaded, converted, loaded, completing as the weights say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.loading import LEFT_TO_RIGHT, LoadOptions, load
from engine.models import locate
from engine.models.known import KNOWN
from tests.harness.checkpoints import assert_same_greedy, make_checkpoint
from tests.harness.hub import FakeHub, serving
from tests.harness.inprocess import Completed, InProcessEngine
from tests.harness.pickles import as_pickled
from tests.harness.published import as_santacoder, santacoder_logits
from tests.harness.pulls import fetch, nobodys_environment

MODEL = "bigcode/santacoder"
BRANCHES = tuple(KNOWN[MODEL].revisions)
BEFORE, AFTER = "def total(values):\n    result = 1", "\n    return result\n"
REQUESTS: dict[str, dict[str, Any]] = {
    "anchored": {"suffix": AFTER, "starfill": {"layout": "anchored"}},
    "spm": {"suffix": AFTER, "starfill": {"layout": "spm"}},
    "psm": {"suffix": AFTER, "starfill": {"layout": "psm"}},
    "plain": {},
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serving(FakeHub()) as hub:
        nobodys_environment(tmp_path, hub, monkeypatch)
        yield hub


def answers(name: str, requests: dict[str, dict[str, Any]]) -> tuple[str, dict[str, Completed]]:
    loaded = load(LoadOptions(locate(name), device="cpu", dtype="float32", kv_memory=2**26))
    engine = InProcessEngine(loaded)
    return loaded.note, {key: engine.complete(prompt=BEFORE, max_tokens=8, **more) for key, more in requests.items()}


def test_every_branch_of_the_card_is_known() -> None:
    assert set(BRANCHES) == {"mha", "no-fim", "fim", "stars", "fertility", "comments", "dedup-alt"}


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_branch_is_pulled_by_its_name_and_completes_as_its_weights_say(
    hub: FakeHub, tmp_path: Path, branch: str
) -> None:
    heads: dict[str, Any] = {"multi_query": False, "n_head": 3, "head_dim": 16} if branch == "mha" else {}
    source = make_checkpoint(
        tmp_path / "source", family="santacoder", n_positions=128, dtype=torch.float16, seed=len(branch), **heads
    )
    published = as_santacoder(source, tmp_path / "published")
    main = as_santacoder(
        make_checkpoint(tmp_path / "other", family="santacoder", n_positions=128, seed=99), tmp_path / "main"
    )
    hub.add(MODEL, main, licence="bigcode-openrail-m")
    hub.add(MODEL, as_pickled(published, tmp_path / "bin"), branch=branch, licence="bigcode-openrail-m")
    kept = fetch(f"{MODEL}@{branch}")
    assert kept.record.revision == branch
    assert locate(f"{MODEL}@{branch}").directory == kept.directory
    taught = branch != "no-fim"
    note, done = answers(f"{MODEL}@{branch}", REQUESTS if taught else {"hole": {"suffix": AFTER}, "plain": {}})
    assert (LEFT_TO_RIGHT in note) is not taught
    for name, each in done.items():
        assert each.admitted.layout == (name if taught and name != "plain" else "none")
        assert_same_greedy(each.ids, source, each.prompt)
        if branch != "mha":
            logits = santacoder_logits(published, each.prompt + each.ids)
            for step, token in enumerate(each.ids, len(each.prompt) - 1):
                assert logits[step].max() - logits[step, token] <= 1e-4
    if not taught:
        assert {tuple(each.prompt) for each in done.values()} == {tuple(done["plain"].prompt)}
