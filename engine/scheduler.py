"""Admit, prefill, decode, abort: which tokens run in the next forward pass. No torch and no clock; both are passed in.

Every pass serves every running generation: one token each, and up to one piece of prefill shared out fairly among those
that have more to compute. So decoding never waits for a long prompt, nor a prompt for somebody's long text, and who holds
a KV slot gets on in every pass. Who gets a slot is `waiting.py`'s to say, who gets how much of a pass `shares.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from engine.errors import Overloaded
from engine.generation import Delta, Generation
from engine.kv_slots import KvSlots
from engine.shares import Wish, share_out
from engine.speculation import Guesswork
from engine.step import Copy, Sample, Span, Step
from engine.waiting import WaitingRoom

PIECE_SECONDS = 0.05
"""Longest that a pass should take: cancels, newer cursors and everybody's next token wait for no more than this."""

MAX_WAITING, MAX_WAITING_PER_DOCUMENT = 64, 8

_MIN_PIECE, _FIRST_PIECE, _MAX_PIECE = 16, 64, 2_048


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step brought to one generation."""

    generation: Generation
    delta: Delta


@dataclass(frozen=True, slots=True)
class Submitted:
    """What letting a generation in did to others: primings that ended in its favour, and who had to leave the queue."""

    ended: tuple[Progress, ...] = ()
    refused: tuple[Generation, ...] = ()


@dataclass(frozen=True, slots=True)
class Relief:
    """How to go on with less memory: generations to refuse, and the KV slots to keep (None keeps them all)."""

    refused: tuple[Generation, ...] = ()
    keep: tuple[int, ...] | None = None


class Scheduler:
    """The order of work. Not thread-safe: one thread calls it between forward passes."""

    def __init__(
        self,
        slots: KvSlots,
        *,
        max_running: int | None = None,
        max_waiting: int = MAX_WAITING,
        max_waiting_per_document: int = MAX_WAITING_PER_DOCUMENT,
        free_rows: int = 1,
    ) -> None:
        self.slots = slots
        self.guesswork = Guesswork(free_rows, slots.window)
        self._max_running = min(max_running or len(slots), len(slots))
        self._waiting = WaitingRoom(max_waiting, max_waiting_per_document)
        self._running: list[Generation] = []
        self._planned: list[Generation] = []
        self._suspects: set[Generation] = set()
        self._copies: list[Copy] = []  # of generations that were admitted while no pass was due
        self._arrivals = count(1)
        self._piece = _FIRST_PIECE
        self._most = _MAX_PIECE
        self.admitted: list[Generation] = []
        """Who got a KV slot in the last `plan`."""
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

    def submit(self, generation: Generation) -> Submitted:
        """Queue a generation; raises Overloaded when there is no room for it.

        Primings of the same document end at once: what they have computed is there for the newer request to continue.
        """
        displaced = self._waiting.add(generation)
        if displaced is generation:
            raise Overloaded(f"{self._waiting.most} requests are waiting already; try again in a moment")
        ended = [self._end_priming(each) for each in self._primings_before(generation)]
        for each in (generation, *generation.followers):
            each.arrival = next(self._arrivals)
        return Submitted(tuple(ended), () if displaced is None else (displaced,))

    def abort(self, request: int) -> bool:
        """Forget a request, wherever its candidates stand; their slots stay warm. -> whether there was one."""
        found = [each for each in (*self._waiting, *self._running) if each.request == request]
        for generation in found:
            self._remove(generation)
        return bool(found)

    def pause(self, request: int, paused: bool) -> None:
        """Leave a request out of passes, with its slots held, until it goes on."""
        for generation in (*self._waiting, *self._running):
            if generation.request == request:
                generation.paused = paused

    def plan(self) -> Step | None:
        """The next forward pass; None when there is nothing to do until somebody submits, aborts or goes on."""
        self.admitted.clear()
        self._copies += self._admit()
        ready = [generation for generation in self._running if not generation.paused]
        self._planned = [each for each in ready if each in self._suspects][:1] or ready
        if not self._planned:
            return None
        self._copies += self._pin()
        copies, self._copies = self._copies, []
        piece = min(self._piece, self._most)
        budget = max(min(piece, _MIN_PIECE) - 1, piece - len(self._planned))
        parts = share_out([self._wish(each) for each in self._planned], budget)
        parts = [self._up_to_the_pin(each, part) for each, part in zip(self._planned, parts, strict=True)]
        guesses = self.guesswork.guess(self._planned, parts)
        spans: list[Span] = []
        ids: list[int] = []
        sampled: list[bool] = []
        for generation, part, guessed in zip(self._planned, parts, guesses, strict=True):
            start = generation.computed
            end = start + part
            spans.append(Span(_slot(generation), start, part + len(guessed)))
            ids += generation.ids_from(start, end)
            ids += guessed
            sampled.append(end == generation.length and not generation.primes_only)
        wanting = [each if wants else None for each, wants in zip(self._planned, sampled, strict=True)]
        return Step(
            spans=tuple(spans),
            ids=tuple(ids),
            sampled=tuple(sampled),
            allowed=tuple(each.allowed if each else None for each in wanting),
            sampling=tuple(each.sampling if each else None for each in wanting),
            seen=tuple(each.seen if each else () for each in wanting),
            draws=tuple(each.draws if each else 0 for each in wanting),
            guesses=tuple(map(len, guesses)),
            copies=tuple(copies),
            top=max((each.top for each in wanting if each), default=0),
        )

    def commit(self, step: Step, samples: Iterable[Sample]) -> list[Progress]:
        """Record what a planned step did -> what each generation got. Call before anything else changes."""
        remaining, row, progress = iter(samples), 0, []
        self._suspects.difference_update(self._planned)
        for generation, span, draws, guesses in zip(self._planned, step.spans, step.draws, step.guesses, strict=True):
            ids, row = step.ids[row : row + span.length], row + span.length
            known = span.length - guesses
            self._computed(generation, ids[:known])
            self.prompt_tokens_computed += max(0, min(known, len(generation.prompt) - span.start))
            drawn = [next(remaining) for _ in range(draws + guesses)]
            if guesses:
                progress.append(self._verify(generation, ids[known:], drawn))
            elif drawn:
                progress.append(self._accept(generation, drawn[0]))
                progress += map(self._follow, generation.followers, drawn[1:])
            elif generation.primes_only and generation.computed == generation.length:
                progress.append(Progress(generation, generation.close()))
        for each in progress:
            if each.delta.finish is not None and each.generation in self._running:
                self._remove(each.generation)
        return progress

    def fail(self, step: Step) -> list[Generation]:
        """After a step that raised -> the generation to give up, if one was in it alone, with the memory it may have spoilt.

        Those that shared a pass are each tried alone next: what breaks one must not end the others.
        """
        self._spoil({copy.target for copy in step.copies})
        if len(self._planned) > 1:
            self._suspects.update(self._planned)
            return []
        (failed,) = self._planned
        self._spoil({_slot(failed)})
        self._remove(failed)
        return [failed]

    def relieve(self, step: Step) -> Relief:
        """What to give up after a step that found no memory: each time something, so that what fits gets done.

        First the prefill pieces get smaller, then KV slots that nobody holds go, then the later half of those that run,
        and of a last one alone that does not fit, its request.
        """
        self._spoil({copy.target for copy in step.copies})
        if len(step.ids) > len(step.spans) and self._most > _MIN_PIECE:
            self._most = max(_MIN_PIECE, min(self._most, len(step.ids)) // 2)
            return Relief()
        refused: list[Generation] = []
        if len(self.slots) == self.slots.held:
            by_arrival = sorted(self._running, key=lambda each: (each.arrival, each.id))
            refused = by_arrival[len(by_arrival) // 2 :]
            for generation in refused:
                self._remove(generation)
        return Relief(tuple(refused), self._keep_slots(max(1, self.slots.held, len(self.slots) // 2)))

    def forget(self) -> None:
        """Nobody knows what the slots hold any more: who runs computes all of it again."""
        self._spoil(set(range(len(self.slots))))

    def observe(self, step: Step, seconds: float) -> None:
        """Learn from what a pass took how many tokens the next may have."""
        if not any(step.guesses) and max(span.length for span in step.spans) >= _MIN_PIECE and seconds > 0:
            fitting = int(len(step.ids) * PIECE_SECONDS / seconds)
            self._piece = max(_MIN_PIECE, min(fitting, 2 * self._piece, _MAX_PIECE))

    def check_integrity(self) -> None:
        """Raise AssertionError unless every held slot belongs to a running generation, and the other way round."""
        self.slots.check_integrity()
        if sorted(_slot(each) for each in self._running) != self.slots.all_held():
            raise AssertionError(f"{self.slots.held} KV slots are held by {len(self._running)} generations")
        for generation in self._running:
            if list(self.slots.ids(_slot(generation))) != list(generation.ids_from(0, generation.computed)):
                raise AssertionError("a KV slot and its generation disagree")
        if any(each.slot is not None for each in self._waiting):
            raise AssertionError("a waiting generation holds a KV slot")

    def _admit(self) -> list[Copy]:
        """Give KV slots to waiting generations -> copies to make before the next pass."""
        copies = []
        while len(self._waiting) and len(self._running) < self._max_running and self.slots.idle:
            generation = self._waiting.take()
            thrown_away = self.slots.thrown_away
            placement = self.slots.admit(generation.id, generation.ids_from(0, generation.length))
            assert placement is not None  # noqa: S101  (a slot is idle)
            if placement.copy_from is not None:
                copies.append(Copy(placement.copy_from, placement.slot, placement.reused))
            generation.slot = placement.slot
            generation.reused = generation.computed = placement.reused
            generation.discarded += self.slots.thrown_away - thrown_away
            self.admitted.append(generation)
            if not generation.generated:
                self.prompt_tokens_cached += placement.reused
            self._running.append(generation)
        return copies

    def _pin(self) -> list[Copy]:
        """Keep the heads that were asked for, as soon as they are computed -> copies to make before the next pass."""
        copies = []
        for generation in self._planned:
            if 0 < generation.pin <= generation.computed:
                placement = self.slots.pin(_slot(generation), generation.pin)
                if placement is not None and placement.copy_from is not None:
                    copies.append(Copy(placement.copy_from, placement.slot, placement.reused))
                    generation.pin = 0
        return copies

    def _up_to_the_pin(self, generation: Generation, part: int) -> int:
        """A piece ends where a head to be pinned ends, unless the prompt does: so a pass follows that can copy it."""
        to_pin = generation.pin - generation.computed
        return min(part, to_pin) if to_pin > 0 else part

    def _wish(self, generation: Generation) -> Wish:
        return Wish(
            generation.client,
            generation.document,
            generation.arrival,
            generation.length - generation.computed,
        )

    def _computed(self, generation: Generation, ids: Sequence[int]) -> None:
        self.slots.extend(_slot(generation), ids)
        generation.computed += len(ids)

    def _verify(self, generation: Generation, guesses: Sequence[int], samples: Sequence[Sample]) -> Progress:
        """Take the samples up to the first that differs from its guess; those after it were computed from a wrong token."""
        progress, right = self._accept(generation, samples[0]), 0
        while right < len(guesses) and progress.delta.finish is None and samples[right].id == guesses[right]:
            right += 1
            progress = Progress(generation, _joined(progress.delta, self._accept(generation, samples[right]).delta))
        self._computed(generation, guesses[:right])
        self.guesswork.verified(len(guesses), right)
        return progress

    def _accept(self, generation: Generation, sample: Sample) -> Progress:
        delta = generation.accept(sample)
        if delta.finish is None and generation.length > self.slots.window:
            delta = _joined(delta, generation.close())
        return Progress(generation, delta)

    def _follow(self, follower: Generation, sample: Sample) -> Progress:
        """A candidate begins with a token drawn after the prompt that another one computed."""
        progress = self._accept(follower, sample)
        if progress.delta.finish is None:
            self._waiting.add_begun(follower)
        return progress

    def _primings_before(self, newcomer: Generation) -> list[Generation]:
        if newcomer.document is None:
            return []
        return [
            each
            for each in (*self._waiting, *self._running)
            if each.primes_only
            and each is not newcomer
            and (each.client, each.document) == (newcomer.client, newcomer.document)
        ]

    def _end_priming(self, generation: Generation) -> Progress:
        generation.skipped = generation.length - generation.computed
        self._remove(generation)
        return Progress(generation, generation.close())

    def _remove(self, generation: Generation) -> None:
        """Take a generation out of whatever it is in; its slot stays warm."""
        self.guesswork.end(generation)
        if generation.slot is None:
            self._waiting.remove(generation)
            return
        self._running.remove(generation)
        self._suspects.discard(generation)
        slot, generation.slot = generation.slot, None
        self.slots.release(slot)
        if generation.pin and generation.pin == len(self.slots.ids(slot)):
            self.slots.pin_in_place(slot)

    def _spoil(self, slots: set[int]) -> None:
        """Forget what slots hold; generations that were admitted to them compute all of it."""
        for slot in slots:
            self.slots.forget(slot)
        for generation in self._running:
            if generation.slot in slots:
                self.prompt_tokens_cached -= 0 if generation.generated else generation.reused
                generation.reused = generation.computed = 0

    def _keep_slots(self, most: int) -> tuple[int, ...] | None:
        before = len(self.slots)
        kept = self.slots.keep(most)
        self._max_running = min(self._max_running, len(kept))
        for generation in self._running:
            generation.slot = kept.index(_slot(generation))
        return tuple(kept) if len(kept) < before else None


def _slot(generation: Generation) -> int:
    assert generation.slot is not None  # noqa: S101  (running generations hold a slot)
    return generation.slot


def _joined(first: Delta, second: Delta) -> Delta:
    return Delta(first.text + second.text, first.tokens + second.tokens, second.finish)
