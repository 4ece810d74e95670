"""A full disk, a standard error that takes nothing, no more threads, a signal at once: an engine
serves, or ends in words and cleans up.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from engine import registry
from engine.endpoint import Endpoint
from engine.lock import FileLock
from tests.harness.process import (
    Child,
    http_over_unix,
    isolated_env,
    module_argv,
    temporary_home,
    wait_for_health,
    wait_until,
)

FULL_AFTER_THE_FIRST = """
import os, sys
from pathlib import Path
from engine import registry
from tests.harness.scripted import main

replace, written = Path.replace, []

def full(self, target):
    written.append(target)
    if len(written) > 1:
        raise OSError(28, "No space left on device")
    return replace(self, target)

Path.replace = full
sys.exit(main())
"""

NO_MORE_THREADS = """
import sys, threading
from tests.harness.scripted import main

start = threading.Thread.start

def refuse(self):
    if self.name == "starfill-decode":
        raise RuntimeError("can't start new thread")
    start(self)

threading.Thread.start = refuse
sys.exit(main())
"""


TOLD_TO_LEAVE_AT_ONCE = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from tests.harness.scripted import main

submit = ThreadPoolExecutor.submit

def told(self, *args, **named):
    ThreadPoolExecutor.submit = submit
    begun = submit(self, *args, **named)
    os.kill(os.getpid(), signal.%s)
    return begun

ThreadPoolExecutor.submit = told
sys.exit(main())
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with temporary_home() as home:
        yield home


def full(*_: object, **__: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def redirected(how: str, argv: Sequence[str], home: Path) -> Child:
    return Child(["sh", "-c", f'exec "$@" {how}', "sh", *argv], env=isolated_env(home))


def test_an_engine_leaves_nothing_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = Endpoint(tmp_path / "e.sock").bind()
    bound.publish("m", "d", "c", "0.1.0")
    monkeypatch.setattr(os, "write", full)
    bound.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_an_engine_removes_its_socket_where_no_lock_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    bound = Endpoint(tmp_path / "e.sock").bind()
    bound.publish("m", "d", "c", "0.1.0")
    opened = os.open

    def refused(path: str | Path, flags: int, *more: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code))
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", refused)
    bound.close()
    assert list(tmp_path.iterdir()) == []


def test_a_socket_that_cannot_be_removed_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = Endpoint(tmp_path / "e.sock").bind()
    monkeypatch.setattr(Path, "unlink", full)
    bound.close()
    assert bound.listener.fileno() == -1


def test_dead_engines_are_found_on_a_full_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARFILL_HOME", str(home))
    monkeypatch.setattr(os, "write", full)
    left = registry.socket_path("0123456789abcdef")
    left.touch()
    assert registry.running_engines() == []
    assert not left.exists()
    assert FileLock(left.with_suffix(".claim")).try_acquire()


def test_a_record_that_cannot_be_written_after_loading_is_no_obstacle(home: Path) -> None:
    path = home / "e.sock"
    argv = [sys.executable, "-c", FULL_AFTER_THE_FIRST, "--socket", str(path), "--script", "one two three"]
    with Child(argv, env=isolated_env(home)) as child:
        wait_for_health(path, child=child)
        reply = http_over_unix(path, "/v1/completions", body={"prompt": "x", "max_tokens": 2}, timeout=10)
        assert reply.status == 200
        record = registry.read_record(registry.record_path(path))
        assert record is not None
        assert (record.pid, record.dtype) == (child.pid, ""), "the first record stays"
        assert not list(home.glob("*.tmp"))
        assert child.stop() == 0
        assert not path.exists()


def test_what_fails_after_loading_is_a_failure_and_no_loading_without_end(home: Path) -> None:
    path = home / "e.sock"
    argv = [sys.executable, "-c", NO_MORE_THREADS, "--socket", str(path), "--script", "one two three"]
    with Child(argv, env=isolated_env(home)) as child:
        assert child.process.wait(20) == 1
        assert "the model could not be loaded: RuntimeError" in child.output()
        assert not path.exists()


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_told_to_leave_while_its_threads_begin_it_leaves(number: str, home: Path) -> None:
    path = home / "e.sock"
    argv = [sys.executable, "-c", TOLD_TO_LEAVE_AT_ONCE % number, "--socket", str(path), "--script", "one two three"]
    with Child(argv, env=isolated_env(home)) as child:
        assert child.process.wait(20) == 0
        assert not list(home.glob("e.*"))


def hanging(home: Path) -> list[str]:
    return module_argv(
        "tests.harness.faulty", "--socket", str(home / "e.sock"), "--faults", str(home), "--load-limit", "0.5",
        "--load-delay", "60",
    )  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("how", ["2>/dev/full", "2>&-", "2>&- >&-"])
def test_an_engine_that_hangs_ends_itself_whatever_its_standard_error_is(home: Path, how: str) -> None:
    with redirected(how, hanging(home), home) as child:
        wait_until(lambda: child.process.poll() is not None, "end of the hung engine", timeout=20)
        assert child.process.returncode == 70
        assert not (home / "e.sock").exists()


def test_an_engine_that_hangs_ends_though_nobody_reads_what_it_says(home: Path) -> None:
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        os.set_blocking(writing, True)
        log = ("--log-file", str(home / "log"))
        with subprocess.Popen([*hanging(home), *log], env=isolated_env(home), stderr=writing) as process:
            try:
                assert process.wait(30) != 0
            finally:
                process.kill()
        assert "took longer" in (home / "log").read_text()
    finally:
        os.close(reading)
        os.close(writing)


def test_an_engine_without_standard_error_serves(home: Path) -> None:
    path = home / "e.sock"
    argv = module_argv("tests.harness.scripted", "--socket", str(path), "--script", "one two three")
    with redirected("2>&-", argv, home) as child:
        wait_for_health(path, child=child)
        assert child.stop() == 0
        assert not path.exists()
