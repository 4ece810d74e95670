"""What a key costs: prompt tokens that no KV slot holds, event by event, for each layout.

`python -m benchmarks.keystrokes --out DIR [MODULE ...]` replays editing traces of standard library modules through the real
tokenizer, layouts, slots and scheduler. No model runs: counts do not need one, and they do not depend on the machine.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.report import text_table
from benchmarks.rows import Detail, Row, RowWriter, Run
from engine.fim import Layout
from engine.intake import HealingPolicy, Intake
from engine.models import STARTER, STARTER_ID
from engine.serve import Loaded
from engine.tokenizer import Tokenizer
from tests.harness.inprocess import InProcessEngine
from tests.harness.scripted import ScriptedRunner
from tests.harness.traces import Event, browse_trace, typing_trace

LAYOUTS = (Layout.ANCHORED, Layout.SPM, Layout.PSM)
MODULES = ("configparser", "tarfile")
WINDOW, SLOTS = 2_048, 8
SEED = 7


def computed_per_event(tokenizer: Tokenizer, events: Iterable[Event], layout: Layout) -> list[tuple[str, int, int]]:
    """-> (kind of event, prompt tokens computed, prompt tokens in all) for each event."""
    intake = Intake(STARTER_ID, tokenizer, tokenizer.size, WINDOW, HealingPolicy(frozenset(Layout)))
    runner = ScriptedRunner(tokenizer, [], slots=SLOTS, window=WINDOW)
    engine = InProcessEngine(Loaded(intake, runner, "float32", "cpu"))
    found: list[tuple[str, int, int]] = []
    for event in events:
        done = engine.complete(prompt=event.prefix, suffix=event.suffix, max_tokens=0, starfill={"layout": str(layout)})
        found.append((event.kind, done.computed, len(done.prompt)))
    return found


def summarise(costs: Sequence[tuple[str, int, int]]) -> tuple[float, Detail]:
    """-> mean over all events but jumps, and the rest of what is worth knowing."""
    keys = sorted(computed for kind, computed, _ in costs if kind != "jump")
    jumps = sorted(computed for kind, computed, _ in costs if kind == "jump") or [0]
    prompts = sorted(prompt for _, _, prompt in costs)
    return sum(keys) / len(keys), {
        "events": len(costs),
        "p50": keys[len(keys) // 2],
        "p95": keys[min(len(keys) - 1, int(0.95 * len(keys)))],
        "jump_p50": jumps[len(jumps) // 2],
        "prompt_p50": prompts[len(prompts) // 2],
    }


def main(arguments: Sequence[str]) -> int:
    """Replay, write rows, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.keystrokes", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for keystrokes.jsonl; rows are appended")
    parser.add_argument("modules", nargs="*", default=MODULES, help="standard library modules whose source is typed")
    options = parser.parse_args(arguments)
    run = Run.of(arguments, "none: counts only", SEED, module="benchmarks.keystrokes")
    writer = RowWriter(options.out, "keystrokes")
    tokenizer = Tokenizer(STARTER / "tokenizer.json")
    for module in options.modules:
        source = inspect.getsource(importlib.import_module(module))
        traces = {"typing": list(typing_trace(source, SEED)), "walking": list(browse_trace(source, SEED))}
        for trace, events in traces.items():
            for layout in LAYOUTS:
                mean, detail = summarise(computed_per_event(tokenizer, events, layout))
                writer.write(
                    Row(
                        question=f"computed prompt tokens a key, {trace}",
                        model=STARTER_ID,
                        dtype="none",
                        device=run.device,
                        measured=True,
                        value=round(mean, 2),
                        unit="tokens",
                        command=run.command,
                        backend=str(layout),
                        detail={"module": module, **detail},
                        seed=SEED,
                        commit=run.commit,
                        started=run.started,
                        python=run.python,
                    )
                )
    print(text_table(writer.rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
