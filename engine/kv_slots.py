"""Which KV slot holds which token ids: longest common prefix, fork, truncate, evict. Plain Python; moves no memory itself.

    ids of one slot:   [0 ......... computed)              what it holds is what its keys and values were computed from
    one sequence:      [0 .. reused)[reused .. prompt)[prompt .. generated)

A slot is free (holds nothing), cached (holds ids, no sequence) or held by exactly one sequence. Positions are learned in
these models, so ids may be kept or cut at the end, never moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count


@dataclass(slots=True)
class Slot:
    """One contiguous region of KV memory."""

    index: int
    ids: list[int] = field(default_factory=list)
    owner: int | None = None
    used: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a sequence was admitted: `reused` tokens are already there, after copying them from `copy_from` if set."""

    slot: int
    reused: int
    copy_from: int | None = None


class KvSlots:
    """The book of all slots. Not thread-safe: the scheduler's thread alone calls it."""

    def __init__(self, slots: int, window: int) -> None:
        if slots < 1:
            raise ValueError("at least one KV slot is needed")
        self.window = window
        self.thrown_away = 0
        self._slots = [Slot(n) for n in range(slots)]
        self._clock = count(1)

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def held(self) -> int:
        """Slots that a sequence is using."""
        return sum(slot.owner is not None for slot in self._slots)

    @property
    def cached(self) -> int:
        """Slots that hold ids and belong to nobody."""
        return sum(slot.owner is None and bool(slot.ids) for slot in self._slots)

    def admit(self, owner: int, prompt: Sequence[int]) -> Placement | None:
        """Give the sequence a slot that holds as much of `prompt` as possible; None while all are held.

        The last prompt token is always computed again: its logits are not kept. The best slot is cut back in place
        unless that would lose a branch as long as what is kept; then its prefix is copied to the least recently used one.
        """
        idle = [slot for slot in self._slots if slot.owner is None]
        if not idle:
            return None
        best = max(self._slots, key=lambda slot: (common_prefix(slot.ids, prompt), slot.owner is None, slot.used))
        reused = min(common_prefix(best.ids, prompt), len(prompt) - 1)
        lost = len(best.ids) - reused
        if best.owner is None and (lost <= max(reused, 1) or len(idle) == 1):
            self.thrown_away += lost
            del best.ids[reused:]
            return self._take(best, owner, Placement(best.index, reused))
        victim = min((slot for slot in idle if slot is not best), key=lambda slot: (bool(slot.ids), slot.used))
        self.thrown_away += len(victim.ids)
        victim.ids = best.ids[:reused]
        return self._take(victim, owner, Placement(victim.index, reused, best.index if reused else None))

    def extend(self, slot: int, ids: Sequence[int]) -> None:
        """Record that the keys and values of `ids` now follow what the slot holds."""
        held = self._slots[slot]
        if held.owner is None or len(held.ids) + len(ids) > self.window:
            raise ValueError(f"slot {slot} cannot be extended by {len(ids)} tokens")
        held.ids.extend(ids)

    def release(self, slot: int) -> None:
        """Give the slot back, still warm."""
        held = self._slots[slot]
        if held.owner is None:
            raise ValueError(f"slot {slot} is not held")
        held.owner = None
        held.used = next(self._clock)

    def forget(self, slot: int) -> None:
        """Empty a slot whose memory cannot be trusted, after a failed forward pass."""
        self._slots[slot].ids.clear()

    def ids(self, slot: int) -> Sequence[int]:
        """What the slot holds."""
        return self._slots[slot].ids

    def check_integrity(self) -> None:
        """Raise AssertionError if the book contradicts itself; called whenever the engine is idle."""
        owners = [slot.owner for slot in self._slots if slot.owner is not None]
        if len(owners) != len(set(owners)):
            raise AssertionError("one sequence holds two KV slots")
        if any(len(slot.ids) > self.window for slot in self._slots):
            raise AssertionError("a KV slot holds more than its window")

    def _take(self, slot: Slot, owner: int, placement: Placement) -> Placement:
        slot.owner = owner
        slot.used = next(self._clock)
        return placement


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading ids agree."""
    limit = min(len(a), len(b))
    if a[:limit] == b[:limit]:
        return limit
    low, high = 0, limit  # slices compare at C speed: halve instead of walking
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
