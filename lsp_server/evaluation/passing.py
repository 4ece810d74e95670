"""Left-to-right suites: several answers to each problem, run against its tests, and the unbiased pass@k of that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from engine.errors import StarfillError
from lsp_server.engines import Engine
from lsp_server.evaluation.sandbox import passes, runs
from lsp_server.evaluation.scores import Estimate, estimate, pass_at_k
from lsp_server.evaluation.suites import Problem

MAX_TOKENS = 512

PROMPTED_PATH = "solutions/solution_1.py"
PROMPTED_LINE = "# Here is the correct implementation of the code exercise\n"
"""What StarCoder's authors put before a problem to have it taken for an exercise and its solution: a file's name and a
comment. They report it with the model (Li et al. 2023, "prompted")."""


async def solve(
    engine: Engine,
    problems: Sequence[Problem],
    samples: int,
    *,
    temperature: float,
    prompted: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> list[tuple[Problem, int]]:
    """How many of `samples` answers pass, for each problem; raises StarfillError for a language that nothing here runs.

    `prompted`: each problem stands in a file of solutions.
    """
    missing = sorted({problem.language for problem in problems if not runs(problem.language)})
    if missing:
        raise StarfillError(
            f"nothing here runs {', '.join(missing)}; install an interpreter or leave those problems out"
        )
    solved = []
    for problem in problems:
        right = 0
        for seed in range(samples):
            text = await _answer(engine, problem, seed, temperature if samples > 1 else 0.0, prompted)
            right += await asyncio.to_thread(passes, problem.program(text), problem.language)
        solved.append((problem, right))
        advance()
    return solved


def figures(solved: Sequence[tuple[Problem, int]], samples: int) -> dict[tuple[str, int], Estimate]:
    """pass@k by language and k, for the usual k that the number of samples allows."""
    found: dict[tuple[str, int], Estimate] = {}
    for language in sorted({problem.language for problem, _ in solved}):
        mine = [(problem, right) for problem, right in solved if problem.language == language]
        for k in (1, 10, 100):
            if k <= samples:
                value = estimate([pass_at_k(samples, right, k) for _, right in mine], [p.name for p, _ in mine])
                assert value is not None  # noqa: S101
                found[language, k] = value
    return found


async def _answer(engine: Engine, problem: Problem, seed: int, temperature: float, prompted: bool) -> str:
    body: dict[str, Any] = {"prompt": problem.prompt, "max_tokens": MAX_TOKENS, "temperature": temperature}
    if prompted:  # as a file of that name without anything below: the engine writes the control token before it
        body["prompt"] = PROMPTED_LINE + problem.prompt
        body |= {"suffix": "", "starfill": {"layout": "none", "path": PROMPTED_PATH}}
    if temperature:
        body |= {"top_p": 0.95, "seed": seed}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    text = ""
    async with engine.complete(json.dumps(body).encode()) as chunks:
        async for chunk in chunks:
            text += chunk.text
            if any(stop in text for stop in problem.stops):
                break
    return text
