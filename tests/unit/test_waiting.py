"""Whose turn it is for a KV slot, and who leaves a full room."""

from __future__ import annotations

import sys
import threading

import pytest

from engine.generation import Generation
from engine.waiting import WaitingRoom
from tests.unit.vocabularies import vocabulary

TOKENIZER = vocabulary("starcoder")


def one(number: int, client: str = "", document: str | None = None) -> Generation:
    return Generation(number, TOKENIZER, [1], 4, TOKENIZER.is_control, client=client, document=document)


def room(*inside: Generation, most: int = 64, most_per_document: int = 8) -> WaitingRoom:
    made = WaitingRoom(most, most_per_document)
    for each in inside:
        assert made.add(each) is None
    return made


def order(target: WaitingRoom) -> list[int]:
    return [target.take().id for _ in range(len(target))]


def test_work_without_a_document_is_served_in_the_order_it_came() -> None:
    assert order(room(one(1), one(2), one(3))) == [1, 2, 3]


def test_within_a_document_the_newest_goes_first() -> None:
    assert order(room(one(1, document="a"), one(2, document="a"), one(3, document="a"))) == [3, 2, 1]


def test_clients_take_turns_then_the_documents_of_a_client() -> None:
    flood = [one(n, "flood", "a") for n in range(1, 5)] + [one(n, "flood", "b") for n in range(5, 7)]
    assert order(room(*flood, one(10, "x"), one(11, "x"), one(12, "y"))) == [4, 10, 12, 6, 11, 3, 5, 2, 1]


def test_who_comes_back_stands_behind_those_who_waited() -> None:
    target = room(one(1, "a"), one(2, "b"))
    assert target.take().id == 1
    target.add(one(3, "a"))
    assert order(target) == [2, 3]


def test_begun_candidates_go_first_in_their_line_and_are_never_displaced() -> None:
    target = room(one(1, document="a"), one(2, document="a"), most=2, most_per_document=2)
    for number in (3, 4, 5):
        target.add_begun(one(number, document="a"))
    left = target.add(one(6, document="a"))
    assert left is not None
    assert left.id == 1
    assert order(target) == [3, 4, 5, 6, 2]


def test_a_full_room_is_left_by_the_client_that_has_most_waiting() -> None:
    target = room(*(one(n, "flood") for n in range(1, 5)), one(5, "x"), most=5)
    left = target.add(one(6, "y"))
    assert left is not None
    assert left.id == 4, "the last of the flood"
    left = target.add(one(7, "flood"))
    assert left is not None
    assert left.id == 7, "who floods gets no more in"
    target = room(*(one(n, "flood", "a") for n in range(1, 5)), most=4)
    left = target.add(one(5, "flood", "b"))
    assert left is not None
    assert left.id == 1, "the oldest cursor of the longest line"


def test_taking_out_and_looking_at_who_is_in() -> None:
    first, second = one(1, "a", "x"), one(2, "b")
    target = room(first, second)
    assert {each.id for each in target} == {1, 2}
    target.remove(first)
    with pytest.raises(ValueError, match="not in list"):
        target.remove(first)
    assert (len(target), order(target)) == (1, [2])
    with pytest.raises(LookupError, match="nobody"):
        target.take()


def test_any_thread_may_ask_how_many_wait_while_the_lines_change() -> None:
    """`/metrics` does, on a thread of its own."""
    target, errors, done = room(), [], threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                assert 0 <= len(target) <= 40
        except (AssertionError, RuntimeError) as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(200):
            inside = [one(n, str(n % 7), f"d{n % 23}") for n in range(40)]
            for each in inside:
                target.add(each)
            for each in inside:
                target.remove(each)
    finally:
        sys.setswitchinterval(interval)
        done.set()
        asking.join()
    assert errors == []
    assert len(target) == 0


def test_how_many_wait_is_right_whatever_came_and_went() -> None:
    target = room(most=3, most_per_document=2)
    for number in range(6):
        target.add(one(number, str(number % 2), "a"))
        target.add_begun(one(10 + number, "b"))
        assert len(target) == len(list(target))
    stranger = one(99, "b")
    with pytest.raises(ValueError, match=r"."):
        target.remove(stranger)
    assert len(target) == len(list(target))
    target.remove(next(iter(target)))
    while len(target):
        target.take()
        assert len(target) == len(list(target))
