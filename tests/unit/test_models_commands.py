"""`starfill models` without the network: what is known, what is here, what fits, who accepted what, removing."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from engine import paths, precision, registry
from engine.checkpoint.config import read_shape
from engine.errors import CheckpointError, DeviceError
from engine.loading import LoadOptions, load
from engine.lock import FileLock
from engine.models import ModelSource, shelf
from engine.models.catalogue import entries, entry, ranked
from engine.models.commands import app
from engine.models.known import KNOWN
from engine.models.licences import LICENCES, Acceptance, Terms
from engine.models.locate import ModelName
from engine.models.memory import KV_MEMORY, Machine, fit
from engine.models.record import RECORD, PulledFile, Record, read_record, write_record
from engine.processes import ProcessIdentity
from tests.harness.checkpoints import make_checkpoint
from tests.harness.pickles import as_pickled

CPU = torch.device("cpu")
GIB = 2**30
ID = "bigcode/tiny_starcoder_py"
ACCEPTED = Acceptance(("bigcode-openrail-m",), "2026-01-02T03:04:05+00:00", "asked", "0" * 64)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARFILL_HOME", str(tmp_path / "h"))
    monkeypatch.setattr("engine.models.memory.this_machine", lambda: Machine(CPU, 8 * GIB))
    return tmp_path / "h"


def put(text: str, *, with_record: bool = True) -> Path:
    """A small model under a name, as `pull` would leave it."""
    name = ModelName.parse(text)
    assert name is not None
    directory = make_checkpoint(paths.models_dir() / name.folder, n_layer=1, n_positions=64)
    if with_record:
        files = tuple(PulledFile(path.name, path.stat().st_size, "git:" + "0" * 40) for path in directory.iterdir())
        record = Record(
            id=name.id, revision=name.revision, commit="c" * 40, hub="https://hub.example", pulled_at=ACCEPTED.at,
            licences=("bigcode-openrail-m",), acceptance=ACCEPTED, files=files,
        )  # fmt: skip
        write_record(directory, record)
    return directory


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.stdout, done.stderr


# What is known


def test_the_familys_models_have_the_published_numbers_of_parameters() -> None:
    published = {
        "bigcode/tiny_starcoder_py": 164_144_128,
        "bigcode/santacoder": 1_124_886_528,
        "bigcode/starcoderbase-1b": 1_137_207_296,
        "bigcode/starcoderbase-3b": 3_043_311_104,
        "bigcode/starcoderbase-7b": 7_327_263_232,
        "bigcode/starcoderbase": 15_517_456_384,
        "bigcode/starcoder": 15_517_456_384,
    }
    assert {id_: KNOWN[id_].sizes.parameters for id_ in published} == published


@pytest.mark.parametrize("model", KNOWN.values(), ids=lambda model: model.id)
def test_every_entry_of_the_table_holds_together(model: object) -> None:
    known = next(each for each in KNOWN.values() if each is model)
    assert ModelName.parse(known.id) is not None
    assert all(licence in LICENCES for licence in known.licences)
    shape = known.sizes.shape()
    assert shape.parameters == known.sizes.parameters
    assert shape.head_dim % 8 == 0
    assert re.fullmatch(r"@misc\{\w+,\n(  \w+ = \{.*\},?\n)+\}", known.citation.bibtex())
    assert all(ModelName.parse(f"{known.id}@{revision}") is not None for revision in known.revisions)


def test_santacoders_branches_are_known_and_all_heads_cost_memory() -> None:
    santacoder = KNOWN["bigcode/santacoder"]
    assert set(santacoder.revisions) == {"mha", "no-fim", "fim", "stars", "fertility", "comments", "dedup-alt"}
    assert santacoder.of_revision("no-fim") == santacoder.sizes == santacoder.of_revision("anything")
    assert santacoder.of_revision("mha").shape().kv_heads == 16
    assert santacoder.of_revision("mha").parameters > santacoder.sizes.parameters


# What fits


def test_the_list_is_best_first() -> None:
    found = entries(Machine(CPU, 8 * GIB))
    fitting = [one.fits for one in found]
    assert fitting == sorted(fitting, reverse=True)
    sizes = [one.parameters or 0 for one in found]
    first_misfit = fitting.index(False)
    assert 0 < first_misfit < len(found)
    assert sizes[:first_misfit] == sorted(sizes[:first_misfit], reverse=True)
    assert sizes[first_misfit:] == sorted(sizes[first_misfit:])
    assert {str(one.name) for one in found} == {*KNOWN, "starfill-starter"}


def test_among_equals_what_is_here_comes_first_and_what_nobody_knows_last() -> None:
    machine = Machine(CPU, None)
    put("a/here")
    [kept] = shelf.kept_models()
    here = entry(kept.name, kept, machine)
    gone = dataclasses.replace(here, kept=None, name=ModelName("a/gone"))
    unknown = entry(ModelName("a/a"), None, machine)
    assert here.fits
    assert not unknown.fits
    assert ranked([unknown, gone, here]) == [here, gone, unknown]


@pytest.mark.parametrize("free", [None, GIB // 4, 2 * GIB, 8 * GIB, 64 * GIB])
def test_the_list_and_the_engine_agree_on_what_fits(free: int | None) -> None:
    """`models list` says what `serve` would do."""
    for known in KNOWN.values():
        shape = known.sizes.shape()
        told = fit(shape, Machine(CPU, free))
        left = None if free is None else max(0, free - KV_MEMORY)
        try:
            chosen = precision.choose("auto", CPU, shape, left)
        except DeviceError as error:
            assert told.precision is None
            assert told.why == str(error)
        else:
            assert told.precision == chosen.name
            assert free is None or told.needed[chosen.name] <= free
        assert list(told.needed) == list(precision.offered(CPU))


def test_a_model_that_cannot_fit_is_refused_and_the_largest_that_can_is_named() -> None:
    """Before anything of it is read."""
    large = KNOWN["bigcode/starcoder"].sizes.shape()
    with pytest.raises(DeviceError) as caught:
        precision.choose("auto", CPU, large, 5 * GIB)
    assert re.search(
        r"even int4 needs .*choose a smaller model \((bigcode/starcoderbase-3b|bigcode/starcoderbase-7b) fits in",
        str(caught.value),
    )
    with pytest.raises(DeviceError, match=r"the built-in starter needs least: leave --model out"):
        precision.choose("auto", CPU, large, 2**20)
    named = re.search(r"\((\S+) fits in (\w+)\)", str(caught.value))
    assert named is not None
    best, how = KNOWN[named[1]], named[2]
    assert precision.memory_needed(best.sizes.shape(), how, CPU) <= 5 * GIB
    larger = [each for each in KNOWN.values() if each.sizes.parameters > best.sizes.parameters]
    assert all(precision.memory_needed(each.sizes.shape(), "int4", CPU) > 5 * GIB for each in larger)


def test_the_engine_refuses_before_it_reads_any_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no weight to be read here: what is too large is said first."""
    directory = make_checkpoint(tmp_path / "m", n_layer=1, n_positions=64)
    config = json.loads((directory / "config.json").read_text())
    large = {
        "n_layer": 40,
        "n_embd": 6_144,
        "n_head": 48,
        "n_inner": 24_576,
        "n_positions": 8_192,
        "vocab_size": 49_152,
    }
    (directory / "config.json").write_text(json.dumps(config | large))
    (directory / "model.safetensors").unlink()
    monkeypatch.setattr("engine.device.free_memory", lambda device: 6 * GIB)
    options = LoadOptions(ModelSource("bigcode/starcoder", directory), device="cpu")
    with pytest.raises(
        DeviceError, match=r"5\.5 GiB are free; even int4 needs .* \(bigcode/starcoderbase-\db fits in \w+\)"
    ):
        load(options)
    with pytest.raises(DeviceError, match=r"--dtype bfloat16: the model needs .* in bfloat16 on cpu"):
        load(dataclasses.replace(options, dtype="bfloat16"))


def test_the_engine_says_which_precision_it_chose_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_checkpoint(tmp_path / "m", n_layer=1, n_positions=64)
    loaded = load(LoadOptions(ModelSource("m", directory), device="cpu", kv_memory=2**24))
    assert loaded.dtype == "float32"
    assert loaded.why.startswith("auto: ")
    shape = read_shape(directory)
    free = precision.memory_needed(shape, "float32", CPU) + 2**24 - 1
    monkeypatch.setattr("engine.device.free_memory", lambda device: free)
    loaded = load(LoadOptions(ModelSource("m", directory), device="cpu", kv_memory=2**24))
    assert loaded.dtype == "bfloat16"
    assert re.fullmatch(r"auto: float32 needs .*, .* are free", loaded.why)


# The commands


def test_list_shows_what_is_here_with_its_size_and_memory() -> None:
    directory = put(ID)
    code, out, _ = run("list", "--json")
    found = {one["id"]: one for one in json.loads(out)}
    assert code == 0
    mine = found[ID]
    assert mine["here"]
    assert mine["directory"] == str(directory)
    assert mine["size"] == sum(path.stat().st_size for path in directory.iterdir())
    assert mine["commit"] == "c" * 40
    assert mine["context"] == 64, "its own configuration, not the table's"
    assert mine["licences"] == ["bigcode-openrail-m"]
    assert set(mine["memory"]) == set(precision.NAMES)
    assert found["bigcode/starcoder"]["gated"]
    assert not found["bigcode/starcoder"]["here"]
    assert not found["bigcode/starcoder"]["fits"]
    code, out, _ = run("list")
    assert code == 0
    assert all(id_ in out for id_ in (*KNOWN, "starfill-starter"))
    code, out, _ = run("list", "--here")
    assert "bigcode/starcoder" not in out.replace(ID, "")
    assert ID in out


def test_list_bears_what_it_cannot_read() -> None:
    """A folder that somebody made by hand, an adapter, a stray file, a download in progress."""
    models = paths.models_dir()
    (models / "by-hand").mkdir(parents=True)
    (models / ".partial" / "x+y").mkdir(parents=True)
    (models / "file").write_text("x")
    broken = put("a/b")
    (broken / RECORD).write_text("{")
    (broken / "config.json").write_text("[]")
    found = {one["id"]: one for one in json.loads(run("list", "--here", "--json")[1])}
    assert set(found) == {"starfill-starter", "by-hand", "a/b"}
    assert found["by-hand"]["parameters"] is None
    assert not found["by-hand"]["fits"]
    assert run("list")[0] == 0
    assert run("show", "by-hand")[0] == 0


def test_show_tells_licence_citation_and_acceptance() -> None:
    put(ID)
    code, out, _ = run("show", ID)
    assert code == 0
    for part in (
        ID, "TinyStarCoderPy", "https://hub.example/" + ID, "c" * 40, "malware", "BigCode OpenRAIL-M v1", ACCEPTED.at,
        "(asked)", "@misc{li2023starcoder,", "2305.06161", "float32",
    ):  # fmt: skip
        assert part in out, part
    told = json.loads(run("show", ID, "--json")[1])
    assert told["accepted"] == {"licences": ["bigcode-openrail-m"], "at": ACCEPTED.at, "how": "asked"}
    assert told["citation"].startswith("@misc{")


def test_show_knows_models_that_are_not_here() -> None:
    code, out, _ = run("show", "bigcode/santacoder@mha")
    assert code == 0
    assert "all heads have keys and values of their own" in out
    assert "starfill models pull bigcode/santacoder@mha" in out
    assert "bigcode/santacoder@dedup-alt" in run("show", "bigcode/santacoder")[1]
    assert "gated" in run("show", "bigcode/starcoder")[1]
    assert "OpenAI" in run("show", "GeorgiaTechResearchInstitute/starcoder-gpteacher-code-instruct")[1]
    assert "Apache License 2.0" in run("show", "starfill-starter")[1]
    code, _, errors = run("show", "nobody/nothing")
    assert code == 1
    assert "starfill models list" in errors
    assert "ID@REVISION" in run("show", "../x")[2]


def test_remove_asks_and_frees() -> None:
    directory = put(ID)
    code, _, errors = run("remove", ID)
    assert code == 1
    assert "add --yes" in errors
    assert directory.is_dir()
    code, out, _ = run("remove", ID, "--yes")
    assert code == 0
    assert "are free again" in out
    assert not list(paths.models_dir().iterdir())
    code, _, errors = run("remove", ID, "--yes")
    assert code == 1
    assert f"{ID} is not here" in errors
    for command in (("remove", "starfill-starter", "--yes"), ("pull", "starfill-starter")):
        assert "comes with starfill" in run(*command)[2]


@pytest.mark.parametrize("by", ["name", "socket"])
def test_remove_refuses_while_an_engine_runs_the_model(by: str) -> None:
    directory = put(ID)
    source = ModelSource(ID, directory)
    socket = registry.socket_path(registry.engine_key(source) if by == "socket" else "other")
    me = ProcessIdentity.of(os.getpid())
    assert me is not None
    registry.write_record(
        registry.EngineRecord(
            pid=me.pid, started=me.started, executable=me.executable, socket=str(socket),
            model=ID if by == "name" else "else", dtype="float32", device="cpu", version="0",
        )
    )  # fmt: skip
    code, _, errors = run("remove", ID, "--yes")
    assert code == 1
    assert f"{ID} is in use (pid {me.pid})" in errors
    assert "starfill stop" in errors
    assert directory.is_dir()


def _engine_runs(model: str, socket: str = "other") -> int:
    me = ProcessIdentity.of(os.getpid())
    assert me is not None
    registry.write_record(
        registry.EngineRecord(
            pid=me.pid, started=me.started, executable=me.executable, socket=str(registry.socket_path(socket)),
            model=model, dtype="float32", device="cpu", version="0",
        )
    )  # fmt: skip
    return me.pid


def test_remove_refuses_while_an_engine_runs_an_adapter_of_the_model() -> None:
    directory = put(ID)
    other = put("a/other")
    adapter = paths.models_dir() / "mine-tuned"
    adapter.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": ID, "r": 4, "lora_alpha": 8}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    pid = _engine_runs("mine-tuned")
    code, _, errors = run("remove", ID, "--yes")
    assert code == 1
    assert f"{ID} is in use (pid {pid}); end that first: starfill stop mine-tuned" in errors
    assert directory.is_dir()
    assert run("remove", "a/other", "--yes")[0] == 0
    assert not other.exists()


def begin(text: str, size: int, commit: str = "d" * 40) -> Path:
    """What a pull leaves that was stopped."""
    name = ModelName.parse(text)
    assert name is not None
    folder = paths.models_dir() / ".partial" / f"{name.folder}+{commit}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(size))
    return folder


def test_a_download_that_stopped_is_shown_and_can_be_removed() -> None:
    folder, other = begin("a/b@no-fim", 3 * 2**20), begin(ID, 2**20)
    found = {one["id"]: one for one in json.loads(run("list", "--json")[1])}
    assert (found["a/b@no-fim"]["here"], found["a/b@no-fim"]["begun"]) == (False, 3 * 2**20)
    assert [one["id"] for one in json.loads(run("list", "--here", "--json")[1])] == ["starfill-starter"]
    assert found["starfill-starter"]["begun"] == 0
    assert (found[ID]["here"], found[ID]["begun"]) == (False, 2**20)
    assert (
        "a/b@no-fim: 3 MiB of a download that stopped; pull goes on with it, remove frees them"
        in run("list", "--here")[1]
    )
    assert "add --yes" in run("remove", "a/b@no-fim")[2]
    code, out, _ = run("remove", "a/b@no-fim", "--yes")
    assert (code, out) == (0, "Removed a/b@no-fim: 3 MiB are free again.\n")
    assert not folder.exists()
    assert other.exists()
    assert run("remove", "a/b@no-fim", "--yes")[0] == 1


def test_a_model_goes_with_what_began_to_take_its_place(home: Path) -> None:
    directory, folder, commit = put(ID), begin(ID, 2**20), begin(ID, 2**20, "e" * 40)
    older = home / "models" / ".partial" / f"{directory.name}.older"
    older.mkdir()
    (older / "model.safetensors").write_bytes(bytes(2**20))
    with FileLock(folder.parent / f"{directory.name}.lock").held(1):
        code, _, errors = run("remove", ID, "--yes")
        assert code == 1
        assert f"{ID} is being downloaded by another starfill" in errors
        assert directory.is_dir()
    size = shelf.size_of(directory)
    assert shelf.remove(*shelf.on_disk(ID)) == size + 3 * 2**20
    assert not any(path.exists() for path in (directory, folder, commit, older))


def test_a_folder_that_is_a_link_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    directory, elsewhere = put(ID), tmp_path / "larger disk"
    directory.rename(elsewhere)
    directory.symlink_to(elsewhere)
    code, out, _ = run("remove", ID, "--yes")
    assert code == 0
    assert out.splitlines() == [
        f"Removed {ID}: 0 B are free again.", f"Its folder was a link; what is in {elsewhere} stays.",
    ]  # fmt: skip
    assert not os.path.lexists(directory)
    assert (elsewhere / "model.safetensors").is_file()


def test_convert_says_what_it_wrote_and_whether_it_could_be_served(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source", n_layer=1, n_positions=64)
    directory = as_pickled(source, tmp_path / "m", masks=True)
    code, out, errors = run("convert", str(directory))
    assert code == 0
    assert "Wrote model.safetensors" in out
    assert "Left out, as they repeat or mask: lm_head.weight" in out
    assert "could not be served" not in errors
    assert (directory / "pytorch_model.bin").is_file()
    code, _, errors = run("convert", str(directory))
    assert code == 1
    assert "--force" in errors
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"n_layer": 2}))
    code, _, errors = run("convert", str(directory), "--force")
    assert code == 0
    assert "could not be served as it is" in errors
    assert run("convert", str(tmp_path / "nowhere"))[0] == 1


# Records and terms


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = Record(
        "a/b", "main", "c" * 40, "https://h", "2026", ("mit",), None, (PulledFile("x", 3, "git:0"),), ("y.bin",)
    )
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    for spoilt in ("", "{}", "[]", '{"version": 2}', "\xff"):
        (tmp_path / RECORD).write_text(spoilt)
        assert read_record(tmp_path) is None
    assert read_record(tmp_path / "nowhere") is None


def test_what_was_accepted_covers_no_more_than_that() -> None:
    both = Terms.of(("bigcode-openrail-m", "openai-terms"), "https://h/a/b")
    assert both.ids == ("bigcode-openrail-m", "openai-terms")
    assert not ACCEPTED.covers(both)
    assert ACCEPTED.covers(Terms.of(("bigcode-openrail-m",), ""))
    assert ACCEPTED.covers(Terms.of(("apache-2.0",), ""))
    assert Terms.of(("apache-2.0",), "").ids == ()


def test_a_licence_that_we_do_not_know_is_read_on_the_models_page() -> None:
    terms = Terms.of(("made-up-2.0",), "https://h/a/b")
    assert terms.ids == ("made-up-2.0",)
    assert "https://h/a/b" in terms.text()
    assert Terms.of((), "https://h/a/b").ids == ("unknown",)


def test_every_licence_with_restrictions_names_its_own_text() -> None:
    for licence in LICENCES.values():
        assert licence.url.startswith("https://")
        assert licence.url in licence.text()
        if licence.must_be_accepted:
            assert "is what you accept" in licence.text()


def test_a_record_that_is_a_half_written_folder_is_no_model(home: Path) -> None:
    (home / "models" / ".partial" / "bigcode--tiny+abc").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="starfill models pull bigcode/tiny"):
        shelf.find("bigcode/tiny")
    assert not list(shelf.kept_models())


def test_names_and_tables_bring_nothing_heavy() -> None:
    """What a language server imports of this, and what the command line imports at each start."""
    code = (
        "import sys, engine.models.commands, engine.models.known, engine.models.licences, engine.models.locate\n"
        "heavy = ('torch', 'huggingface_hub', 'httpx2', 'pydantic', 'numpy', 'rich.progress', 'engine.models.hub')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
