"""Invariant 6: a model directory can be refused or loaded, but it runs nothing, hangs nothing and fills no memory."""

from __future__ import annotations

import json
import os
import pickle
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoint.config import read_config
from engine.checkpoint.folder import ModelFolder
from engine.checkpoint.table import read_table
from engine.errors import CheckpointError
from tests.harness.checkpoints import make_checkpoint
from tests.harness.gatekeeper import Gatekeeper
from tests.harness.hostile import SPOILT
from tests.harness.hostile.configs import GOOD_ENOUGH
from tests.harness.hostile.spoiling import CONFIG, INDEX, TOKENIZER, WEIGHTS, Spoilt
from tests.harness.process import ROOT, isolated_env, temporary_home

MOST_MEMORY = 192 * 2**20
"""Bytes that judging a file may take: a tokenizer of many strings, parsed, is the most costly."""

MOST_CPU_S = 5.0

OF_A_MODEL = {CONFIG, TOKENIZER, WEIGHTS, INDEX}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A directory that loads, as one file (False) and in three shards (True)."""
    root = tmp_path_factory.mktemp("good")
    return {
        sharded: make_checkpoint(root / str(sharded), n_positions=32, shards=3 if sharded else 1)
        for sharded in (False, True)
    }


@pytest.fixture(scope="module")
def gatekeeper() -> Iterator[Gatekeeper]:
    with temporary_home() as home, Gatekeeper(home) as child:
        yield child


def test_the_corpus_is_what_it_claims() -> None:
    assert len(SPOILT) >= 240
    assert len({spoilt.name for spoilt in SPOILT}) == len(SPOILT)


@pytest.mark.parametrize("spoilt", SPOILT, ids=lambda spoilt: spoilt.name)
def test_a_spoilt_directory_is_refused_in_one_line(
    spoilt: Spoilt, good: dict[bool, Path], gatekeeper: Gatekeeper, tmp_path: Path
) -> None:
    directory = tmp_path / "m"
    shutil.copytree(good[spoilt.sharded], directory)
    spoilt.spoil(directory)
    verdict = gatekeeper.judge(directory)
    assert verdict.error == "CheckpointError", verdict
    assert str(tmp_path) in verdict.message
    assert spoilt.file in verdict.message
    assert spoilt.says in verdict.message
    assert verdict.message.isprintable()
    assert len(verdict.message) < 500 + len(str(tmp_path))
    assert not verdict.events
    assert verdict.peak_bytes <= MOST_MEMORY
    assert verdict.cpu_s <= MOST_CPU_S


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
def test_a_good_directory_is_loaded_and_only_its_own_files_are_opened(
    sharded: bool, good: dict[bool, Path], gatekeeper: Gatekeeper
) -> None:
    verdict = gatekeeper.judge(good[sharded])
    assert (verdict.error, verdict.events) == ("", ())
    assert CONFIG in verdict.opened
    assert all(name in OF_A_MODEL or name.endswith(".safetensors") for name in verdict.opened)


@pytest.mark.parametrize("change", GOOD_ENOUGH.values(), ids=GOOD_ENOUGH)
def test_what_changes_nothing_is_read_over(
    change: dict[str, Any], good: dict[bool, Path], gatekeeper: Gatekeeper, tmp_path: Path
) -> None:
    directory = tmp_path / "m"
    shutil.copytree(good[False], directory)
    config = json.loads((directory / CONFIG).read_text())
    (directory / CONFIG).write_text(json.dumps(config | change))
    verdict = gatekeeper.judge(directory)
    assert (verdict.error, verdict.message) == ("", "")
    assert read_config(directory).shape() == read_config(good[False]).shape()


class _Bomb:
    """What unpickling it does is what no test may ever see done."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self._canary, "unpickled")


def _lay_traps(directory: Path, canary: Path) -> None:
    """Everything that some program or other runs when it meets it in a directory."""
    code = f"open({str(canary)!r}, 'w').write(__name__)\n"
    for name in ("evil", "modeling_evil", "configuration_evil", "sitecustomize", "usercustomize", "conftest", "setup",
                 "torch", "json", "safetensors", "tokenizers", "numpy", "pydantic", "engine"):  # fmt: skip
        (directory / f"{name}.py").write_text(code)
        (directory / name).mkdir()
        (directory / name / "__init__.py").write_text(code)
    (directory / "evil.pth").write_text(f"import os; {code}")
    py_compile.compile(
        str(directory / "evil.py"), cfile=str(directory / "__pycache__" / f"json.{sys.implementation.cache_tag}.pyc")
    )
    for name in ("pytorch_model.bin", "training_args.bin", "model.pt", "optimizer.pt", "tokenizer.pkl"):
        (directory / name).write_bytes(pickle.dumps(_Bomb(canary)))
    auto_map = {"AutoConfig": "configuration_evil.Config", "AutoModelForCausalLM": "modeling_evil.Model"}
    config = json.loads((directory / CONFIG).read_text())
    (directory / CONFIG).write_text(json.dumps(config | {"auto_map": auto_map, "architectures": ["Evil"]}))
    (directory / "tokenizer_config.json").write_text(
        json.dumps(
            {"auto_map": {"AutoTokenizer": ["modeling_evil.Tokenizer", None]}, "chat_template": "{{ ''.__class__ }}"}
        )
    )


def test_the_traps_work(tmp_path: Path) -> None:
    """A canary that nothing could kill would prove nothing."""
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(_Bomb(canary)))  # noqa: S301
    assert canary.read_text() == "unpickled"


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
def test_nothing_of_a_directory_full_of_code_is_run(
    sharded: bool, good: dict[bool, Path], gatekeeper: Gatekeeper, tmp_path: Path
) -> None:
    directory, canary = tmp_path / "m", tmp_path / "canary"
    shutil.copytree(good[sharded], directory)
    _lay_traps(directory, canary)
    verdict = gatekeeper.judge(directory)
    assert (verdict.error, verdict.events) == ("", ())
    assert set(verdict.opened) <= OF_A_MODEL | {path.name for path in directory.glob("*.safetensors")}
    assert not canary.exists()


def test_nothing_of_it_is_run_by_an_engine_that_is_started_beside_it(good: dict[bool, Path], tmp_path: Path) -> None:
    """The whole of `serve`'s loading, in a fresh interpreter whose working directory is the model's."""
    directory, canary = tmp_path / "m", tmp_path / "canary"
    shutil.copytree(good[False], directory)
    _lay_traps(directory, canary)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path; from engine.loading import LoadOptions, load; from engine.models import ModelSource\n"
        "load(LoadOptions(ModelSource('m', Path('.')), device='cpu', kv_memory=2**26)); print('loaded')"
    )
    with temporary_home() as home:
        child = subprocess.run(
            [sys.executable, "-P", "-c", code],
            cwd=directory, env=isolated_env(home, OMP_NUM_THREADS="1"), capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
    assert child.stdout.strip() == "loaded", child.stderr
    assert "auto_map is ignored" in child.stderr
    assert not canary.exists()


def test_a_link_that_stays_inside_and_a_hub_cache_are_followed(good: dict[bool, Path], tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0123abcd", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(good[False].iterdir())):
        shutil.copy(file, blobs / f"{number:040x}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"{number:040x}")
    assert read_table(snapshot).keys() == read_table(good[False]).keys()
    assert read_config(snapshot) == read_config(good[False])

    inside = tmp_path / "inside"
    shutil.copytree(good[False], inside)
    (inside / WEIGHTS).rename(inside / "weights")
    (inside / WEIGHTS).symlink_to("weights")
    assert read_table(inside).keys() == read_table(good[False]).keys()
    through = tmp_path / "through"  # the directory itself may be a link: the user named it
    through.symlink_to(inside)
    assert read_table(through).keys() == read_table(good[False]).keys()

    (snapshot / CONFIG).unlink()
    (snapshot / CONFIG).symlink_to(Path("../../blobs/../../outside"))
    (tmp_path / "outside").write_text("{}")
    with pytest.raises(CheckpointError, match="leads out"):
        read_config(snapshot)


def test_a_file_that_becomes_a_pipe_between_two_looks_is_not_waited_for(
    good: dict[bool, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "m"
    shutil.copytree(good[False], directory)
    regular = (directory / CONFIG).stat()
    (directory / CONFIG).unlink()
    os.mkfifo(directory / CONFIG)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: regular)
    with pytest.raises(CheckpointError, match="is a pipe"):
        ModelFolder(directory).open(CONFIG)


def test_nothing_stays_open(good: dict[bool, Path], tmp_path: Path) -> None:
    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    for spoilt in SPOILT[:: len(SPOILT) // 40]:
        directory = tmp_path / spoilt.name.replace("/", "-")
        shutil.copytree(good[spoilt.sharded], directory)
        spoilt.spoil(directory)
        for read in (read_config, read_table):
            with suppress(CheckpointError):
                read(directory)
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == before


def test_a_directory_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        for read in (read_config, read_table):
            with pytest.raises(CheckpointError, match=path.name):
                read(path)
