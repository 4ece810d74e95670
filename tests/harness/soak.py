"""Hours of typing: recorded keys in several editors, cancels, an engine that is killed again and again, and a look for leaks.

`python -m tests.harness.soak --minutes 60` prints a line a round and a summary, and ends with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import configparser
import inspect
import itertools
import json
import os
import random
import signal
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

from tests.harness.editor import FakeEditor, Pending, Range, ServerError, position
from tests.harness.leakcheck import ProcessState
from tests.harness.process import (
    engine_records,
    is_alive,
    isolated_env,
    read_metrics,
    temporary_home,
)
from tests.harness.text import position_at
from tests.harness.traces import typing_trace

CANCEL_SHARE = 0.15
THINKING_SHARE, THINKING_SECONDS = 0.03, 2.0
"""How often whoever types stops to think, and for how long: then the model has time to say something."""

KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)
RECOVERY_SECONDS = 60.0
"""Until text comes again after a kill, with a model to load and, for SIGSTOP, the silence to notice."""

SERVER_GROWTH_MIB = 64.0
LOG_MIB = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do."""

    seconds: float
    """Of typing; recoveries come on top."""
    round_seconds: float = 60.0
    """Each round ends with a leak check and a kill."""
    key_seconds: float = 0.15
    editors: int = 2
    scripted: bool = False
    seed: int = 7


@dataclass(slots=True)
class Report:
    """What came of it. Times are milliseconds; `problems` is empty if all was well."""

    seconds: float = 0.0
    rounds: int = 0
    keys: int = 0
    requests: int = 0
    with_text: int = 0
    cancels: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    reply_p50: float = 0.0
    reply_p99: float = 0.0
    text_p50: float = 0.0
    text_p99: float = 0.0
    recovery_max: float = 0.0
    server_growth_mib: float = 0.0
    problems: list[str] = field(default_factory=list)


class _Typist:
    """One editor whose user types for ever."""

    def __init__(self, editor: FakeEditor, number: int, plan: Plan, report: Report) -> None:
        self.editor = editor
        self.uri = f"untitled:soak{number}.py"
        self.replies: list[float] = []
        self.texts: list[float] = []
        self._rng = random.Random(plan.seed + number)
        self._plan = plan
        self._report = report
        self._judging: set[asyncio.Task[None]] = set()
        self._events = _typing(plan.seed + number)
        self._at = 0

    async def begin(self) -> None:
        await self.editor.initialize("vscode")
        self.editor.ignore("$/progress", "didChangeStatus")
        self.editor.open(self.uri, "python", "")

    async def type(self, until: float) -> None:
        """A key each `key_seconds`, each with an automatic request, some of them cancelled."""
        while time.monotonic() < until:
            began = time.monotonic()
            prefix, suffix = next(self._events)
            self._become(prefix + suffix)
            self._at = len(prefix)
            self._report.keys += 1
            pending = self._ask(2)
            cancel = self._rng.random() < CANCEL_SHARE
            task = asyncio.create_task(self._judge(pending))
            self._judging.add(task)
            task.add_done_callback(self._judging.discard)
            await asyncio.sleep(self._plan.key_seconds * (self._rng.random() if cancel else 1.0))
            if cancel and not pending.done:
                self.editor.cancel(pending)
                self._report.cancels += 1
            await asyncio.sleep(max(0.0, self._plan.key_seconds - (time.monotonic() - began)))
            if self._rng.random() < THINKING_SHARE and time.monotonic() + THINKING_SECONDS < until:
                await asyncio.sleep(THINKING_SECONDS)

    async def rest(self) -> None:
        """Wait for every reply."""
        await asyncio.gather(*self._judging)

    async def shown(self) -> bool:
        """An invoked request brings text at a place where there is surely some, and where it was not asked before."""
        line = "" if self._plan.scripted else "return "
        self._become(f"def add(a, b):\n    # {self._rng.random()}\n    {line}")
        self._at = len(self.editor.text(self.uri))
        try:
            return bool((await self._ask(1).result(RECOVERY_SECONDS))["items"])
        except ServerError:
            return False

    def _ask(self, kind: Any) -> Pending:
        at = self.editor.cursor(self.uri, self._at)
        self._report.requests += 1
        return self.editor.inline(self.uri, at["line"], at["character"], kind=kind)

    async def _judge(self, pending: Pending) -> None:
        try:
            found = await pending.result(RECOVERY_SECONDS)
        except ServerError as error:
            if error.code != -32800:
                self._report.problems.append(f"an error reply: {error.code} {error.message}")
            return
        self.replies.append(pending.latency * 1000)
        if found["items"]:
            self.texts.append(pending.latency * 1000)
            self._report.with_text += 1

    def _become(self, text: str) -> None:
        """One edit, as small as it can be."""
        old = self.editor.text(self.uri)
        head = _common(old, text)
        tail = _common(old[head:][::-1], text[head:][::-1])
        start, end = (position_at(old, at, self.editor.encoding) for at in (head, len(old) - tail))
        where: Range = {
            "start": position(start["line"], start["character"]),
            "end": position(end["line"], end["character"]),
        }
        self.editor.change(self.uri, where, text[head : len(text) - tail])


def _typing(seed: int) -> Iterator[tuple[str, str]]:
    """Recorded keys: text before and after the cursor after each. A window of the file, so that jumps cost no megabyte."""
    for number in itertools.count():
        module = (configparser, tarfile, argparse, json)[(seed + number) % 4]
        for event in typing_trace(inspect.getsource(module), seed=seed + number):
            if event.kind != "jump":
                yield event.prefix[-8_000:], event.suffix[:2_000]


class _Soak:
    def __init__(self, home: Path, plan: Plan) -> None:
        self._home = home
        self._plan = plan
        self.report = Report()
        self._typists: list[_Typist] = []
        self._baseline: dict[int, ProcessState] = {}

    async def run(self) -> None:
        plan = self._plan
        module = "tests.harness.lsp_scripted" if plan.scripted else "lsp_server"
        argv = [sys.executable, "-m", module, *([] if plan.scripted else ["lsp"])]
        env = isolated_env(self._home)
        started = time.monotonic()
        try:
            for number in range(plan.editors):
                editor = await FakeEditor.start(argv, env=env, timeout=RECOVERY_SECONDS + 30)
                self._typists.append(_Typist(editor, number, plan, self.report))
                await self._typists[-1].begin()
            await self._recovered("the first start")
            for _ in range(max(1, round(plan.seconds / plan.round_seconds))):
                await self._round(time.monotonic() + plan.round_seconds)
        finally:
            for typist in self._typists:
                try:
                    await typist.editor.close()
                except Exception as error:
                    self.report.problems.append(f"an editor's session: {str(error)[:2_000]}")
        self._sum_up(time.monotonic() - started)

    async def _round(self, until: float) -> None:
        report = self.report
        report.rounds += 1
        await asyncio.gather(*(typist.type(until) for typist in self._typists))
        await asyncio.gather(*(typist.rest() for typist in self._typists))
        problems = await self._leaks()
        report.problems += [f"round {report.rounds}: {problem}" for problem in problems]
        kill = KILLS[(report.rounds - 1) % len(KILLS)]
        (record,) = engine_records(self._home)
        os.kill(record["pid"], kill)
        report.kills[kill.name] = report.kills.get(kill.name, 0) + 1
        # In mid-typing: who asks next finds out.
        await asyncio.gather(*(typist.type(time.monotonic() + 5 * self._plan.key_seconds) for typist in self._typists))
        await self._recovered(f"round {report.rounds}: {kill.name}")
        if record["pid"] in [each["pid"] for each in engine_records(self._home)] or is_alive(record["pid"]):
            report.problems.append(f"round {report.rounds}: the engine that got {kill.name} is still there")
        report.restarts += 1
        print(json.dumps({"round": report.rounds, "kill": kill.name, "problems": problems}), flush=True)

    async def _recovered(self, what: str) -> None:
        began = time.monotonic()
        shown = [False]
        while not all(shown) and time.monotonic() - began < RECOVERY_SECONDS:
            shown = list(await asyncio.gather(*(typist.shown() for typist in self._typists)))
        if not all(shown):
            self.report.problems.append(f"{what}: no text within {RECOVERY_SECONDS:g} s")
        self.report.recovery_max = max(self.report.recovery_max, (time.monotonic() - began) * 1000)

    async def _leaks(self) -> list[str]:
        """What has grown since the first round, once everything is quiet."""
        found: list[str] = []
        for _ in range(100):
            found = await asyncio.to_thread(self._look)
            if not found:
                return []
            await asyncio.sleep(0.1)
        return found

    def _look(self) -> list[str]:
        records = engine_records(self._home)
        if len(records) != 1 or not is_alive(records[0]["pid"]):
            return [f"{len(records)} engines on record"]
        metrics = read_metrics(Path(records[0]["socket"]))
        counts = {name: metrics.value(f"starfill_{name}") for name in ("slots_held", "running", "waiting")}
        found = [f"{name} is {value:g} when idle" for name, value in counts.items() if value]
        files = sorted(path.suffix for path in (self._home / "run").iterdir())
        if files != [".json", ".sock"]:
            found.append(f"files in the runtime folder: {files}")
        size = sum(path.stat().st_size for path in (self._home / "log").iterdir()) / 2**20
        if size > LOG_MIB:
            found.append(f"logs of {size:.1f} MiB")
        for typist in self._typists:
            found += self._growth(typist.editor.pid, records[0]["pid"])
        return found

    def _growth(self, pid: int, engine: int) -> list[str]:
        now = ProcessState.of(pid)
        before = self._baseline.setdefault(pid, now)
        grown = now.rss_mib - before.rss_mib
        self.report.server_growth_mib = max(self.report.server_growth_mib, round(grown, 1))
        # A connection or a thread of a pool more or less is none; many are.
        found = [
            f"server {pid}: {count} more {kind} of {name}"
            for kind, more in (("fd", now.fds - before.fds), ("thread", now.threads - before.threads))
            for name, count in more.items()
            if count > 4
        ]
        strangers = {child for child, _ in now.children} - {engine}
        found += [f"server {pid}: child {child} left behind" for child in strangers]
        if grown > SERVER_GROWTH_MIB:
            found.append(f"server {pid} grew by {grown:.0f} MiB")
        return found

    def _sum_up(self, seconds: float) -> None:
        report = self.report
        report.seconds = round(seconds, 1)
        replies = [each for typist in self._typists for each in typist.replies]
        texts = [each for typist in self._typists for each in typist.texts]
        report.reply_p50, report.reply_p99 = _middle_and_tail(replies)
        report.text_p50, report.text_p99 = _middle_and_tail(texts)
        report.recovery_max = round(report.recovery_max, 1)
        if not replies:
            report.problems.append("no request was answered")
        left = list((self._home / "run").iterdir()) if not engine_records(self._home) else []
        report.problems += [f"left behind: {path.name}" for path in left]


def _common(one: str, other: str) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _middle_and_tail(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return 0.0, 0.0
    cuts = quantiles(values, n=100, method="inclusive")
    return round(cuts[49], 1), round(cuts[98], 1)


async def soak(plan: Plan) -> Report:
    """Do as planned -> what came of it."""
    with temporary_home() as home:
        run = _Soak(home, plan)
        await run.run()
        return run.report


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--round", type=float, default=60.0, help="seconds from kill to kill")
    parser.add_argument("--key", type=float, default=0.15, help="seconds from key to key")
    parser.add_argument("--editors", type=int, default=2)
    parser.add_argument("--scripted", action="store_true", help="the scripted model in place of the starter")
    parser.add_argument("--out", type=Path, help="write the report there as JSON")
    options = parser.parse_args()
    plan = Plan(options.minutes * 60, options.round, options.key, options.editors, options.scripted)
    report = asyncio.run(soak(plan))
    text = json.dumps(asdict(report), indent=2)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
