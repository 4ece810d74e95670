"""A trace through the engine alone: tokenizer, layouts, slots and scheduler, with the model or without it."""

from __future__ import annotations

import importlib
import inspect
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from engine.api import CompletionRequest
from engine.fim import Budget, Layout
from engine.intake import HealingPolicy, Intake
from engine.serve import Loaded
from engine.tokenizer import Tokenizer
from tests.harness.inprocess import InProcessEngine
from tests.harness.scripted import ScriptedRunner
from tests.harness.traces import TRACES, Event, two_files_trace

MODULES = ("starlette.routing", "cattrs.converters", "prometheus_client.metrics", "psutil", "starlette.testclient")
"""Installed with the test dependencies, and not among what the starter model was trained on."""

TWO_FILES = "two files"
WINDOW, SLOTS = 2_048, 8
LINE_TOKENS = 24
"""Most tokens of the rest of a line."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one event came to; None where a subject cannot say.

    prompt, computed: tokens of the prompt, and how many of them nothing held; calls: of the forward pass, of which
    `regrown` for text that was held back; generated, wasted: new tokens, and those that the author did not go on to type;
    first, whole: seconds to the first text and to the end of the line; cpu: seconds of processor time.
    """

    kind: str
    prompt: int
    computed: int
    calls: int | None = None
    regrown: int | None = None
    generated: int | None = None
    wasted: int | None = None
    first: float | None = None
    whole: float | None = None
    cpu: float | None = None


def sources(modules: Iterable[str]) -> list[str]:
    """The modules' texts."""
    return [inspect.getsource(importlib.import_module(module)) for module in modules]


def traces(name: str, texts: list[str], seed: int) -> list[list[Event]]:
    """The trace of that name, of each text; of each text and the next where it takes two."""
    if name == TWO_FILES:
        return [list(two_files_trace(one, other, seed)) for one, other in pairwise(texts)]
    return [list(TRACES[name](text, seed)) for text in texts]


def counting_engine(
    tokenizer: Tokenizer,
    budget: Callable[[int, int], Budget] = Budget.of,
    *,
    window: int = WINDOW,
    slots: int = SLOTS,
) -> InProcessEngine:
    """No model runs: counts do not need one, and do not depend on the machine."""
    healing = HealingPolicy(frozenset(Layout))
    intake = Intake("counts", tokenizer, tokenizer.size, window, healing, budget=budget)
    runner = ScriptedRunner(tokenizer, [], slots=slots, window=window)
    return InProcessEngine(Loaded(intake, runner, "none", "cpu"), piece=window)


def counts(
    engine: InProcessEngine, events: Iterable[Event], layout: str, context: tuple[tuple[str, str], ...] = ()
) -> Iterator[Cost]:
    """Prompt tokens alone: each event primes the engine and asks for nothing. `context`: path and text of other files."""
    around = [{"path": path, "text": text} for path, text in context]
    for event in events:
        extension = {"layout": layout, "document": event.document, "context": around}
        done = engine.complete(prompt=event.prefix, suffix=event.suffix, max_tokens=0, starfill=extension)
        yield Cost(event.kind, len(done.prompt), done.computed)


def timed(engine: InProcessEngine, events: Iterable[Event], layout: str, tokens: int = LINE_TOKENS) -> Iterator[Cost]:
    """The rest of the line at each event, by the model."""
    for event in events:
        fields = {
            "prompt": event.prefix,
            "suffix": event.suffix,
            "max_tokens": tokens,
            "stop": ["\n"],
            "temperature": 0,
        }
        busy, start = time.process_time(), time.perf_counter()
        extension = {"layout": layout, "document": event.document}
        admitted = engine.intake.take(CompletionRequest(**fields, starfill=extension))  # type: ignore[arg-type]
        generation, scheduler = admitted.generation, engine.scheduler
        scheduler.submit(generation)
        calls, first, text, said = 0, None, "", []
        while (step := scheduler.plan()) is not None:
            calls += 1
            for progress in scheduler.commit(step, engine.runner.run(step)):
                text += progress.delta.text
                said += [token.text for token in progress.delta.tokens]
                first = time.perf_counter() - start if first is None and text else first
        computed = len(generation.prompt) - generation.reused
        yield Cost(
            event.kind,
            len(generation.prompt),
            computed,
            calls,
            regrown=len(generation.generated) - len(said),
            generated=len(generation.generated),
            wasted=wasted(said, event.want),
            first=first,
            whole=time.perf_counter() - start,
            cpu=time.process_time() - busy,
        )


def wasted(said: Iterable[str], want: str) -> int:
    """Tokens from the first on that the author did not go on to type."""
    agreed, tokens = "", list(said)
    for number, token in enumerate(tokens):
        agreed += token
        if not want.startswith(agreed):
            return len(tokens) - number
    return 0
