"""What the model says at each hole, laid out in each way; remembered in a file, so that a run may end at any time.

Prompts of one hole share most of their tokens. They are generated together, after one that leaves the common head in a
KV slot, so that each computes only what is its own.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.layouts.ways import PREFIX, Way
from engine.fim import Document, Layout, Prompt, lay_out, prefix_window
from engine.generation import Generation
from engine.tokenizer import Tokenizer
from lsp_server.evaluation.holes import Hole, Kind
from lsp_server.evaluation.runner import window_of
from tests.harness.inprocess import InProcessEngine

MAX_TOKENS = 16
KINDS = (Kind.REST_OF_LINE, Kind.INSIDE_LINE, Kind.LINE)
"""Holes that end with their line, so that the model need not go on after it."""


@dataclass(frozen=True, slots=True)
class Said:
    """One generation: `prompt` and `healed` in tokens, `calls` of the forward pass, `tokens` after the held-back text."""

    text: str
    finish: str
    prompt: int
    healed: int
    calls: int
    tokens: int


class Recordings:
    """Generations by hole and way, in memory and in a file of JSON lines."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._said: dict[tuple[str, str], Said] = {}
        if file is not None and file.exists():
            for line in file.read_text("utf-8").splitlines():
                entry = json.loads(line)
                key = entry.pop("hole"), entry.pop("way")
                self._said[key] = Said(**entry)

    def __contains__(self, asked: tuple[Hole, Way]) -> bool:
        return _key(*asked) in self._said

    def __getitem__(self, asked: tuple[Hole, Way]) -> Said:
        return self._said[_key(*asked)]

    def put(self, hole: Hole, way: Way, said: Said) -> None:
        """Remember one."""
        key = _key(hole, way)
        self._said[key] = said
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"hole": key[0], "way": key[1], **asdict(said)}) + "\n")


class Generations:
    """Runs holes through an engine in this process, several together."""

    def __init__(
        self, engine: InProcessEngine, tokenizer: Tokenizer, recordings: Recordings, together: int = 4
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._recordings = recordings
        self._together = together
        self._ids = itertools.count(1)

    def record(self, holes: Sequence[Hole], ways: Sequence[Way]) -> Iterator[int]:
        """Generate what is not remembered yet -> how many holes are done, after each few."""
        for start in range(0, len(holes), self._together):
            some = holes[start : start + self._together]
            wanted = [(hole, [way for way in ways if (hole, way) not in self._recordings]) for hole in some]
            self._generate([(hole, way) for hole, missing in wanted for way in missing if _leads(way, missing)])
            self._generate([(hole, way) for hole, missing in wanted for way in missing if not _leads(way, missing)])
            yield start + len(some)

    def _generate(self, asked: Sequence[tuple[Hole, Way]]) -> None:
        begun: dict[tuple[object, ...], tuple[Prompt, Generation]] = {}
        same = []
        for hole, way in asked:
            prompt = self.prompt(hole, way)
            same.append((hole.key, prompt.held, *prompt.ids))
            if same[-1] not in begun:  # a short suffix is the same under every budget
                begun[same[-1]] = prompt, self._generation(prompt)
        done = self._engine.run([generation for _, generation in begun.values()])
        for (hole, way), key in zip(asked, same, strict=True):
            prompt, generation = begun[key]
            ended, tokens = done[generation.id], len(generation.generated)
            said = Said(ended.text, str(ended.finish), len(prompt.ids), prompt.healed, ended.calls, tokens)
            self._recordings.put(hole, way, said)

    def prompt(self, hole: Hole, way: Way) -> Prompt:
        """What the model is given."""
        window = window_of(hole)
        # Cut here: the engine would give the prefix what a short suffix leaves.
        _, prefix = prefix_window(self._tokenizer, self._tokenizer.encode, window.prefix, PREFIX)
        document = Document(prefix, window.suffix)
        return lay_out(self._tokenizer, document, way.layout, way.budget, heal=way.heal)

    def _generation(self, prompt: Prompt) -> Generation:
        return Generation(
            id=next(self._ids),
            tokenizer=self._tokenizer,
            prompt=prompt.ids,
            max_tokens=MAX_TOKENS,
            ends_at=self._tokenizer.is_control,
            held=prompt.held,
            stop=("\n",),
        )


def _leads(way: Way, ways: Sequence[Way]) -> bool:
    """Whether it goes first, because others share its head: the first anchored one, which begins as `psm` does too."""
    first = next((each for each in ways if each.layout is Layout.ANCHORED), None)
    return way == first


def _key(hole: Hole, way: Way) -> tuple[str, str]:
    return hole.key, f"{way.name}, {PREFIX} of prefix, {MAX_TOKENS} new"
