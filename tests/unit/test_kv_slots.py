"""Which slot a prompt gets: the one that holds most of it, cut back in place, or a copy where a branch would be lost."""

from __future__ import annotations

import pytest

from engine.kv_slots import KvSlots, Placement, common_prefix


def filled(*contents: list[int], window: int = 16) -> KvSlots:
    """Slots that hold these ids, all idle, the first one used longest ago."""
    slots = KvSlots(len(contents), window)
    for owner, ids in enumerate(contents):
        placement = slots.admit(owner, [*ids, 99] if ids else [99])
        assert placement is not None
        assert placement.slot == owner
        if ids:
            slots.extend(placement.slot, ids[placement.reused :])
    for number in range(len(contents)):
        slots.release(number)
    return slots


def test_a_fresh_slot_holds_nothing() -> None:
    slots = KvSlots(2, 8)
    assert (len(slots), slots.held, slots.cached, slots.window) == (2, 0, 0, 8)
    assert slots.admit(1, [1, 2, 3]) == Placement(0, 0)
    assert slots.admit(2, [1, 2, 3]) == Placement(1, 0)
    assert slots.admit(3, [1, 2, 3]) is None
    assert (slots.held, slots.cached) == (2, 0)


def test_a_prompt_that_goes_on_where_a_slot_ends_is_put_there() -> None:
    slots = filled([1, 2, 3], [7, 8, 9])
    assert slots.admit(5, [7, 8, 9, 10]) == Placement(1, 3)
    assert (list(slots.ids(1)), slots.thrown_away) == ([7, 8, 9], 0)


def test_the_last_token_of_a_prompt_is_always_computed_again() -> None:
    slots = filled([1, 2, 3])
    assert slots.admit(5, [1, 2, 3]) == Placement(0, 2)
    assert list(slots.ids(0)) == [1, 2]
    assert filled([1]).admit(5, [1]) == Placement(0, 0)


def test_a_few_changed_tokens_at_the_end_are_cut_off_in_place() -> None:
    slots = filled([1, 2, 3, 4, 5], [])
    assert slots.admit(5, [1, 2, 3, 6, 7]) == Placement(0, 3)
    assert (list(slots.ids(0)), slots.thrown_away) == ([1, 2, 3], 2)


def test_a_long_branch_is_kept_and_its_beginning_copied() -> None:
    slots = filled([1, 2, 3, 4, 5, 6, 7], [8])
    assert slots.admit(5, [1, 2, 9]) == Placement(1, 2, copy_from=0)
    assert list(slots.ids(0)) == [1, 2, 3, 4, 5, 6, 7]
    assert list(slots.ids(1)) == [1, 2]


def test_the_only_idle_slot_is_cut_back_whatever_it_holds() -> None:
    slots = filled([1, 2, 3, 4, 5, 6, 7])
    assert slots.admit(5, [1, 9]) == Placement(0, 1)
    assert slots.thrown_away == 6


def test_what_a_running_sequence_holds_is_copied_and_left_alone() -> None:
    slots = filled([1, 2, 3], [])
    assert slots.admit(5, [1, 2, 3, 4]) == Placement(0, 3)
    assert slots.admit(6, [1, 2, 3, 4]) == Placement(1, 3, copy_from=0)
    slots.extend(0, [4])
    assert (list(slots.ids(0)), list(slots.ids(1))) == ([1, 2, 3, 4], [1, 2, 3])


def test_empty_slots_go_first_then_the_least_recently_used() -> None:
    slots = filled([1, 1, 1], [2, 2, 2], [])
    for owner, expected in ((5, 2), (6, 0), (7, 1)):
        placement = slots.admit(owner, [owner, 50])
        assert placement is not None
        assert (placement.slot, placement.reused) == (expected, 0)


def test_releasing_keeps_the_ids_and_forgetting_does_not() -> None:
    slots = filled([1, 2], [3, 4])
    assert (slots.held, slots.cached) == (0, 2)
    slots.forget(0)
    assert (list(slots.ids(0)), slots.cached) == ([], 1)
    slots.check_integrity()


def test_a_pinned_head_is_copied_from_and_never_taken() -> None:
    slots = filled([1, 2, 3, 4, 5], [], [], [])
    assert slots.pin(0, 3) == Placement(1, 3, copy_from=0)
    assert (list(slots.ids(1)), slots.pinned, slots.idle) == ([1, 2, 3], 1, 3)
    assert slots.pin(0, 3) is None, "it is kept already"
    assert slots.pin(0, 2) is None, "as part of a longer one"
    for owner in range(5, 8):
        placement = slots.admit(owner, [owner * 10, 1])
        assert placement is not None
        assert placement.slot != 1
    assert slots.admit(8, [1, 2, 3, 9]) is None, "a pinned slot is nobody's to take"
    slots.release(2)
    assert slots.admit(8, [1, 2, 3, 9]) == Placement(2, 3, copy_from=1)
    slots.check_integrity()


def test_no_more_than_a_quarter_is_pinned_and_the_pin_used_longest_ago_gives_way() -> None:
    slots = filled(*([n, n] for n in range(1, 9)))
    assert slots.most_pinned == 2
    for slot in (0, 1, 2):
        slots.pin_in_place(slot)
    assert [each.pinned for each in slots._slots[:3]] == [False, True, True]
    slots.pin_in_place(1)
    slots.pin_in_place(5)
    assert [slot.index for slot in slots._slots if slot.pinned] == [1, 5], "the one used again stayed"
    small = filled([1], [2], [3])
    small.pin_in_place(0)
    assert (small.pin(1, 1), small.pinned) == (None, 0)


def test_a_head_that_grew_replaces_its_shorter_form() -> None:
    slots = filled([1, 2, 3], [1, 2, 3, 4, 5], [7], [8], [], [], [], [])
    slots.pin_in_place(0)
    assert slots.pin(1, 5) == Placement(0, 5, copy_from=1)
    assert (list(slots.ids(0)), slots.pinned) == ([1, 2, 3, 4, 5], 1)


def test_giving_slots_up_keeps_what_is_held_then_what_is_pinned_then_what_was_used_last() -> None:
    slots = filled([1, 1], [2, 2], [3, 3], [4, 4], [5, 5])
    slots.pin_in_place(1)
    assert slots.admit(9, [1, 1, 6]) == Placement(0, 2)
    assert slots.keep(4) == [0, 1, 3, 4]
    assert [list(slots.ids(n)) for n in range(4)] == [[1, 1], [2, 2], [4, 4], [5, 5]]
    assert (slots.held, slots.pinned, slots.thrown_away) == (1, 1, 2)
    slots.check_integrity()
    assert slots.keep(2) == [0, 1]
    assert slots.pinned == 0, "of two slots none is pinned"
    slots.check_integrity()
    assert slots.keep(0) == [0]
    assert slots.all_held() == [0]


def test_what_is_forked_evicted_and_thrown_away_is_counted() -> None:
    slots = filled([1, 2, 3, 4, 5, 6, 7], [8, 8])
    slots.admit(5, [1, 2, 9])
    assert (slots.forks, slots.evicted, slots.thrown_away) == (1, 1, 2)


def test_misuse_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        KvSlots(0, 8)
    slots = KvSlots(1, 4)
    with pytest.raises(ValueError, match="not held"):
        slots.release(0)
    with pytest.raises(ValueError, match="cannot be extended"):
        slots.extend(0, [1])
    slots.admit(1, [1, 2, 3, 4, 5])
    slots.extend(0, [1, 2, 3, 4])
    with pytest.raises(ValueError, match="cannot be extended"):
        slots.extend(0, [5])
    slots.release(0)
    with pytest.raises(ValueError, match="not held"):
        slots.release(0)


def test_a_book_that_contradicts_itself_is_noticed() -> None:
    slots = KvSlots(2, 2)
    slots.admit(1, [1])
    slots.admit(1, [1])
    with pytest.raises(AssertionError, match="two KV slots"):
        slots.check_integrity()
    slots = KvSlots(1, 2)
    slots.admit(1, [1])
    slots._slots[0].ids.extend([1, 2, 3])
    with pytest.raises(AssertionError, match="more than its window"):
        slots.check_integrity()


@pytest.mark.parametrize(
    ("a", "b", "length"),
    [([], [], 0), ([1], [], 0), ([1], [2], 0), ([1, 2], [1, 3], 1), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 2, 3], 3)],
)
def test_common_prefix_by_hand(a: list[int], b: list[int], length: int) -> None:
    assert common_prefix(a, b) == common_prefix(b, a) == length
