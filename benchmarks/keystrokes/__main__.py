"""`python -m benchmarks.keystrokes --out DIR [--part counts,engine,server,peers] [MODULE ...]`: what a key costs.

Editing traces of the modules' sources, replayed: `counts` through tokenizer, layouts, slots and scheduler (no model runs, and
the machine does not matter); `engine` with the starter model, and the same traces against llama.cpp's server and vLLM's
with `peers`; `server` through the language server and an engine process, by authors who type on, type what is suggested,
or accept it. Rows are appended to keystrokes.jsonl; what is promised has a row with its limit.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import torch

from benchmarks.cpu import peer, servers, subjects
from benchmarks.keystrokes import figures, peers, replay, session
from benchmarks.keystrokes.replay import Cost
from benchmarks.report import text_table
from benchmarks.rows import Detail, Row, RowWriter, Run
from engine.fim import Budget, Layout
from engine.models import STARTER, STARTER_ID
from engine.tokenizer import Tokenizer
from tests.harness.inprocess import InProcessEngine
from tests.harness.process import temporary_home
from tests.harness.traces import TRACES, Event

LAYOUTS = (Layout.ANCHORED, Layout.SPM, Layout.PSM)
PARTS = ("counts", "engine", "server", "peers")
TIMED = ("typing", "walking")
COMPUTED = "computed prompt tokens an event"


class Questions:
    """Asks, and writes a row for each answer."""

    def __init__(self, options: argparse.Namespace, run: Run) -> None:
        self.options = options
        self.writer = RowWriter(options.out, "keystrokes")
        self._run = run
        self._tokenizer = Tokenizer(STARTER / "tokenizer.json")
        self._texts = replay.sources(options.modules)

    # -- counts ------------------------------------------------------------------------------------------------------

    def counts(self) -> None:
        """Every trace in every layout with the default's suffix, and other suffixes where budgets are chosen by them."""
        usual = Budget.of(replay.WINDOW, 0).suffix
        for trace in self.options.traces.split(","):
            for layout in LAYOUTS:
                for suffix in self.options.suffixes if trace in TIMED else (usual,):
                    costs = self._replayed(trace, layout, suffix)
                    if not costs:
                        continue  # two files of one
                    what = {"trace": trace, "suffix": suffix, "files": len(self._texts), **figures.detail(costs)}
                    value = figures.mean_computed(costs)
                    self._row(COMPUTED, value, "tokens", str(layout), what, device="none: counts only")
                    if layout is Layout.ANCHORED and suffix == usual and trace in TIMED:
                        for bar in figures.bars(trace, costs):
                            self._bar(f"{trace}: computed prompt tokens, {bar.name}", bar.value, bar.limit, "tokens")

    def _replayed(self, trace: str, layout: Layout, suffix: int) -> list[Cost]:
        def budget(window: int, max_tokens: int) -> Budget:
            return dataclasses.replace(Budget.of(window, max_tokens), suffix=suffix)

        found: list[Cost] = []
        for events in replay.traces(trace, self._texts, self.options.seed):
            found += replay.counts(replay.counting_engine(self._tokenizer, budget), events, str(layout))
        return found

    # -- with the model ----------------------------------------------------------------------------------------------

    def engine(self) -> None:
        """The rest of the line at each event; and what of it a typed character is of a cold start, by processor time."""
        torch.set_num_threads(self.options.threads)
        for trace in TIMED:
            engine = InProcessEngine.of(STARTER, dtype="float32", piece=replay.WINDOW)
            torch.set_num_threads(self.options.threads)
            costs = list(replay.timed(engine, self._some(trace), "anchored"))
            self._answered(trace, "starfill", costs)
        typed, cold = self._one_token(engine)
        what = {"cold_ms": round(1000 * cold, 2), "typed_ms": round(1000 * typed, 2)}
        self._bar("processor time of a typed event, of a cold one", typed / cold, 0.1, "ratio", what)

    def _one_token(self, engine: InProcessEngine) -> tuple[float, float]:
        """Median processor time to one token, of typed characters and of a prompt of which nothing is held."""
        events = [event for event in self._some("typing") if event.kind == "char"][:40]
        typed = [cost.cpu for cost in islice(replay.timed(engine, events, "anchored", 1), 1, None) if cost.cpu]
        cold: list[float] = []
        for event in events[::8]:
            for slot in range(len(engine.scheduler.slots)):
                engine.scheduler.slots.forget(slot)
            cold += [cost.cpu for cost in replay.timed(engine, [event], "anchored", 1) if cost.cpu]
        return statistics.median(typed), statistics.median(cold)

    def others(self) -> None:
        """The same traces against other servers of the same weights; a row says why where one cannot be had."""
        with ExitStack() as stack:
            temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="starfill-keys-")))
            folder = (self.options.folder or temporary).resolve()
            home = stack.enter_context(temporary_home())
            try:
                file = subjects.gguf(STARTER, "float32", folder / "starter-float32.gguf")
                self._ask_llama(stack, folder / "llama.cpp", file, home)
            except (peer.PeerMissing, ImportError, RuntimeError) as error:
                self._skip("llama.cpp", str(error))
            try:
                server = stack.enter_context(peers.vllm_server(self.options.vllm, self.options.threads, home))
                self._ask_vllm(server)
            except (peer.PeerMissing, RuntimeError) as error:
                self._skip("vLLM", str(error))

    def _ask_llama(self, stack: ExitStack, folder: Path, file: Path, home: Path) -> None:
        peer.command(folder)
        with servers.theirs(folder, file, self.options.threads, replay.WINDOW, home) as server:
            for trace in TIMED:
                costs = list(peers.llama(server, self._tokenizer, self._some(trace)))
                self._answered(trace, f"llama.cpp {peer.version(folder)}".strip(), costs)

    def _ask_vllm(self, server: peers.Vllm) -> None:
        prompts: dict[str, Callable[[Event], list[int]]] = {
            "vLLM, psm as usual": peers.usual_prompt(self._tokenizer),
            "vLLM, anchored": peers.our_prompt(self._tokenizer),
        }
        for name, prompt in prompts.items():
            for trace in TIMED:
                self._answered(trace, name, list(peers.vllm(server, self._tokenizer, self._some(trace), prompt)))

    def _some(self, trace: str) -> list[Event]:
        (events,) = replay.traces(trace, self._texts[:1], self.options.seed)
        return events[: self.options.events]

    def _answered(self, trace: str, backend: str, costs: Sequence[Cost]) -> None:
        what = {"trace": trace, **figures.detail(costs)}
        self._row("the rest of the line", figures.mean_computed(costs), "tokens", backend, what, dtype="float32")

    # -- through the server ------------------------------------------------------------------------------------------

    def server(self) -> None:
        """Three authors, each at a server and an engine of their own."""
        for name, story in asyncio.run(self._stories()):
            engine = {key: round(value) for key, value in story.engine.items()}
            what: dict[str, int | float | str | bool] = {
                "keys": story.keys, "calls": story.calls, "primed": story.primed, "shown": story.shown, **engine,
                "thrown_away": story.thrown_away(self._tokenizer),
                "first_ms_p50": round(1000 * figures.at(story.first, 0.5), 1),
                "first_ms_p95": round(1000 * figures.at(story.first, 0.95), 1),
                "line_ms_p50": round(1000 * figures.at(story.whole, 0.5), 1),
                "line_ms_p95": round(1000 * figures.at(story.whole, 0.95), 1),
            }  # fmt: skip
            for kind, served in story.served.items():
                asked = served.pop("asked")
                answers = [f"{count} {how}" for how, count in sorted(served.items())]
                what[f"served {kind}"] = ", ".join([f"{asked} asked", *answers])
            computed = engine["prompt_tokens_computed"]
            self._row(
                "through the server: computed prompt tokens a key", computed / max(1, story.keys), "tokens", name, what
            )
            if name == "follows":
                share = story.calls / story.keys
                self._bar("model calls of the keys of an author who types what is suggested", share, 0.5, "ratio", what)
            if name == "accepts":
                value = statistics.median(story.after_accepting)
                self._bar("computed prompt tokens after an acceptance, median", value, 3, "tokens", what)

    async def _stories(self) -> list[tuple[str, session.Story]]:
        options, found = self.options, []
        typed = [event for event in replay.traces("typing", self._texts[:1], options.seed)[0] if event.kind != "jump"]
        chars = [event for event in typed if event.kind == "char"]
        async with session.author(options.gap) as author:
            found.append(("types", await author.types(typed[: options.keys])))
        async with session.author(options.gap) as author:
            found.append(("follows", await author.follows(chars[::7], options.keys)))
        async with session.author(options.gap) as author:
            found.append(("accepts", await author.accepts(chars[::11][: max(20, options.keys // 6)])))
        return found

    # -- rows --------------------------------------------------------------------------------------------------------

    def _row(self, question: str, value: float, unit: str, backend: str, what: Detail, **more: str) -> None:
        fields = {"dtype": "none", "device": self._run.device, **more}
        self.writer.write(self._made(question, unit, backend, what, fields, value=round(value, 3)))

    def _bar(self, question: str, value: float, limit: float, unit: str, what: Detail | None = None) -> None:
        fields = {"dtype": "none", "device": self._run.device}
        row = self._made(question, unit, "starfill", what or {}, fields, value=round(value, 3))
        self.writer.write(dataclasses.replace(row, limit=limit, passed=value <= limit))

    def _skip(self, backend: str, why: str) -> None:
        print(f"{backend} is left out: {why}", file=sys.stderr)
        fields = {"dtype": "float32", "device": self._run.device}
        row = self._made("the rest of the line", "tokens", backend, {}, fields, skipped=why)
        self.writer.write(row)

    def _made(
        self,
        question: str,
        unit: str,
        backend: str,
        what: Detail,
        fields: dict[str, str],
        value: float | None = None,
        skipped: str = "",
    ) -> Row:
        run = self._run
        return Row(
            question=question, model=STARTER_ID, dtype=fields["dtype"], device=fields["device"], measured=True,
            value=value, unit=unit, command=run.command, backend=backend, detail=what, n=int(what.get("events", 1)),
            skipped=skipped, seed=run.seed, commit=run.commit, started=run.started, torch=run.torch, python=run.python,
        )  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Ask, write rows, print a table; 1 where something that is promised does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.keystrokes", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for keystrokes.jsonl; rows are appended")
    parser.add_argument("--part", default="counts,engine,server", help=f"of {', '.join(PARTS)}, comma between")
    parser.add_argument(
        "--suffixes", type=_numbers, default=(128, 224, 256, 512), help="tokens of suffix to count with"
    )
    every = ",".join((*TRACES, replay.TWO_FILES))
    parser.add_argument("--traces", default=every, help=f"to count with, of {every}")
    parser.add_argument("--events", type=int, default=300, help="of each trace, with a model")
    parser.add_argument("--keys", type=int, default=120, help="of each author at the server")
    parser.add_argument("--gap", type=float, default=0.12, help="seconds between an author's keys")
    parser.add_argument("--threads", type=int, default=1, help="of each engine")
    parser.add_argument("--folder", type=Path, help="keep what peers need here, and use it again")
    parser.add_argument("--vllm", type=Path, default=Path("vllm/bin/python"), help="Python of an environment with vLLM")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("modules", nargs="*", default=replay.MODULES, help="modules whose source is typed")
    options = parser.parse_args(arguments)
    questions = Questions(
        options, Run.of(arguments, f"cpu, {options.threads} threads", options.seed, module="benchmarks.keystrokes")
    )
    for part in _parts(parser, options.part):
        part(questions)
    print(text_table(questions.writer.rows))
    return int(any(row.failed for row in questions.writer.rows))


def _parts(parser: argparse.ArgumentParser, names: str) -> Iterator[Callable[[Questions], None]]:
    known = {
        "counts": Questions.counts,
        "engine": Questions.engine,
        "server": Questions.server,
        "peers": Questions.others,
    }
    for name in names.split(","):
        if name not in known:
            parser.error(f"--part {name}: write some of {', '.join(PARTS)}")
        yield known[name]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(","))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
