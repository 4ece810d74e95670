"""An engine without process, thread or wire: for tests that compare tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.api import CompletionRequest
from engine.generation import Delta, Finish, Generation, Token
from engine.intake import Admitted
from engine.kv_slots import KvSlots
from engine.loading import LoadOptions, load
from engine.models import ModelSource
from engine.scheduler import Progress, Scheduler
from engine.serve import Loaded
from engine.step import Runner


@dataclass(frozen=True, slots=True)
class Completed:
    """How one request ended."""

    admitted: Admitted
    generation: Generation
    text: str
    tokens: list[Token]
    finish: Finish | None
    calls: int
    others: tuple[Completed, ...] = ()
    """The request's further candidates."""

    @property
    def ids(self) -> list[int]:
        return self.generation.generated

    @property
    def prompt(self) -> list[int]:
        return list(self.admitted.generation.prompt)

    @property
    def computed(self) -> int:
        return len(self.prompt) - self.admitted.generation.reused


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of one generation, and in how many passes it took part."""

    text: str
    tokens: list[Token]
    finish: Finish | None
    calls: int

    @classmethod
    def of(cls, deltas: Sequence[Delta], calls: int) -> Ran:
        """All deltas as one."""
        text = "".join(delta.text for delta in deltas)
        return cls(text, [token for delta in deltas for token in delta.tokens], deltas[-1].finish, calls)


class InProcessEngine:
    """Intake, scheduler and runner, stepped by hand. Without `guessing` a pass brings each generation one token."""

    def __init__(
        self, loaded: Loaded, *, slots: int | None = None, piece: int | None = None, guessing: bool = False
    ) -> None:
        self.runner: Runner = loaded.runner
        self.intake = loaded.intake
        self.scheduler = Scheduler(
            KvSlots(slots or loaded.runner.slots, loaded.runner.window),
            free_rows=loaded.runner.free_rows if guessing else 1,
        )
        if piece is not None:
            self.scheduler._piece = piece

    @classmethod
    def of(
        cls,
        directory: Path,
        *,
        slots: int | None = None,
        piece: int | None = None,
        guessing: bool = False,
        **options: Any,
    ) -> InProcessEngine:
        source = ModelSource(directory.name, directory)
        return cls(load(LoadOptions(source, device="cpu", **options)), slots=slots, piece=piece, guessing=guessing)

    def complete(self, **request: Any) -> Completed:
        return self.together([{"temperature": 0, **request}])[0]

    def together(self, requests: list[dict[str, Any]]) -> list[Completed]:
        """Run several requests side by side until all have ended."""
        admitted = [self.intake.take(CompletionRequest(**{"temperature": 0, **request})) for request in requests]
        ran = self.run([one.generation for one in admitted])

        def completed(one: Admitted, generation: Generation, others: tuple[Completed, ...] = ()) -> Completed:
            end = ran[generation.id]
            return Completed(one, generation, end.text, end.tokens, end.finish, end.calls, others)

        return [
            completed(one, one.generation, tuple(completed(one, each) for each in one.generation.followers))
            for one in admitted
        ]

    def run(self, generations: Sequence[Generation]) -> dict[int, Ran]:
        """Run generations and their followers side by side until all have ended -> how each did, by id."""
        candidates = [each for one in generations for each in (one, *one.followers)]
        self._deltas: dict[int, list[Delta]] = {generation.id: [] for generation in candidates}
        calls = dict.fromkeys(self._deltas, 0)
        for one in generations:
            self._note(self.scheduler.submit(one).ended)
        while (step := self.scheduler.plan()) is not None:
            slots = {span.slot for span in step.spans}
            for generation in candidates:
                calls[generation.id] += generation.slot in slots
            self._note(self.scheduler.commit(step, self.runner.run(step)))
            self.scheduler.check_integrity()
        return {each: Ran.of(deltas, calls[each]) for each, deltas in self._deltas.items()}

    def _note(self, progress: Iterable[Progress]) -> None:
        for each in progress:
            self._deltas[each.generation.id].append(each.delta)
