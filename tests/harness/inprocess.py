"""An engine without process, thread or wire: for tests that compare tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.api import CompletionRequest
from engine.generation import Delta, Finish, Token
from engine.intake import Admitted
from engine.kv_slots import KvSlots
from engine.loading import LoadOptions, load
from engine.models import ModelSource
from engine.scheduler import Scheduler
from engine.serve import Loaded
from engine.step import Runner


@dataclass(frozen=True, slots=True)
class Completed:
    """How one request ended."""

    admitted: Admitted
    text: str
    tokens: list[Token]
    finish: Finish | None
    calls: int

    @property
    def ids(self) -> list[int]:
        return self.admitted.generation.generated

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
        deltas: dict[int, list[Delta]] = {one.generation.id: [] for one in admitted}
        calls = dict.fromkeys(deltas, 0)
        for one in admitted:
            self.scheduler.submit(one.generation)
        while (step := self.scheduler.plan()) is not None:
            slot = step.spans[0].slot
            owner = next(one.generation.id for one in admitted if one.generation.slot == slot)
            calls[owner] += 1
            for progress in self.scheduler.commit(step, self.runner.run(step)):
                deltas[progress.generation.id].append(progress.delta)
        self.scheduler.check_integrity()
        return [
            Completed(
                one,
                "".join(delta.text for delta in deltas[one.generation.id]),
                [token for delta in deltas[one.generation.id] for token in delta.tokens],
                deltas[one.generation.id][-1].finish,
                calls[one.generation.id],
            )
            for one in admitted
        ]
