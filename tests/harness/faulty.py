"""An engine process that fails on purpose: the scripted model behind the real service, with faults when a test asks for them.

`python -m tests.harness.faulty --socket PATH --faults DIR`. A file `armed` in DIR says `STAGE KIND`; the fault strikes once,
at the next such stage, and leaves a file `struck` with the monotonic time. Stages: start, load, handshake, prefill, first,
middle, last. Kinds: kill (SIGKILL), stop (SIGSTOP), raise, hang (it does not come back).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import logs
from engine import serve as serve_module
from engine import service as service_module
from engine.endpoint import Endpoint
from engine.intake import Admitted
from engine.models import STARTER, ModelSource
from engine.serve import Loaded, Manner, serve
from engine.service import Service
from engine.starting import EngineOptions
from engine.step import Sample, Step
from engine.watchdog import Limits
from tests.harness.scripted import ScriptedRunner, scripted_intake, starter_tokenizer

SCRIPT = "first(second, value)[name] = other * path - size"
PROMPT = "# " + "a rather long line of text to compute first\n" * 40
"""More than one piece of prefill."""

SOURCE = ModelSource("scripted", STARTER)


class Faults:
    """Strikes when told to."""

    def __init__(self, folder: Path) -> None:
        self._armed = folder / "armed"
        self._struck = folder / "struck"

    def arm(self, stage: str, kind: str) -> None:
        """For the test: the next such stage fails."""
        self._struck.unlink(missing_ok=True)
        draft = self._armed.with_suffix(".new")
        draft.write_text(f"{stage} {kind}")
        draft.replace(self._armed)

    def struck(self) -> float | None:
        """For the test: when it did, by the monotonic clock."""
        return float(self._struck.read_text()) if self._struck.exists() else None

    def at(self, stage: str) -> None:
        """For the engine: this stage begins."""
        try:
            wanted, kind = self._armed.read_text().split()
        except FileNotFoundError:
            return
        if wanted != stage:
            return
        self._armed.unlink()
        draft = self._struck.with_suffix(".new")
        draft.write_text(str(time.monotonic()))
        draft.replace(self._struck)
        if kind == "raise":
            raise RuntimeError("scripted failure")
        if kind == "hang":
            time.sleep(3_600)
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[kind])


class FaultyRunner(ScriptedRunner):
    """Announces the stage of each pass to `faults`."""

    faults: Faults
    passes: Path | None = None

    def run(self, step: Step) -> list[Sample]:
        """One pass; `passes` gets a line with its time and the longest run of tokens in it: one in decoding."""
        if self.passes is not None:
            with self.passes.open("a") as file:
                file.write(f"{time.monotonic()} {max(span.length for span in step.spans)}\n")
        self.faults.at("prefill" if max(span.length for span in step.spans) > 16 else "pass")
        samples = super().run(step)
        for sample in samples:
            at = self._script.index(sample.id) if sample.id in self._script else len(self._script)
            stage = {0: "first", len(self._script) // 2: "middle", len(self._script): "last"}.get(at)
            if stage is not None:
                self.faults.at(stage)
        return samples


def faulty_command(faults: Path, *more: str) -> Callable[[EngineOptions, Path, Path], list[str]]:
    """For `SharedEngine(command=…)`: starts this module."""

    def command(options: EngineOptions, socket: Path, log_file: Path) -> list[str]:
        flags = [word for name, value in options.flags.items() for word in ("--flag", f"{name}={value}")]
        return [
            sys.executable, "-P", "-m", "tests.harness.faulty", "--socket", str(socket), "--faults", str(faults),
            "--log-file", str(log_file), *flags, *more,
        ]  # fmt: skip

    return command


def main() -> int:
    """Serve until stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--faults", type=Path, required=True)
    parser.add_argument("--log-file", type=Path)
    parser.add_argument("--flag", action="append", default=[])
    parser.add_argument("--delay", type=float, default=0.005)
    parser.add_argument("--load-delay", type=float, default=0.0)
    parser.add_argument("--pass-limit", type=float, default=20.0)
    parser.add_argument("--load-limit", type=float, default=900.0)
    parser.add_argument("--drain", type=float, default=10.0)
    parser.add_argument("--idle-exit", type=float)
    parser.add_argument("--passes", type=Path)
    parser.add_argument("--version")
    options = parser.parse_args()
    logs.configure(options.log_file)
    faults = Faults(options.faults)
    faults.at("start")
    if options.version:
        for module in (serve_module, service_module):
            setattr(module, "__version__", options.version)  # noqa: B010  (what they import, they do not export)
    _tell_of_handshakes(faults)

    def load() -> Loaded:
        faults.at("load")
        time.sleep(options.load_delay)
        tokenizer = starter_tokenizer()
        script = tokenizer.encode(SCRIPT)
        assert len(set(script)) == len(script)
        runner = FaultyRunner(tokenizer, script, delay=options.delay)
        runner.faults, runner.passes = faults, options.passes
        return Loaded(scripted_intake(tokenizer), runner, "float32", "cpu", why="scripted")

    limit = options.pass_limit
    limits = Limits(load=options.load_limit, one_pass=limit, first_pass=limit, loop=limit)
    flags: dict[str, Any] = {"device": "auto", "dtype": "auto", **dict(flag.split("=") for flag in options.flag)}
    manner = Manner(options.idle_exit, options.drain, limits, flags, check_each_step=True)
    return serve("scripted", load, Endpoint(options.socket), manner)


def _tell_of_handshakes(faults: Faults) -> None:
    complete = Service.complete

    async def told(self: Service, body: bytes, client: str) -> tuple[Any, Admitted, Any]:
        faults.at("handshake")
        return await complete(self, body, client)

    Service.complete = told  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())
