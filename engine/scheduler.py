"""Admit, prefill, decode, abort: which tokens run in the next forward pass. No torch and no clock; both are passed in.

One pass serves one generation, in turn, so that a long prefill (in pieces) never keeps another one's tokens waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from engine.errors import Overloaded
from engine.generation import Delta, Generation
from engine.kv_slots import KvSlots
from engine.step import Copy, Sample, Span, Step

PIECE_SECONDS = 0.05
"""Longest that one piece of prefill should take: cancels and newer cursors wait for no more than this."""

_MIN_PIECE, _FIRST_PIECE, _MAX_PIECE = 16, 64, 2_048


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step brought to one generation."""

    generation: Generation
    delta: Delta


class Scheduler:
    """The order of work. Not thread-safe: one thread calls it between forward passes."""

    def __init__(self, slots: KvSlots, *, max_running: int | None = None, max_waiting: int = 64) -> None:
        self.slots = slots
        self._max_running = min(max_running or len(slots), len(slots))
        self._max_waiting = max_waiting
        self._waiting: deque[Generation] = deque()
        self._running: deque[Generation] = deque()
        self._piece = _FIRST_PIECE
        self.prompt_tokens_cached = 0
        self.prompt_tokens_computed = 0

    @property
    def waiting(self) -> int:
        """Generations without a KV slot yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Generations that hold a KV slot."""
        return len(self._running)

    def submit(self, generation: Generation) -> None:
        """Queue a generation; raises Overloaded when the queue is full."""
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} requests are waiting already; try again in a moment")
        self._waiting.append(generation)

    def abort(self, generation_id: int) -> bool:
        """Forget a generation, wherever it stands; its slot stays warm. -> whether there was one."""
        for queue in (self._waiting, self._running):
            for generation in queue:
                if generation.id == generation_id:
                    queue.remove(generation)
                    self._release(generation)
                    return True
        return False

    def plan(self) -> Step | None:
        """The next forward pass, for the generation whose turn it is; None when there is nothing to do."""
        copies = self._admit()
        if not self._running:
            return None
        generation = self._running[0]
        assert generation.slot is not None  # noqa: S101  (running generations hold a slot)
        start = generation.computed
        end = min(generation.length, start + self._piece)
        last = end == generation.length and not generation.primes_only
        return Step(
            spans=(Span(generation.slot, start, end - start),),
            ids=tuple(generation.ids_from(start, end)),
            sampled=(last,),
            allowed=(generation.allowed if last else None,),
            copies=tuple(copies),
            top=generation.top,
        )

    def commit(self, step: Step, samples: Iterable[Sample]) -> list[Progress]:
        """Record what a planned step did -> what each generation got. Call before anything else changes."""
        generation = self._running[0]
        self._running.rotate(-1)
        assert generation.slot is not None  # noqa: S101
        self.slots.extend(generation.slot, step.ids)
        generation.computed += len(step.ids)
        self.prompt_tokens_computed += max(0, min(len(step.ids), len(generation.prompt) - step.spans[0].start))
        if step.sampled[0]:
            delta = generation.accept(next(iter(samples)))
            if delta.finish is None and generation.length > self.slots.window:
                delta = _joined(delta, generation.end_of_window())
        elif generation.primes_only and generation.computed == generation.length:
            delta = generation.end_of_window()
        else:
            return []
        if delta.finish is not None:
            self._running.remove(generation)
            self._release(generation)
        return [Progress(generation, delta)]

    def fail(self, step: Step) -> list[Generation]:
        """Drop the generations of a step that raised, with the memory it may have spoilt."""
        failed = self._running.popleft()
        spoilt = {span.slot for span in step.spans} | {copy.target for copy in step.copies}
        for slot in spoilt:
            self.slots.forget(slot)
        for generation in self._running:
            if generation.slot in spoilt:  # its copied prefix never came: compute it instead
                generation.reused = generation.computed = 0
        self._release(failed)
        return [failed]

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from a pass over `tokens` how many fit into one piece of prefill."""
        if tokens >= _MIN_PIECE and seconds > 0:
            fitting = int(tokens * PIECE_SECONDS / seconds)
            self._piece = max(_MIN_PIECE, min(fitting, 2 * self._piece, _MAX_PIECE))

    def check_integrity(self) -> None:
        """Raise AssertionError unless every held slot belongs to a running generation, and the other way round."""
        self.slots.check_integrity()
        if self.slots.held != len(self._running):
            raise AssertionError(f"{self.slots.held} KV slots are held by {len(self._running)} generations")

    def _admit(self) -> list[Copy]:
        """Give KV slots to waiting generations, oldest first -> copies to make before the next pass."""
        copies = []
        while self._waiting and len(self._running) < self._max_running:
            generation = self._waiting[0]
            placement = self.slots.admit(generation.id, generation.prompt)
            if placement is None:
                break
            self._waiting.popleft()
            if placement.copy_from is not None:
                copies.append(Copy(placement.copy_from, placement.slot, placement.reused))
            generation.slot = placement.slot
            generation.reused = generation.computed = placement.reused
            self.prompt_tokens_cached += placement.reused
            self._running.append(generation)
        return copies

    def _release(self, generation: Generation) -> None:
        if generation.slot is not None:
            self.slots.release(generation.slot)
            generation.slot = None


def _joined(first: Delta, second: Delta) -> Delta:
    return Delta(first.text + second.text, first.tokens + second.tokens, second.finish)
