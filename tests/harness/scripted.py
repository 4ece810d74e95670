"""A model whose next token is read off a table, and an engine process around it.

What comes next depends on what the slot's memory holds: after the first k tokens of the script comes the next one, after
anything else the script's first. So the text is known in advance, and right only if every slot holds what it should.

As a program: `python -m tests.harness.scripted --socket PATH --script TEXT [--delay SECONDS] [--fail-at CALL]`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.errors import DeviceMemoryExhausted
from engine.instruct import Following, Form
from engine.intake import HealingPolicy, Intake
from engine.models import STARTER
from engine.serve import Endpoint, Loaded, Manner, serve
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
        free_rows: int = 1,
    ) -> None:
        self.slots = slots
        self.window = window
        self.free_rows = free_rows
        self.calls = 0
        self.starts: list[float] = []
        self.fits: Callable[[Step], bool] | None = None
        """Whether there is memory for a pass; None: always."""
        self._delay = delay
        self._fail_at = fail_at
        self._log = log
        self._end = tokenizer.control.end_of_text
        self._script = list(script)
        self._memory = [[-1] * window for _ in range(slots)]

    def run(self, step: Step) -> list[Sample]:
        """One pass."""
        self.calls += 1
        self.starts.append(time.monotonic())
        if self._log is not None:
            with self._log.open("a") as log:
                log.write(f"{self.starts[-1]}\n")
        if self._fail_at == self.calls:
            raise RuntimeError("scripted failure")
        if self.fits is not None and not self.fits(step):
            raise DeviceMemoryExhausted("scripted: no memory")
        if self._delay:
            time.sleep(self._delay)
        for copy in step.copies:
            self._memory[copy.target][: copy.length] = self._memory[copy.source][: copy.length]
        samples, row = [], 0
        for span, draws, guesses, allowed in zip(step.spans, step.draws, step.guesses, step.allowed, strict=True):
            memory, end = self._memory[span.slot], span.start + span.length
            memory[span.start : end] = step.ids[row : row + span.length]
            row += span.length
            for known in range(end - guesses, end + 1 if draws else 0):
                wish = self._after(memory[:known])
                samples += [Sample(wish if allowed is None or wish in allowed else min(allowed), -0.5)] * draws
        return samples

    def keep_slots(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """Give back the others, and forget what need not stay."""
        assert list(slots) == sorted(slots)
        kept = zip(slots, lengths, strict=True)
        self._memory = [self._memory[slot][:length] + [-1] * (self.window - length) for slot, length in kept]
        self.slots = len(slots)

    def _after(self, held: Sequence[int]) -> int:
        for said in range(min(len(self._script), len(held)), 0, -1):
            if list(held[-said:]) == self._script[:said]:
                return self._script[said] if said < len(self._script) else self._end
        return self._script[0]


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
    parser.add_argument("--instruct", type=Form, help="the form of instructions that it is to say it follows")
    parser.add_argument("--terms")
    options = parser.parse_args()

    def load() -> Loaded:
        time.sleep(options.load_delay)
        tokenizer = starter_tokenizer()
        script = tokenizer.encode(options.script)
        runner = ScriptedRunner(tokenizer, script, delay=options.delay, fail_at=options.fail_at, log=options.log)
        following = Following(options.instruct, options.terms)
        return Loaded(scripted_intake(tokenizer), runner, "float32", "cpu", following=following)

    return serve("scripted", load, Endpoint(options.socket), Manner(check_each_step=True))


if __name__ == "__main__":
    sys.exit(main())
