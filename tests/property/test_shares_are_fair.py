"""Who holds a KV slot is in every pass, who waits for one gets it, and nobody has more than an equal part."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.generation import Generation
from engine.shares import Wish, share_out
from engine.waiting import WaitingRoom
from tests.unit.vocabularies import vocabulary

TOKENIZER = vocabulary("starcoder")
WISHES = st.lists(
    st.builds(
        Wish,
        client=st.sampled_from("abc"),
        document=st.sampled_from(("x", "y", None)),
        newness=st.just(0),
        tokens=st.integers(1, 60) | st.just(1),
    ),
    min_size=1,
    max_size=12,
).map(lambda found: [Wish(each.client, each.document, n, each.tokens) for n, each in enumerate(found)])


@given(wishes=WISHES, budget=st.integers(0, 200))
@settings(max_examples=300, deadline=None)
def test_everybody_gets_on_nobody_more_than_wanted_and_nothing_is_wasted(wishes: list[Wish], budget: int) -> None:
    shares = share_out(wishes, budget)
    more = [share - 1 for share in shares]
    wanted = [wish.tokens - 1 for wish in wishes]
    assert all(0 <= got <= want for got, want in zip(more, wanted, strict=True))
    assert sum(more) <= budget
    # What integer division leaves over is less than one token for each line.
    assert sum(more) > min(budget, sum(wanted)) - len(wishes) or sum(more) == min(budget, sum(wanted))


@given(wishes=WISHES, budget=st.integers(0, 200))
@settings(max_examples=300, deadline=None)
def test_shares_are_max_min_fair_between_clients_and_documents(wishes: list[Wish], budget: int) -> None:
    shares = share_out(wishes, budget)
    for level in (lambda wish: wish.client, lambda wish: (wish.client, wish.document)):
        got: Counter[object] = Counter()
        want: Counter[object] = Counter()
        for wish, share in zip(wishes, shares, strict=True):
            got[level(wish)] += share - 1
            want[level(wish)] += wish.tokens - 1
        groups: dict[object, list[object]] = defaultdict(list)
        for key in got:
            groups[key[0] if isinstance(key, tuple) else None].append(key)
        for group in groups.values():
            short = [key for key in group if got[key] < want[key]]
            for key in short:
                assert all(got[other] <= got[key] + 1 for other in group), "who wants more has no less than anybody"


@given(wishes=WISHES, budget=st.integers(0, 200))
@settings(max_examples=300, deadline=None)
def test_within_a_document_the_newest_is_served_first(wishes: list[Wish], budget: int) -> None:
    shares = share_out(wishes, budget)
    for older, newer in ((a, b) for b in range(len(wishes)) for a in range(b)):
        same = (wishes[older].client, wishes[older].document) == (wishes[newer].client, wishes[newer].document)
        if same and shares[older] > 1:
            assert shares[newer] == wishes[newer].tokens


@given(
    data=st.data(),
    others=st.integers(1, 6),
    documents=st.integers(1, 4),
)
@settings(max_examples=100, deadline=None)
def test_between_two_turns_of_one_client_every_other_has_had_one(
    data: st.DataObject, others: int, documents: int
) -> None:
    """However many requests the others send, and whenever."""
    room = WaitingRoom(64, 8)
    numbers = iter(range(1, 10_000))

    def send(client: str) -> None:
        document = data.draw(st.sampled_from([None, *map(str, range(documents))]))
        room.add(Generation(next(numbers), TOKENIZER, [1], 4, TOKENIZER.is_control, client=client, document=document))

    clients = [str(n) for n in range(others)]
    for client in clients:
        send(client)
    patient = Generation(0, TOKENIZER, [1], 4, TOKENIZER.is_control, client="patient", document="p")
    room.add(patient)
    served: list[str] = []
    while True:
        for _ in range(data.draw(st.integers(0, 3))):
            send(data.draw(st.sampled_from(clients)))
        taken = room.take()
        if taken is patient:
            break
        served.append(taken.client)
    assert max(Counter(served).values()) == 1
    assert len(served) <= others
