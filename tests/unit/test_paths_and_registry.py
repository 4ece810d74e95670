"""Where files are kept, that nobody else's folder is used, and which engines are on record."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
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
from engine.processes import ProcessIdentity
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
    monkeypatch.chdir("/")
    assert paths.home() == short_tmp / "here", "the engines that we start work there"
    assert os.environ["STARFILL_HOME"] == str(short_tmp / "here")
    monkeypatch.setenv("STARFILL_HOME", "~/there")
    monkeypatch.setenv("HOME", str(short_tmp))
    assert paths.home() == short_tmp / "there"


def test_a_home_that_cannot_be_known_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STARFILL_HOME", "~nosuchuser/x")
    with pytest.raises(StarfillError, match=r"STARFILL_HOME=~nosuchuser/x: .*absolute"):
        paths.home()
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("STARFILL_HOME", "here")
    with pytest.raises(StarfillError, match=r"STARFILL_HOME=here: .*absolute"):
        paths.home()


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
    socket, own = str(registry.socket_path("0123456789abcdef")), ProcessIdentity.own()
    found = EngineRecord(own.pid, own.started, own.executable, socket, "tiny", "float32", "cpu", "0.1")
    return replace(found, **fields)  # type: ignore[arg-type]


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


_REST = '"socket": "s", "model": "m", "dtype": "d", "device": "c", "version": "v"'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"pid": 1}',
        *(
            f'{{"pid": {pid}, "started": 1, "executable": "e", {_REST}}}'
            for pid in ('"1"', "0", "-1", "true", "1e30", "999999999999999999999")
        ),
        f'{{"pid": 1, "started": "1", "executable": "e", {_REST}}}',
        f'{{"pid": 1, "started": 1, "executable": 1, {_REST}}}',
        f'{{"pid": 1, {_REST}}}',
        "[" * 50_000,
        "\x00" * 10,
    ],
)
def test_a_broken_record_is_no_engine_and_is_removed(short_tmp: Path, text: str) -> None:
    path = paths.runtime_dir() / "broken.json"
    path.write_text(text)
    path.with_suffix(".sock").touch()
    assert registry.running_engines() == []
    assert list(paths.runtime_dir().iterdir()) == []


def test_a_record_of_a_newer_starfill_is_understood(short_tmp: Path) -> None:
    """An older one that took it for broken would remove the files of an engine that runs."""
    registry.write_record(record())
    path = registry.record_path(Path(record().socket))
    path.write_text(json.dumps({**json.loads(path.read_text()), "more": 1}))
    assert registry.running_engines() == [record()]


def test_a_record_that_is_a_link_or_too_long_is_none(short_tmp: Path) -> None:
    registry.write_record(record())
    path = registry.record_path(Path(record().socket))
    elsewhere = short_tmp / "elsewhere.json"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert registry.read_record(path) is None
    path.unlink()
    path.write_text(elsewhere.read_text() + " " * 100_000 + "x")
    assert registry.read_record(path) is None


def test_a_pid_that_belongs_to_a_stranger_by_now_is_no_engine(short_tmp: Path) -> None:
    registry.write_record(record(started=1.0))
    Path(record().socket).touch()
    assert registry.running_engines() == []
    assert list(paths.runtime_dir().iterdir()) == []


def test_what_somebody_is_busy_with_is_left_alone(short_tmp: Path) -> None:
    """A record of a dead engine beside the socket of one that is just starting: the lock says who is at it."""
    dead = record(started=1.0)
    registry.write_record(dead)
    path = Path(dead.socket)
    claim = registry.claim_lock(path)
    assert claim.try_acquire()
    path.touch()
    registry.sweep()
    assert path.exists()
    claim.release()
    registry.sweep()
    assert list(paths.runtime_dir().iterdir()) == []


def test_the_socket_of_a_live_listener_without_a_record_is_left_alone(short_tmp: Path) -> None:
    path = registry.socket_path("0" * 16)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(0)
    try:
        full = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in full:
            client.setblocking(False)
            client.connect_ex(str(path))
        registry.sweep()
        assert path.exists(), "a listener whose queue is full is one too"
        for client in full:
            client.close()
    finally:
        listener.close()
    registry.sweep()
    assert not path.exists()


def test_removing_is_for_ones_own_files(short_tmp: Path) -> None:
    registry.write_record(record())
    path = Path(record().socket)
    path.touch()
    registry.remove(path, replace(ProcessIdentity.own(), started=1.0))
    assert path.exists()
    registry.remove(path, ProcessIdentity.own())
    assert list(paths.runtime_dir().iterdir()) == []


def test_the_key_of_an_engine_is_its_models() -> None:
    """Whoever wants that model shares the engine, whatever else they asked for."""
    source = ModelSource("tiny", Path("/models/tiny"))
    keys = {
        registry.engine_key(ModelSource(name, Path(folder)))
        for name in ("tiny", "tin")
        for folder in ("/models/tiny", "/models/other")
    }
    assert len(keys) == 4
    assert all(re.fullmatch("[0-9a-f]{16}", key) for key in keys)
    assert registry.engine_key(source) in keys


def test_a_temporary_folder_where_others_could_replace_ours_is_refused(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_tmp.chmod(0o777)
    with pytest.raises(StarfillError, match="sticky"):
        paths.runtime_dir()
    short_tmp.chmod(0o1777)
    assert mode(paths.runtime_dir()) == 0o700


def test_a_folder_that_somebody_else_made_first_is_refused(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = short_tmp / f"starfill-{os.getuid()}"
    target = short_tmp / "theirs"
    target.mkdir()
    place.symlink_to(target)
    with pytest.raises(StarfillError, match=re.escape(str(place))):
        paths.runtime_dir()
    assert mode(target) != 0o700, "the mode of what a link points to is not changed"
