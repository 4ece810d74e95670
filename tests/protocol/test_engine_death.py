"""The engine is killed, stopped or broken: every request is answered soon, and the next invoked one returns text."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.harness.aio import async_test
from tests.harness.editor import FakeEditor, span
from tests.harness.process import (
    Child,
    engine_pids,
    isolated_env,
    read_metrics,
    temporary_home,
    wait_until,
)
from tests.harness.served import scripted_engine

URI = "untitled:death.py"
TEXT = "import os\n\n\ndef list_files(path):\n    for name in os."


async def _own_engine(home: Path) -> FakeEditor:
    argv = [sys.executable, "-m", "lsp_server", "lsp"]
    return await FakeEditor.start(argv, env=isolated_env(home), timeout=90)


@async_test(timeout=200)
async def test_killing_the_engine_in_mid_stream_costs_one_completion() -> None:
    with temporary_home() as home:
        async with await _own_engine(home) as editor:
            await editor.initialize("vscode")
            editor.ignore("$/progress")
            editor.open(URI, "python", TEXT)
            assert (await editor.inline(URI, 4, 19).result())["items"]
            for number in range(3):
                editor.change(URI, span(0, 0), "\n")  # another place, or the answer comes from the store
                (pid,) = engine_pids(home)
                os.kill(pid, signal.SIGSTOP)  # so that it is surely in mid-answer when it dies
                pending = editor.inline(URI, 5 + number, 19)
                await asyncio.sleep(0.3)
                os.kill(pid, signal.SIGKILL)
                died = time.monotonic()
                assert (await pending.result())["items"] == []
                assert time.monotonic() - died < 1
                again = await editor.inline(URI, 5 + number, 19).result()
                assert again["items"]
                (new,) = engine_pids(home)
                assert new != pid


@async_test(timeout=120)
async def test_dying_while_it_streams_is_answered_within_a_second() -> None:
    with scripted_engine("a.b(c).d(e).f(g).h(i)", "--delay", "0.05") as engine:
        async with await engine.editor() as editor:
            await editor.initialize("vscode")
            editor.open(URI, "python", "x = ")
            pending = editor.inline(URI, 0, 4, partial=True)
            async for _ in pending:
                break
            os.kill(engine.child.pid, signal.SIGKILL)
            died = time.monotonic()
            assert (await pending.result())["items"] == []
            assert time.monotonic() - died < 1
            assert (await editor.inline(URI, 0, 4).result())["items"] == []
            ask = {"command": "starfill.status"}
            last = (await editor.request("workspace/executeCommand", ask).result())["last"]
            assert last["reason"] == "engine_down"


@pytest.mark.parametrize("call", [1, 2, 5])
def test_an_error_inside_a_forward_pass_fails_that_request_alone(call: int) -> None:
    @async_test()
    async def run() -> None:
        with scripted_engine("a.b(c).d(e)", "--fail-at", str(call)) as engine:
            async with await engine.editor() as editor:
                await editor.initialize("vscode")
                editor.open(URI, "python", "x = ")
                assert (await editor.inline(URI, 0, 4).result())["items"] == []
                (item,) = (await editor.inline(URI, 0, 4).result())["items"]
                assert item["insertText"] == "a.b(c).d(e)"
                metrics = read_metrics(engine.socket)
                assert metrics.value("starfill_failed_passes_total") == 1
                assert metrics.value("starfill_slots_held") == 0

    run()


@async_test(timeout=120)
async def test_servers_that_start_together_share_one_engine() -> None:
    with temporary_home() as home:
        editors = [await _own_engine(home) for _ in range(4)]
        try:
            for editor in editors:
                editor.ignore("$/progress")
                await editor.initialize("vscode")
                editor.open(URI, "python", TEXT)
            pending = [editor.inline(URI, 4, 19) for editor in editors]
            answers = [(await each.result())["items"] for each in pending]
            assert all(answers)
            assert len(engine_pids(home)) == 1
        finally:
            for editor in editors:
                await editor.close()
        (pid,) = engine_pids(home)
        assert Path(f"/proc/{pid}").exists()  # it outlives its editors


@async_test(timeout=120)
async def test_a_request_made_while_the_model_loads_waits_only_if_it_was_invoked() -> None:
    with temporary_home() as home:
        async with await _own_engine(home) as editor:
            await editor.initialize("vscode")
            editor.ignore("$/progress")
            editor.open(URI, "python", TEXT)
            editor.open(URI + "2", "python", TEXT)
            invoked, automatic = editor.inline(URI, 4, 19, kind=1), editor.inline(URI + "2", 4, 19, kind=2)
            started = time.monotonic()
            assert (await automatic.result())["items"] == []
            assert time.monotonic() - started < 2
            assert (await invoked.result())["items"]


@async_test(timeout=60)
async def test_progress_is_shown_while_the_model_loads() -> None:
    with temporary_home() as home:
        async with await _own_engine(home) as editor:
            await editor.initialize("vscode")
            editor.open(URI, "python", TEXT)
            assert (await editor.inline(URI, 4, 19).result())["items"]
            await editor.until(lambda: any(v and v[-1]["kind"] == "end" for v in editor.progress.values()), "its end")
            (values,) = editor.progress.values()
            assert next(value["kind"] for value in values) == "begin"
            assert values[0]["title"] == "starfill"


def test_a_repository_with_a_folder_called_engine_runs_nothing(tmp_path: Path) -> None:
    """Invariant 11: the working directory and PYTHONPATH of an editor choose no code."""
    canary = tmp_path / "canary"
    for package in ("engine", "lsp_server", "torch", "uvicorn"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
        (tmp_path / package / "cli.py").write_text(f"open({str(canary)!r}, 'w').close()\n")

    @async_test()
    async def run() -> None:
        with temporary_home() as home:
            env = isolated_env(home)
            starfill = Path(sys.executable).with_name("starfill")
            async with await FakeEditor.start([starfill, "lsp"], env=env, cwd=tmp_path, timeout=90) as editor:
                editor.ignore("$/progress")
                await editor.initialize("vscode", root_uri=tmp_path.as_uri())
                editor.open(URI, "python", TEXT)
                assert (await editor.inline(URI, 4, 19).result())["items"]
                (pid,) = engine_pids(home)
                assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")

    run()
    assert not canary.exists()


def test_an_idle_engine_leaves_and_cleans_up() -> None:
    with temporary_home() as home:
        with Child.module("engine.cli", "serve", "--device", "cpu", "--idle-exit", "1s", home=home) as child:
            wait_until(lambda: child.process.poll() is not None, "idle exit", timeout=60)
            assert child.process.returncode == 0, child.output()
        assert [path.name for path in (home / "run").iterdir() if path.suffix != ".lock"] == []
