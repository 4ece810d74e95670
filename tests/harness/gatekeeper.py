"""A child that loads model directories and reports what became of each: what was said, what it cost, what was touched.

Its parent writes one path a line; each answer is one line of JSON. Loading happens as `starfill serve` does it.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.harness.process import ROOT, isolated_env, kill_tree

_WATCHED = ("exec", "compile", "import", "marshal", "pickle", "subprocess", "os.system", "os.exec", "os.posix_spawn",
            "os.fork", "ctypes.dlopen", "socket.connect", "shutil", "os.remove", "os.rename")  # fmt: skip
"""Audit events that a model directory must not cause."""

_WARM_S = 240.0
"""How long the child may take for its imports."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one directory."""

    error: str
    """The class of the exception, or nothing when the model was loaded."""
    message: str
    opened: tuple[str, ...]
    """Files of the directory that were opened."""
    events: tuple[str, ...]
    """Watched audit events while it was loaded, imports of the engine's own apart."""
    peak_bytes: int
    """How far resident memory, mapped files included, rose above where it stood."""
    cpu_s: float


class Gatekeeper:
    """The child, seen from its parent."""

    def __init__(self, home: Path, *, warm: Sequence[Path] = (), limit_s: float = 60.0) -> None:
        """`warm`: good directories to load before the first judgement, for the imports that their kinds need."""
        self._limit_s = limit_s
        self._warm = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.gatekeeper", *map(str, warm)],
            env=isolated_env(home, OMP_NUM_THREADS="1"),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        kill_tree(self._process.pid)
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def judge(self, directory: Path, *, dtype: str = "auto") -> Verdict:
        """Have a directory loaded; AssertionError when there is no answer in time."""
        pipe = self._process.stdin
        assert pipe is not None
        if not self._warm:
            self._answer("what it loads first", _WARM_S)
            self._warm = True
        pipe.write(json.dumps([str(directory), dtype]).encode() + b"\n")
        pipe.flush()
        said: dict[str, Any] = json.loads(self._answer(str(directory), self._limit_s))
        return Verdict(**said | {"opened": tuple(said["opened"]), "events": tuple(said["events"])})

    def _answer(self, what: str, limit_s: float) -> bytes:
        answers = self._process.stdout
        assert answers is not None
        ready, _, _ = select.select([answers], [], [], limit_s)
        assert ready, f"{what}: no answer within {limit_s:g} s"
        line = answers.readline()
        assert line, f"{what}: the child died of it"
        return line


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGESIZE")


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _forget_peak() -> None:
    # Where the kernel does not allow it the peak is that of the whole life, which only makes the judgement stricter.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def _main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import engine.transformers_backend.loading  # noqa: F401
    from engine.errors import StarfillError
    from engine.loading import LoadOptions, load
    from engine.models import STARTER, ModelSource

    for good in (STARTER, *map(Path, sys.argv[1:])):  # everything is imported now
        load(LoadOptions(ModelSource("warm", good), device="cpu", kv_memory=2**26))
    answers.write("{}\n")
    answers.flush()
    seen: list[tuple[str, str]] = []
    sys.addaudithook(lambda event, args: seen.append((event, str(args[0]) if args else "")))
    for line in sys.stdin:
        directory, dtype = json.loads(line)
        _forget_peak()
        before, started, error, message = _resident_bytes(), time.process_time(), "", ""
        seen.clear()
        try:
            load(LoadOptions(ModelSource("judged", Path(directory)), device="cpu", dtype=dtype, kv_memory=2**26))
        except StarfillError as refused:
            error, message = type(refused).__name__, str(refused)
        except BaseException as other:
            error, message = type(other).__name__, repr(other)
        events = list(seen)
        answer = {
            "error": error,
            "message": message,
            "opened": sorted({Path(p).name for event, p in events if event == "open" and p.startswith(directory)}),
            "events": sorted({f"{event} {what}" for event, what in events if event.startswith(_WATCHED)}),
            "peak_bytes": max(0, _peak_bytes() - before),
            "cpu_s": time.process_time() - started,
        }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _main()
