"""Locks that leave no file behind, and processes that are not mistaken for others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import EngineUnavailable
from engine.lock import FileLock
from engine.processes import ProcessIdentity


def test_one_holder_at_a_time_and_no_file_afterwards(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "l"), FileLock(tmp_path / "l")
    assert first.try_acquire()
    assert not second.try_acquire()
    assert (tmp_path / "l").read_text() == str(os.getpid())
    first.release()
    assert list(tmp_path.iterdir()) == []
    assert second.try_acquire()
    first.release()  # once more does nothing
    assert not FileLock(tmp_path / "l").try_acquire()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_who_waits_too_long_is_told_whom_for(tmp_path: Path) -> None:
    holder = FileLock(tmp_path / "l")
    assert holder.try_acquire()
    with pytest.raises(EngineUnavailable, match=f"pid {os.getpid()}"), FileLock(tmp_path / "l").held(0.05):
        raise AssertionError("two holders")
    holder.release()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "l").symlink_to(target)
    with pytest.raises(EngineUnavailable, match="l: "):
        FileLock(tmp_path / "l").try_acquire()
    assert target.read_text() == "precious"


def _count(folder: Path, rounds: int) -> None:
    counter = folder / "counter"
    for _ in range(rounds):
        with FileLock(folder / "l").held(60):
            value = int(counter.read_text())
            time.sleep(0.0005)
            counter.write_text(str(value + 1))


def test_processes_that_fight_for_it_never_hold_it_together(tmp_path: Path) -> None:
    """The file goes and comes all the time: nobody may hold one that has no name any more."""
    (tmp_path / "counter").write_text("0")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_count, args=(tmp_path, 60)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4
    assert (tmp_path / "counter").read_text() == "240"
    assert [path.name for path in tmp_path.iterdir()] == ["counter"]


def test_the_system_frees_it_when_its_holder_dies(tmp_path: Path) -> None:
    code = "import sys, time\nfrom pathlib import Path\nfrom engine.lock import FileLock\n"
    code += "assert FileLock(Path(sys.argv[1])).try_acquire(); print('held', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "l")], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    # The lock object is garbage at once in the child, but its descriptor stays open: only `release` closes it.
    assert child.stdout.readline() == "held\n"
    lock = FileLock(tmp_path / "l")
    assert not lock.try_acquire()
    child.kill()
    child.wait()
    assert lock.try_acquire()
    lock.release()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


def test_only_the_very_process_is_alive_and_gets_signals(sleeper: subprocess.Popen[bytes]) -> None:
    found = ProcessIdentity.of(sleeper.pid)
    assert found is not None
    assert found.alive
    for stranger in (replace(found, started=found.started - 1), replace(found, executable="/bin/other")):
        assert not stranger.alive
        assert not stranger.send(signal.SIGKILL)
    assert sleeper.poll() is None
    assert found.send(signal.SIGTERM)
    assert sleeper.wait(10) == -signal.SIGTERM
    assert ProcessIdentity.of(sleeper.pid) is None
    assert not found.send(signal.SIGTERM)


def test_without_pidfds_it_is_checked_all_the_same(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    found = ProcessIdentity.of(sleeper.pid)
    assert found is not None
    assert not replace(found, started=1.0).send(signal.SIGKILL)
    assert sleeper.poll() is None
    assert found.send(signal.SIGKILL)
    assert sleeper.wait(10) == -signal.SIGKILL


def test_a_program_that_was_replaced_on_disk_is_still_itself(tmp_path: Path) -> None:
    copy = tmp_path / "sleep"
    copy.write_bytes(Path("/bin/sleep").read_bytes())
    copy.chmod(0o755)
    child = subprocess.Popen([copy, "60"])
    try:
        before = ProcessIdentity.of(child.pid)
        while not (before and before.executable == str(copy)):  # between fork and exec it is us
            before = ProcessIdentity.of(child.pid)
        copy.unlink()
        assert before.alive
    finally:
        child.kill()
        child.wait()
