"""Which KV slot holds which token ids: longest common prefix, fork, truncate, evict, pin. Plain Python; moves no memory.

    ids of one slot:   [0 ......... computed)              what it holds is what its keys and values were computed from
    one sequence:      [0 .. reused)[reused .. prompt)[prompt .. generated)

A slot is free (holds nothing), cached (holds ids, no sequence), held by exactly one sequence, or pinned: cached, and taken
for another prompt by copying alone. Positions are learned in these models, so ids may be kept or cut at the end, never moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count


@dataclass(slots=True)
class Slot:
    """One contiguous region of KV memory."""

    index: int
    ids: list[int] = field(default_factory=list)
    owner: int | None = None
    used: int = 0
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a sequence was admitted: `reused` tokens are already there, after copying them from `copy_from` if set."""

    slot: int
    reused: int
    copy_from: int | None = None


class KvSlots:
    """The book of all slots. Not thread-safe: the scheduler's thread alone calls it.

    `thrown_away` counts tokens whose keys and values were given up, `forks` the copies, `evicted` the cached sequences that
    lost their slot to another.
    """

    def __init__(self, slots: int, window: int) -> None:
        if slots < 1:
            raise ValueError("at least one KV slot is needed")
        self.window = window
        self.thrown_away = 0
        self.forks = 0
        self.evicted = 0
        self._slots = [Slot(n) for n in range(slots)]
        self._clock = count(1)

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def held(self) -> int:
        """Slots that a sequence is using."""
        return sum(slot.owner is not None for slot in self._slots)

    @property
    def idle(self) -> int:
        """Slots that a sequence could be given."""
        return sum(slot.owner is None and not slot.pinned for slot in self._slots)

    @property
    def cached(self) -> int:
        """Slots that hold ids and belong to nobody, pinned ones included."""
        return sum(slot.owner is None and bool(slot.ids) for slot in self._slots)

    @property
    def pinned(self) -> int:
        """Slots that keep a shared head."""
        return sum(slot.pinned for slot in self._slots)

    @property
    def most_pinned(self) -> int:
        """How many slots may be pinned: a quarter, so that sequences always find room."""
        return len(self._slots) // 4

    def admit(self, owner: int, prompt: Sequence[int]) -> Placement | None:
        """Give the sequence a slot that holds as much of `prompt` as possible; None while none is idle.

        The last prompt token is always computed again: its logits are not kept. The best slot is cut back in place
        unless that would lose a branch as long as what is kept; then its prefix is copied to the least recently used one.
        """
        idle = [slot for slot in self._slots if slot.owner is None and not slot.pinned]
        if not idle:
            return None
        best = max(
            self._slots,
            key=lambda slot: (common_prefix(slot.ids, prompt), slot.owner is None and not slot.pinned, slot.used),
        )
        reused = min(common_prefix(best.ids, prompt), len(prompt) - 1)
        lost = len(best.ids) - reused
        if best in idle and (lost <= max(reused, 1) or len(idle) == 1):
            self.thrown_away += lost
            del best.ids[reused:]
            return self._take(best, owner, Placement(best.index, reused))
        if best.pinned and reused:
            best.used = next(self._clock)
        victim = _least_used(slot for slot in idle if slot is not best)
        assert victim is not None  # noqa: S101  (some slot is idle, and `best` is not the only one)
        self._overwrite(victim, best.ids[:reused])
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
        self._slots[slot].pinned = False

    def pin(self, slot: int, length: int) -> Placement | None:
        """Keep the first `length` ids of a slot in a slot of their own -> the copy to make.

        None when they are kept already, or when there is no room for them now. Beyond `most_pinned` the pin that was used
        longest ago gives way.
        """
        head = self._slots[slot].ids[:length]
        if not head or not self.most_pinned or self._is_pinned(head):
            return None
        target = self._give_way(head) or _least_used(
            each for each in self._slots if each.owner is None and not each.pinned and each.index != slot
        )
        if target is None:
            return None
        self._overwrite(target, head)
        target.pinned, target.used = True, next(self._clock)
        return Placement(target.index, length, slot)

    def pin_in_place(self, slot: int) -> None:
        """Keep all that an idle slot holds where it is, unless it is kept already."""
        kept = self._slots[slot]
        if kept.owner is None and kept.ids and self.most_pinned and not self._is_pinned(kept.ids):
            self._give_way(kept.ids)
            kept.pinned, kept.used = True, next(self._clock)

    def keep(self, most: int) -> list[int]:
        """Give up all but `most` slots, the least useful first -> the old numbers of those that stay, in their new order.

        Held slots always stay; then pinned ones, then the last used.
        """
        order = sorted(self._slots, key=lambda slot: (slot.owner is None, not slot.pinned, -slot.used))
        stay = order[: max(most, self.held, 1)]
        for slot in order[len(stay) :]:
            self.thrown_away += len(slot.ids)
        stay.sort(key=lambda slot: slot.index)
        numbers = [slot.index for slot in stay]
        for new, slot in enumerate(stay):
            slot.index = new
        self._slots = stay
        for slot in sorted((each for each in stay if each.pinned), key=lambda each: each.used):
            slot.pinned = self.pinned <= self.most_pinned
        return numbers

    def all_held(self) -> list[int]:
        """Which slots sequences are using."""
        return [slot.index for slot in self._slots if slot.owner is not None]

    def ids(self, slot: int) -> Sequence[int]:
        """What the slot holds."""
        return self._slots[slot].ids

    @property
    def lengths(self) -> list[int]:
        """How many ids each slot holds."""
        return [len(slot.ids) for slot in self._slots]

    def check_integrity(self) -> None:
        """Raise AssertionError if the book contradicts itself; called whenever the engine is idle."""
        owners = [slot.owner for slot in self._slots if slot.owner is not None]
        if len(owners) != len(set(owners)):
            raise AssertionError("one sequence holds two KV slots")
        if any(len(slot.ids) > self.window for slot in self._slots):
            raise AssertionError("a KV slot holds more than its window")
        if [slot.index for slot in self._slots] != list(range(len(self._slots))):
            raise AssertionError("KV slots are not numbered in order")
        if any(slot.pinned and (slot.owner is not None or not slot.ids) for slot in self._slots):
            raise AssertionError("a pinned KV slot is held, or holds nothing")
        if self.pinned > self.most_pinned:
            raise AssertionError(f"{self.pinned} of {len(self)} KV slots are pinned")

    def _take(self, slot: Slot, owner: int, placement: Placement) -> Placement:
        slot.owner = owner
        slot.used = next(self._clock)
        self.forks += placement.copy_from is not None
        return placement

    def _overwrite(self, slot: Slot, ids: list[int]) -> None:
        self.thrown_away += len(slot.ids)
        self.evicted += bool(slot.ids)
        slot.ids = ids

    def _is_pinned(self, head: Sequence[int]) -> bool:
        for slot in self._slots:
            if slot.pinned and slot.ids[: len(head)] == head:
                slot.used = next(self._clock)
                return True
        return False

    def _give_way(self, head: Sequence[int]) -> Slot | None:
        """Unpin what the new head replaces: a shorter form of itself, or the oldest pin if there are too many."""
        pinned = [slot for slot in self._slots if slot.pinned]
        shorter = [slot for slot in pinned if head[: len(slot.ids)] == slot.ids]
        leaving = _least_used(shorter) or (_least_used(pinned) if len(pinned) >= self.most_pinned else None)
        if leaving is not None:
            leaving.pinned = False
        return leaving


def _least_used(slots: Iterable[Slot]) -> Slot | None:
    """Empty slots first, then the one that was used longest ago."""
    return min(slots, key=lambda slot: (bool(slot.ids), slot.used), default=None)


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
