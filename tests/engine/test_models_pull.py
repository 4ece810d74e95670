"""`starfill models pull` against a hub's look-alike on loopback: what arrives, in one piece or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.errors import CheckpointError, HubError
from engine.loading import LoadOptions, load
from engine.models import locate
from engine.models.record import read_record
from tests.harness.checkpoints import make_checkpoint
from tests.harness.hub import FakeHub, Repo
from tests.harness.pickles import BIN, Call, as_pickled
from tests.harness.process import isolated_env
from tests.harness.published import as_santacoder
from tests.harness.pulls import (
    ID,
    WEIGHTS,
    Asked,
    Told,
    fetch,
    nothing_is_here,
    starfill_models,
)

pytestmark = pytest.mark.usefixtures("home")


# What arrives


def test_a_pulled_model_is_the_hubs_byte_for_byte_and_has_its_record(hub: FakeHub, home: Path, model: Path) -> None:
    told, asked = Told(), Asked()
    done = fetch(told=told, asked=asked)
    source = locate(ID)
    assert (source.id, source.directory) == (ID, done.directory)
    arrived = {path.name for path in source.directory.iterdir()}
    assert arrived == {"config.json", "tokenizer.json", WEIGHTS, "LICENSE", "starfill.json"}
    assert all(
        (model / name).read_bytes() == (source.directory / name).read_bytes() for name in arrived - {"starfill.json"}
    )
    record = read_record(source.directory)
    assert record == done.record
    assert record is not None
    assert (record.id, record.revision, record.commit) == (ID, "main", hub.models[ID].commit("main"))
    assert record.hub == hub.url
    sums = {file.name: file.sum for file in record.files}
    assert sums[WEIGHTS] == f"sha256:{hashlib.sha256((model / WEIGHTS).read_bytes()).hexdigest()}"
    assert sums["config.json"].startswith("git:")
    assert told.done == told.total == told.most == sum(file.size for file in record.files)
    # Only what is needed was asked for, each by its commit, and nothing beside it.
    asked_for = {path.rpartition("/")[2] for path in hub.paths() if "/resolve/" in path}
    assert asked_for == arrived - {"starfill.json"}
    assert all(record.commit in path for path in hub.paths() if "/resolve/" in path)
    others = [path for path in hub.paths() if not any(part in path for part in ("/resolve/", "/cdn/"))]
    assert others == [f"/api/models/{ID}/revision/main"]
    assert {seen.agent.partition("/")[0] for seen in hub.seen} == {"starfill"}


def test_the_command_pulls_and_the_engine_would_find_it(hub: FakeHub, home: Path) -> None:
    done = starfill_models("pull", ID, "--accept-licence", home=home, HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    assert hub.models[ID].commit("main") in done.stdout
    assert f"starfill serve --model {ID}" in done.stdout
    assert "BigCode OpenRAIL-M v1" in done.stderr
    assert "malware" in done.stderr
    listed = json.loads(starfill_models("list", "--here", "--json", home=home).stdout)
    mine = next(one for one in listed if one["id"] == ID)
    assert mine["here"]
    assert mine["fits"]
    assert mine["commit"] == hub.models[ID].commit("main")
    shown = starfill_models("show", ID, home=home).stdout
    for part in ("li2023starcoder", "2305.06161", "licence accepted", "--accept-licence", "malware", mine["commit"]):
        assert part in shown


def test_a_model_that_is_here_is_not_downloaded_again(hub: FakeHub) -> None:
    fetch()
    hub.seen.clear()
    again = fetch()
    assert not again.fresh
    assert hub.paths() == [f"/api/models/{ID}/revision/main"]
    assert not hub.paths("HEAD")


def test_a_newer_commit_takes_the_place_of_the_older(hub: FakeHub, home: Path, model: Path, tmp_path: Path) -> None:
    first = fetch()
    newer = make_checkpoint(tmp_path / "newer", n_positions=64, seed=1)
    hub.add(ID, newer)
    second = fetch()
    assert second.fresh
    assert second.record.commit != first.record.commit
    assert (locate(ID).directory / WEIGHTS).read_bytes() == (newer / WEIGHTS).read_bytes()
    assert [path.name for path in (home / "models").glob("[!.]*")] == ["bigcode--tiny_starcoder_py"]
    assert not list((home / "models" / ".partial").glob("*"))


def test_a_folder_that_is_a_link_is_updated_again_and_again(hub: FakeHub, home: Path, tmp_path: Path) -> None:
    directory, elsewhere = fetch().directory, tmp_path / "larger disk"
    directory.rename(elsewhere)
    directory.symlink_to(elsewhere)
    for seed in (1, 2):
        hub.add(ID, make_checkpoint(tmp_path / str(seed), n_positions=64, seed=seed))
        told = Told()
        assert fetch(told=told).fresh
        assert [note for note in told.notes if str(elsewhere) in note] == (
            [f"{directory} was a link; what is in {elsewhere} stays, and is not used any more"] if seed == 1 else []
        )
        assert (directory / WEIGHTS).read_bytes() == (tmp_path / str(seed) / WEIGHTS).read_bytes()
    assert (elsewhere / WEIGHTS).is_file()
    assert not list((home / "models" / ".partial").iterdir())
    shutil.rmtree(directory)
    directory.symlink_to(tmp_path / "not mounted")
    with pytest.raises(HubError, match="is a link that leads nowhere; bring back what it led to"):
        fetch()


def test_a_link_that_an_update_left_before_is_no_hindrance(hub: FakeHub, home: Path, tmp_path: Path) -> None:
    fetch()
    (home / "models" / ".partial" / "bigcode--tiny_starcoder_py.older").symlink_to(tmp_path)
    hub.add(ID, make_checkpoint(tmp_path / "newer", n_positions=64, seed=1))
    assert fetch().fresh
    assert not list((home / "models" / ".partial").iterdir())
    assert tmp_path.is_dir()


def test_a_damaged_model_is_pulled_again(hub: FakeHub, model: Path) -> None:
    directory = fetch().directory
    (directory / WEIGHTS).write_bytes(b"short")
    assert fetch().fresh
    assert (directory / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 0x40
    path.write_bytes(raw)


def test_damage_that_leaves_a_files_length_is_found_when_sums_are_asked_for(hub: FakeHub, model: Path) -> None:
    directory = fetch().directory
    _flip(directory / "config.json")
    weights = (directory / WEIGHTS).stat().st_ino
    assert not fetch().fresh
    hub.seen.clear()
    assert fetch(check_sums=True).fresh
    assert [path.rpartition("/")[2] for path in hub.paths() if "/resolve/" in path] == ["config.json"]
    assert (directory / "config.json").read_bytes() == (model / "config.json").read_bytes()
    assert (directory / WEIGHTS).stat().st_ino == weights, "what is right stays"
    assert not fetch(check_sums=True).fresh
    _flip(directory / WEIGHTS)
    assert fetch(check_sums=True).fresh
    assert (directory / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


def test_the_engine_names_the_command_that_mends_a_damaged_model(hub: FakeHub, home: Path, model: Path) -> None:
    directory = fetch().directory
    raw = bytearray((directory / WEIGHTS).read_bytes())
    raw[-2:] = b"\x80\x7f"  # infinity in bfloat16
    (directory / WEIGHTS).write_bytes(raw)
    command = ("pull", "--verify", ID, "--accept-licence")
    with pytest.raises(
        CheckpointError, match=rf"holds NaN or infinity; it is broken: starfill models {command[0]} {command[1]} {ID}"
    ):
        load(LoadOptions(locate(ID), device="cpu", kv_memory=2**26))
    done = starfill_models(*command, home=home, HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    assert "Pulled" in done.stdout
    assert load(LoadOptions(locate(ID), device="cpu", kv_memory=2**26)).dtype == "float32"


def test_what_was_converted_has_sums_of_its_own(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    hub.models[ID] = Repo({})
    hub.add(ID, as_pickled(model, tmp_path / "bin"))
    done = fetch()
    record = read_record(done.directory)
    assert record == done.record
    assert record is not None
    assert [each.name for each in record.made] == [WEIGHTS]
    assert not fetch(check_sums=True).fresh
    right = (done.directory / WEIGHTS).read_bytes()
    _flip(done.directory / WEIGHTS)
    assert fetch(check_sums=True).fresh
    assert (done.directory / WEIGHTS).read_bytes() == right
    (done.directory / WEIGHTS).write_bytes(right + b"x")
    assert fetch().fresh, "a length is looked at each time"


def test_what_was_not_pulled_is_not_replaced(hub: FakeHub, home: Path) -> None:
    """A tuned model, or one that somebody put there."""
    mine = home / "models" / "bigcode--tiny_starcoder_py"
    mine.mkdir(parents=True)
    (mine / "notes").write_text("mine")
    with pytest.raises(HubError, match=f"was not pulled; take it away first: starfill models remove {ID}"):
        fetch()
    assert (mine / "notes").read_text() == "mine"


def test_shards_come_with_their_index_and_nothing_beside_them(hub: FakeHub, tmp_path: Path) -> None:
    sharded = make_checkpoint(tmp_path / "sharded", n_positions=64, shards=3)
    (sharded / "model-00009-of-00009.safetensors").write_bytes(b"of another set")
    hub.add(ID, sharded)
    directory = fetch().directory
    assert len(list(directory.glob("model-*-of-00003.safetensors"))) == 3
    assert not list(directory.glob("model-00009*"))


# Revisions


def test_a_revision_is_another_model_and_a_commit_pins_it(hub: FakeHub, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", n_positions=64, seed=5)
    hub.add(ID, other, branch="no-fim")
    main, branch = fetch(), fetch(f"{ID}@no-fim")
    assert main.directory != branch.directory
    assert locate(f"{ID}@no-fim").directory == branch.directory
    assert (branch.directory / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()
    assert branch.record.revision == "no-fim"
    commit = hub.models[ID].commit("no-fim")
    pinned = fetch(f"{ID}@{commit}")
    assert (pinned.record.revision, pinned.record.commit) == (commit, commit)
    assert locate(f"{ID}@main").directory == main.directory


def test_an_unknown_revision_or_model_is_named(hub: FakeHub, home: Path) -> None:
    with pytest.raises(HubError, match=rf"{ID} has no revision 'nope'; {hub.url}/{ID}/tree/main shows"):
        fetch(f"{ID}@nope")
    with pytest.raises(HubError, match=rf"{hub.url}/nobody/nothing: there is no such model, or is private"):
        fetch("nobody/nothing")
    assert nothing_is_here(home)


@pytest.mark.parametrize("old_form", [False, True], ids=["zip", "before torch 1.6"])
def test_a_branch_that_has_only_bin_files_arrives_as_safetensors(hub: FakeHub, tmp_path: Path, old_form: bool) -> None:
    """SantaCoder's older branches."""
    made = make_checkpoint(tmp_path / "made", family="santacoder", vocab_size=832, n_positions=64, dtype=torch.float16)
    published = as_santacoder(made, tmp_path / "published")
    pickled = as_pickled(published, tmp_path / "bin", old_form=old_form, shards=1 if old_form else 2)
    hub.add("bigcode/santacoder", pickled, branch="mha", licence="bigcode-openrail-m")
    told = Told()
    done = fetch("bigcode/santacoder@mha", told=told)
    assert any("converting" in note for note in told.notes)
    assert not list(done.directory.glob("*.bin*"))
    assert set(done.record.converted_from) == {path.name for path in pickled.glob("*.bin")}
    assert list(done.directory.glob("*.safetensors"))
    assert not fetch("bigcode/santacoder@mha").fresh


def test_a_hostile_bin_file_is_refused_and_leaves_nothing(
    hub: FakeHub, home: Path, model: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    hostile = tmp_path / "hostile"
    shutil.copytree(model, hostile)
    (hostile / WEIGHTS).unlink()
    torch.save({"transformer.wte.weight": Call(os.system, f"touch {canary}")}, hostile / BIN)
    hub.models[ID] = Repo({})
    hub.add(ID, hostile)
    with pytest.raises(CheckpointError, match=r"asks for posix\.system.*nothing of it was run"):
        fetch()
    assert not canary.exists()
    assert nothing_is_here(home)
    assert not list((home / "models").rglob("*.bin"))


def _no_room(path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("attribute", "instead", "says"),
    [
        ("_run_child", lambda *_: {"locked": "no list of system calls for riscv64"}, "give up its rights"),
        ("_run_child", lambda *_: {"failed": "could not be converted (No space left)"}, "No space left"),
        ("read_table", _no_room, "free some disk and try again"),
        ("_check_room", lambda *_: (_ for _ in ()).throw(CheckpointError("needs more disk")), "needs more disk"),
    ],
    ids=["locked", "a full disk", "a full disk here", "too little disk"],
)
def test_bin_files_that_nothing_is_wrong_with_are_kept(
    hub: FakeHub, home: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    attribute: str, instead: Callable[..., object], says: str,
) -> None:  # fmt: skip
    """What stands in the way is the system's, and may be gone at the next try."""
    hub.models[ID] = Repo({})
    hub.add(ID, as_pickled(model, tmp_path / "bin"))
    with monkeypatch.context() as spoilt:
        spoilt.setattr(f"engine.models.conversion.convert.{attribute}", instead)
        spoilt.setattr("engine.models.pulling.check_system", lambda folder: None)
        with pytest.raises(CheckpointError, match=f"{says}.*; what was downloaded is kept"):
            fetch()
    hub.seen.clear()
    assert fetch().fresh
    assert not [path for path in hub.paths() if "/cdn/" in path], "nothing came twice"


def test_pickles_are_not_downloaded_where_none_can_be_read(
    hub: FakeHub, home: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.models[ID] = Repo({}, licence="bigcode-openrail-m")
    hub.add(ID, as_pickled(model, tmp_path / "bin"))
    monkeypatch.setattr("engine.models.conversion.convert._run_child", lambda *_: {"locked": "no seccomp"})
    asked = Asked()
    with pytest.raises(CheckpointError, match=r"give up its rights \(no seccomp\)"):
        fetch(asked=asked)
    assert not asked.terms
    assert not hub.paths()[1:]


# Broken connections


def test_a_connection_that_breaks_in_mid_file_is_taken_up_again(hub: FakeHub, model: Path) -> None:
    size = (model / WEIGHTS).stat().st_size
    hub.cuts[WEIGHTS] = [size // 4, size // 4]
    told = Told()
    done = fetch(told=told)
    ranges = [seen.range for seen in hub.seen if seen.path.endswith(WEIGHTS) and "/cdn/" in seen.path]
    assert ranges[0] is None
    starts = [int(each.removeprefix("bytes=").rstrip("-")) for each in ranges[1:] if each]
    assert len(starts) == 2
    assert 0 < starts[0] <= size // 4 < starts[1] <= size // 2
    assert (done.directory / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()
    assert told.done == told.total


def test_a_hub_that_is_busy_is_asked_again(hub: FakeHub) -> None:
    hub.answers[WEIGHTS] = [503, 429]
    hub.answers["config.json"] = [500]
    assert fetch().fresh


def test_a_connection_that_brings_nothing_is_given_up_and_gone_on_with_later(
    hub: FakeHub, home: Path, model: Path
) -> None:
    size = (model / WEIGHTS).stat().st_size
    hub.cuts[WEIGHTS] = [size // 2, 0, 0, 0, 0, 0]
    with pytest.raises(
        HubError, match=r"the connection broke \d+ times .* what has come is kept, run the same command again"
    ):
        fetch()
    assert nothing_is_here(home)
    grown = next((home / "models" / ".partial").rglob(WEIGHTS))
    had = grown.stat().st_size
    assert 0 < had < size
    hub.seen.clear()
    told = Told()
    done = fetch(told=told)
    assert [seen.range for seen in hub.seen if "/cdn/" in seen.path] == [f"bytes={had}-"]
    assert "config.json" not in " ".join(hub.paths()), "small files that are whole are not fetched again"
    assert (done.directory / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()
    assert told.done == told.total


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_a_pull_that_was_ended_goes_on_where_it_was(
    hub: FakeHub, home: Path, tmp_path: Path, by: signal.Signals
) -> None:
    """With or without a chance to clean up: nothing half is ever named, and the next one goes on."""
    large = make_checkpoint(tmp_path / "large", n_layer=4, n_head=8, head_dim=64, n_positions=64)
    size = (large / WEIGHTS).stat().st_size
    hub.add(ID, large)
    hub.cuts[WEIGHTS] = [size * 3 // 4, *[0] * 100]
    command = Path(sys.executable).with_name("starfill")
    child = subprocess.Popen(
        [command, "models", "pull", ID, "--accept-licence"],
        env=isolated_env(home, HF_ENDPOINT=hub.url),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not any(path.stat().st_size > size // 2 for path in (home / "models" / ".partial").rglob(WEIGHTS)):
        assert time.monotonic() < until
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(by)
    _, errors = child.communicate(timeout=60)
    if by is signal.SIGINT:
        assert child.returncode == 1
        assert f"stopped; what has come is kept: starfill models pull {ID} goes on" in errors
    assert nothing_is_here(home)
    hub.cuts.clear()
    hub.seen.clear()
    done = fetch()
    [asked] = [seen.range for seen in hub.seen if "/cdn/" in seen.path]
    assert asked is not None
    assert int(asked.removeprefix("bytes=").rstrip("-")) > size // 2
    assert (done.directory / WEIGHTS).read_bytes() == (large / WEIGHTS).read_bytes()


def test_a_server_that_knows_no_ranges_is_read_from_the_start(hub: FakeHub, model: Path) -> None:
    hub.deaf_to_ranges = True
    hub.cuts[WEIGHTS] = [(model / WEIGHTS).stat().st_size // 2]
    told = Told()
    done = fetch(told=told)
    assert (done.directory / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()
    assert told.done == told.total


def test_a_server_that_never_gets_further_is_given_up(hub: FakeHub, home: Path, model: Path) -> None:
    """It starts over each time and breaks off at the same place: bytes come, but no end."""
    hub.deaf_to_ranges = True
    hub.cuts[WEIGHTS] = [(model / WEIGHTS).stat().st_size // 2] * 20
    with pytest.raises(HubError, match="the connection broke 5 times"):
        fetch()
    assert nothing_is_here(home)


def test_what_grew_of_an_older_commit_is_not_gone_on_with(
    hub: FakeHub, home: Path, model: Path, tmp_path: Path
) -> None:
    hub.cuts[WEIGHTS] = [1_000, 0, 0, 0, 0, 0]
    with pytest.raises(HubError, match="what has come is kept"):
        fetch()
    newer = make_checkpoint(tmp_path / "newer", n_positions=64, seed=1)
    hub.add(ID, newer)
    hub.seen.clear()
    directory = fetch().directory
    assert [seen.range for seen in hub.seen if "/cdn/" in seen.path] == [None]
    assert (directory / WEIGHTS).read_bytes() == (newer / WEIGHTS).read_bytes()


# Sums


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json"])
def test_a_wrong_sum_is_refused_and_the_file_goes(hub: FakeHub, home: Path, model: Path, name: str) -> None:
    right = (model / name).read_bytes()
    hub.spoilt[name] = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(HubError, match=rf"{name} of {ID} does not have the sum that the hub names"):
        fetch()
    assert nothing_is_here(home)
    assert not list((home / "models" / ".partial").rglob(name))
    hub.spoilt.clear()
    assert (fetch().directory / name).read_bytes() == right


def test_a_kept_part_that_was_damaged_is_fetched_again(hub: FakeHub, home: Path, model: Path) -> None:
    hub.cuts[WEIGHTS] = [(model / WEIGHTS).stat().st_size // 2, 0, 0, 0, 0, 0]
    with pytest.raises(HubError, match="what has come is kept"):
        fetch()
    part = next((home / "models" / ".partial").rglob(WEIGHTS))
    part.write_bytes(bytes(part.stat().st_size))
    told = Told()
    assert (fetch(told=told).directory / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()
    assert any("damaged" in note for note in told.notes)
    assert told.done == told.total


def test_more_bytes_than_were_named_are_not_taken(hub: FakeHub, home: Path, model: Path) -> None:
    hub.spoilt[WEIGHTS] = (model / WEIGHTS).read_bytes() + bytes(100)
    with pytest.raises(HubError, match="sends more than"):
        fetch()
    assert nothing_is_here(home)


def test_a_program_hears_how_far_it_has_come(hub: FakeHub, home: Path) -> None:
    done = starfill_models("pull", ID, "--accept-licence", "--json", home=home, HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    *steps, last = [json.loads(line) for line in done.stdout.splitlines()]
    counts = [(step["done"], step["total"]) for step in steps if "done" in step]
    assert counts[0][0] == 0
    assert counts == sorted(counts)
    assert counts[-1][0] == counts[-1][1] > 0
    assert last == {"id": ID, "commit": hub.models[ID].commit("main"), "fresh": True}
