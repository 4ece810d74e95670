"""An engine without process, thread or wire: for tests that compare tokens."""

from __future__ import annotations

from collections.abc import Iterable
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


class InProcessEngine:
    """Intake, scheduler and runner, stepped by hand."""

    def __init__(self, loaded: Loaded, *, slots: int | None = None, piece: int | None = None) -> None:
        self.runner: Runner = loaded.runner
        self.intake = loaded.intake
        self.scheduler = Scheduler(KvSlots(slots or loaded.runner.slots, loaded.runner.window))
        if piece is not None:
            self.scheduler._piece = piece

    @classmethod
    def of(
        cls, directory: Path, *, slots: int | None = None, piece: int | None = None, **options: Any
    ) -> InProcessEngine:
        source = ModelSource(directory.name, directory)
        return cls(load(LoadOptions(source, device="cpu", **options)), slots=slots, piece=piece)

    def complete(self, **request: Any) -> Completed:
        return self.together([{"temperature": 0, **request}])[0]

    def together(self, requests: list[dict[str, Any]]) -> list[Completed]:
        """Run several requests side by side until all have ended."""
        admitted = [self.intake.take(CompletionRequest(**{"temperature": 0, **request})) for request in requests]
        candidates = [generation for one in admitted for generation in one.candidates]
        self.deltas: dict[int, list[Delta]] = {generation.id: [] for generation in candidates}
        calls = dict.fromkeys(self.deltas, 0)
        for one in admitted:
            self.note(self.scheduler.submit(one.generation).ended)
        while (step := self.scheduler.plan()) is not None:
            slots = {span.slot for span in step.spans}
            for generation in candidates:
                calls[generation.id] += generation.slot in slots
            self.note(self.scheduler.commit(step, self.runner.run(step)))
            self.scheduler.check_integrity()

        def completed(one: Admitted, generation: Generation, others: tuple[Completed, ...] = ()) -> Completed:
            deltas = self.deltas[generation.id]
            text = "".join(delta.text for delta in deltas)
            tokens = [token for delta in deltas for token in delta.tokens]
            return Completed(one, generation, text, tokens, deltas[-1].finish, calls[generation.id], others)

        return [
            completed(one, one.generation, tuple(completed(one, each) for each in one.generation.followers))
            for one in admitted
        ]

    def note(self, progress: Iterable[Progress]) -> None:
        for each in progress:
            self.deltas[each.generation.id].append(each.delta)
