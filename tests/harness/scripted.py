"""A model whose next token is read off a table, and an engine process around it.

The logits depend on the last token alone: after each token of the script comes the next one, after any other token the
script's first. So the text is known in advance, and it is right only if the scheduler fed it the right tokens.

As a program: `python -m tests.harness.scripted --socket PATH --script TEXT [--delay SECONDS] [--fail-at CALL]`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from engine.intake import HealingPolicy, Intake
from engine.models import STARTER
from engine.serve import Endpoint, Loaded, serve
from engine.step import Sample, Step
from engine.tokenizer import Tokenizer


class ScriptedRunner:
    """Implements `engine.step.Runner`. `calls` counts passes, `starts` has the monotonic time at which each began."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        script: Sequence[int],
        *,
        slots: int = 4,
        window: int = 2048,
        delay: float = 0.0,
        fail_at: int | None = None,
        log: Path | None = None,
    ) -> None:
        self.slots = slots
        self.window = window
        self.calls = 0
        self.starts: list[float] = []
        self._delay = delay
        self._fail_at = fail_at
        self._log = log
        self._end = tokenizer.control.end_of_text
        self._first = script[0] if script else self._end
        self._next = dict(zip(script, [*script[1:], self._end], strict=True))
        if len(self._next) != len(script):
            raise ValueError("a script must not repeat a token")

    def run(self, step: Step) -> list[Sample]:
        """One pass."""
        self.calls += 1
        self.starts.append(time.monotonic())
        if self._log is not None:
            with self._log.open("a") as log:
                log.write(f"{self.starts[-1]}\n")
        if self._fail_at == self.calls:
            raise RuntimeError("scripted failure")
        if self._delay:
            time.sleep(self._delay)
        samples, end = [], 0
        for span, sampled, allowed in zip(step.spans, step.sampled, step.allowed, strict=True):
            end += span.length
            if sampled:
                wish = self._next.get(step.ids[end - 1], self._first)
                samples.append(Sample(wish if allowed is None or wish in allowed else min(allowed), -0.5))
        return samples


def scripted_intake(tokenizer: Tokenizer, window: int = 2048) -> Intake:
    """The front desk of a model called `scripted` that is never healed."""
    return Intake("scripted", tokenizer, tokenizer.size, window, HealingPolicy(frozenset()))


def starter_tokenizer() -> Tokenizer:
    """The built-in model's."""
    return Tokenizer(STARTER / "tokenizer.json")


def main() -> int:
    """Serve a script until stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--script", required=True)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--load-delay", type=float, default=0.0)
    parser.add_argument("--fail-at", type=int)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()

    def load() -> Loaded:
        time.sleep(options.load_delay)
        tokenizer = starter_tokenizer()
        script = tokenizer.encode(options.script)
        runner = ScriptedRunner(tokenizer, script, delay=options.delay, fail_at=options.fail_at, log=options.log)
        return Loaded(scripted_intake(tokenizer), runner, "float32", "cpu")

    return serve("scripted", load, Endpoint(options.socket), None)


if __name__ == "__main__":
    sys.exit(main())
