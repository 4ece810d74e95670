"""Where files are kept, that nobody else's folder is used, and which engines are on record."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine import paths, registry
from engine.errors import StarfillError
from engine.models import ModelSource
from engine.registry import EngineRecord


@pytest.fixture
def short_tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory whose name leaves room for sockets, and no home or runtime folder in the environment."""
    folder = Path(tempfile.mkdtemp(prefix="sf", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for name in ("STARFILL_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    shutil.rmtree(folder)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_one_variable_relocates_everything(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARFILL_HOME", str(short_tmp / "h"))
    assert paths.settings_file() == short_tmp / "h" / "settings.toml"
    assert paths.models_dir() == short_tmp / "h" / "models"
    assert paths.log_dir() == short_tmp / "h" / "log"
    assert paths.runtime_dir() == short_tmp / "h" / "run"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_tmp / "x"))
    assert paths.runtime_dir() == short_tmp / "h" / "run"


def test_a_relative_home_is_taken_from_the_working_directory(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(short_tmp)
    monkeypatch.setenv("STARFILL_HOME", "here")
    assert paths.home() == short_tmp / "here"
    monkeypatch.setenv("STARFILL_HOME", "~/there")
    monkeypatch.setenv("HOME", str(short_tmp))
    assert paths.home() == short_tmp / "there"


def test_without_a_home_the_platforms_folders_are_used(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, folder in (("XDG_CONFIG_HOME", "c"), ("XDG_DATA_HOME", "d"), ("XDG_STATE_HOME", "s")):
        monkeypatch.setenv(variable, str(short_tmp / folder))
    assert paths.home() is None
    assert paths.settings_file().name == "settings.toml"
    for path in (paths.settings_file(), paths.models_dir(), paths.log_dir()):
        assert "starfill" in path.parts
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_tmp / "x"))
    assert paths.runtime_dir() == short_tmp / "x" / "starfill"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert paths.runtime_dir() == short_tmp / f"starfill-{os.getuid()}"


@pytest.mark.parametrize("variable", ["STARFILL_HOME", "XDG_RUNTIME_DIR"])
def test_a_folder_too_long_for_a_socket_gives_a_short_one(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    found = set()
    for sign in "ab":
        monkeypatch.setenv(variable, str(short_tmp / (sign * 90)))
        folder = paths.runtime_dir()
        assert folder.parent == short_tmp
        assert mode(folder) == 0o700
        assert len(os.fsencode(registry.socket_path("0" * 16))) < paths.SUN_PATH
        assert paths.runtime_dir() == folder, "the same setting always gives the same folder"
        found.add(folder)
    assert len(found) == 2, "two homes never share their engines"


def test_the_longest_socket_name_fits_wherever_the_folder_is_not_replaced(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced = []
    for length in range(40, 110):
        home = str(short_tmp / "x").ljust(length, "y")
        monkeypatch.setenv("STARFILL_HOME", home)
        socket = paths.runtime_dir() / ("0" * 16 + "-9" + ".sock")
        assert len(os.fsencode(socket)) < paths.SUN_PATH
        replaced.append(not str(socket).startswith(home))
    assert replaced == sorted(replaced)
    assert set(replaced) == {False, True}


def test_a_private_folder_is_closed_to_others(short_tmp: Path) -> None:
    folder = short_tmp / "a" / "b"
    assert paths.private_dir(folder) == folder
    assert mode(folder) == 0o700
    folder.chmod(0o777)
    paths.private_dir(folder)
    assert mode(folder) == 0o700


def test_a_folder_of_somebody_else_is_refused(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = paths.private_dir(short_tmp / "run")
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(StarfillError, match=re.escape(f"{folder} is not a directory of this user")):
        paths.private_dir(folder)


@pytest.mark.parametrize("kind", ["file", "link to a directory", "link to nothing"])
def test_what_is_no_folder_of_ours_is_refused(short_tmp: Path, kind: str) -> None:
    (short_tmp / "real").mkdir()
    place = short_tmp / "place"
    if kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(short_tmp / ("real" if kind.endswith("directory") else "nothing"))
    with pytest.raises(StarfillError, match=re.escape(str(place)) + ".*STARFILL_HOME"):
        paths.private_dir(place)
    assert not (short_tmp / "nothing").exists()


def record(**fields: object) -> EngineRecord:
    socket = str(registry.socket_path("0123456789abcdef"))
    return replace(EngineRecord(os.getpid(), socket, "tiny", "float32", "cpu", "0.1"), **fields)  # type: ignore[arg-type]


def test_a_record_can_be_read_back_and_is_written_in_one_step(short_tmp: Path) -> None:
    registry.write_record(record())
    path = registry.record_path(Path(record().socket))
    assert registry.read_record(path) == record()
    assert registry.running_engines() == [record()]
    assert [each.name for each in paths.runtime_dir().iterdir()] == ["0123456789abcdef.json"]


def test_what_dead_engines_left_behind_is_removed(short_tmp: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = record(pid=child.pid, socket=str(registry.socket_path("dead")))
    registry.write_record(dead)
    Path(dead.socket).touch()
    registry.write_record(record())
    assert not dead.alive
    assert registry.running_engines() == [record()]
    assert [each.name for each in paths.runtime_dir().iterdir()] == ["0123456789abcdef.json"]


def test_a_zombie_is_not_alive(short_tmp: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.read()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not record(pid=child.pid).alive
    finally:
        child.wait()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"pid": 1}',
        '{"pid": "1", "socket": "s", "model": "m", "dtype": "d", "device": "c", "version": "v"}',
        '{"pid": 0, "socket": "s", "model": "m", "dtype": "d", "device": "c", "version": "v"}',
        '{"pid": -1, "socket": "s", "model": "m", "dtype": "d", "device": "c", "version": "v"}',
        '{"pid": 1e30, "socket": "s", "model": "m", "dtype": "d", "device": "c", "version": "v"}',
        '{"pid": 999999999999999999999, "socket": "s", "model": "m", "dtype": "d", "device": "c", "version": "v"}',
        '{"pid": 1, "socket": "s", "model": "m", "dtype": "d", "device": "c", "version": "v", "more": 1}',
        "\x00" * 10,
    ],
)
def test_a_broken_record_is_no_engine_and_is_removed(short_tmp: Path, text: str) -> None:
    path = paths.runtime_dir() / "broken.json"
    path.write_text(text)
    path.with_suffix(".sock").touch()
    assert registry.running_engines() == []
    assert list(paths.runtime_dir().iterdir()) == []


def test_the_key_of_an_engine_depends_on_all_that_makes_it_another_one() -> None:
    source = ModelSource("tiny", Path("/models/tiny"))
    keys = {
        registry.engine_key(ModelSource(name, Path(folder)), dtype, device)
        for name in ("tiny", "tin")
        for folder in ("/models/tiny", "/models/other")
        for dtype in ("auto", "float32")
        for device in ("cpu", "cuda:0")
    }
    assert len(keys) == 16
    assert all(re.fullmatch("[0-9a-f]{16}", key) for key in keys)
    assert registry.engine_key(source, "auto", "cpu") in keys
