"""The leak check finds a descriptor, a thread, a child, a task or memory that stays, here and in another process."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.aio import async_test
from tests.harness.leakcheck import LeakCheck
from tests.harness.process import Child, wait_until

# Does what each line of its input says; answers with a line.
LEAKER = """
import subprocess, sys, threading, time
kept = []
for line in sys.stdin:
    what = line.strip()
    if what == "fd":
        kept.append(open(__file__))
    elif what == "thread":
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    elif what == "child":
        kept.append(subprocess.Popen(["sleep", "60"]))
    elif what == "memory":
        kept.append(b"x" * 30_000_000)
    elif what == "undo":
        for each in kept:
            if isinstance(each, subprocess.Popen):
                each.kill()
                each.wait()
            elif not isinstance(each, bytes):
                each.close()
        kept.clear()
    print("done", flush=True)
"""


@pytest.fixture
def leaker(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "leaker.py"
    script.write_text(LEAKER)
    with subprocess.Popen(
        [sys.executable, "-S", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        tell(process, "warm up")
        yield process
        tell(process, "undo")
        assert process.stdin is not None
        process.stdin.close()


def tell(process: subprocess.Popen[str], what: str) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(what + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


@pytest.mark.parametrize(
    ("what", "found"), [("fd", r"1 fd of .*leaker.py"), ("thread", "1 thread named"), ("child", r"child \d+ .*sleep")]
)
def test_a_leak_in_another_process_is_named(leaker: subprocess.Popen[str], what: str, found: str) -> None:
    check = LeakCheck([leaker.pid], own=False)
    check.assert_settled(0.1)
    tell(leaker, what)
    with pytest.raises(AssertionError, match=rf"left behind after 0.1 s:\n  pid {leaker.pid}: {found}"):
        check.assert_settled(0.1)
    if what != "thread":
        tell(leaker, "undo")
        check.assert_settled(2)


def test_growth_is_bounded_on_request(leaker: subprocess.Popen[str]) -> None:
    check = LeakCheck([leaker.pid], own=False)
    check.assert_settled(1, rss_mib=5)
    tell(leaker, "memory")
    check.assert_settled(1)
    with pytest.raises(AssertionError, match=r"grew by [23]\d\.\d MiB, more than 5"):
        check.assert_settled(1, rss_mib=5)


def test_a_watched_process_that_ended_is_no_success() -> None:
    with Child(["sleep", "60"], env=os.environ) as child:
        check = LeakCheck([child.pid])
        child.stop()
        with pytest.raises(AssertionError, match="ended"):
            check.assert_settled(0.1)


def test_leaks_of_this_process_are_found_and_waited_for() -> None:
    check = LeakCheck()
    left, right = socket.socketpair()
    with pytest.raises(AssertionError, match="2 fd of socket"):
        check.assert_settled(0.1)
    left.close()
    right.close()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="straggler")
    thread.start()
    with pytest.raises(AssertionError, match="1 thread named straggler"):
        check.assert_settled(0.1)
    threading.Timer(0.2, stop.set).start()
    check.assert_settled(5)
    assert not thread.is_alive()


@async_test()
async def test_tasks_are_waited_for_without_blocking_their_loop() -> None:
    check = LeakCheck()
    task = asyncio.create_task(asyncio.sleep(60), name="forgotten")
    with pytest.raises(AssertionError, match="forgotten"):
        await check.settled(0.1)
    with pytest.raises(TypeError, match="await settled"):
        check.assert_settled()
    asyncio.get_running_loop().call_later(0.1, task.cancel)
    await check.settled(5)


def test_a_child_that_ends_by_itself_is_waited_for() -> None:
    check = LeakCheck()
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(0.2)"]) as child:
        wait_until(lambda: child.poll() is not None, "end of the child", timeout=5)
        check.assert_settled(5)
