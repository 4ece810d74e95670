"""Messages come out of the stream as they went in, wherever the reads fall and whatever stands between them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_server.gate import Framer, Ledger, Refusal

BODIES = st.binary(max_size=40) | st.sampled_from((b"{}", b"Content-Length: 3\r\n\r\n", b"\r\n\r\n", b"content-length"))
HEADERS = st.sampled_from(
    (
        b"Content-Length: %d\r\n\r\n",
        b"content-length:%d\n\n",
        b"Content-Type: x\r\nContent-Length: %d\r\n\r\n",
        b"Content-Length: %d\r\nX: y\r\n\r\n",
    )
)
JUNK = st.just(b"") | st.sampled_from((b"junk\r\n", b"\x00" * 70, b"{}\n", b"Content-Length: x\r\n\r\n", b"\r\n"))


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=10)))
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


def read(pieces: list[bytes]) -> list[bytes | Refusal]:
    framer = Framer()
    return [found for piece in pieces for found in framer.feed(piece)]


@given(data=st.data(), messages=st.lists(st.tuples(HEADERS, BODIES), max_size=6))
@settings(max_examples=200, deadline=None)
def test_good_messages_come_out_as_they_went_in(data: st.DataObject, messages: list[tuple[bytes, bytes]]) -> None:
    stream = b"".join(header % len(body) + body for header, body in messages)
    assert read(data.draw(cuts(stream))) == [body for _, body in messages]


@given(data=st.data(), messages=st.lists(st.tuples(JUNK, HEADERS, BODIES), max_size=5), tail=JUNK)
@settings(max_examples=150, deadline=None)
def test_with_junk_in_between_the_reads_still_do_not_matter(
    data: st.DataObject, messages: list[tuple[bytes, bytes, bytes]], tail: bytes
) -> None:
    stream = b"".join(junk + header % len(body) + body for junk, header, body in messages) + tail
    whole = read([stream])
    assert [found for found in whole if isinstance(found, bytes)] == [body for _, _, body in messages]
    assert read(data.draw(cuts(stream))) == whole == read([bytes([byte]) for byte in stream])


@given(noise=st.lists(st.binary(max_size=200), max_size=20))
@settings(max_examples=200, deadline=None)
def test_noise_never_raises_and_is_never_a_message_without_a_header(noise: list[bytes]) -> None:
    found = read(noise)
    if b"content-length" not in b"".join(noise).lower():
        assert not [each for each in found if isinstance(each, bytes)]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(("", "1", "initialize", "2.0")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("uri", "line")), inner, max_size=2),
    max_leaves=4,
)
METHODS = st.sampled_from(("initialize", "shutdown", "exit", "textDocument/completion", "x")) | VALUES
FIELDS = {"jsonrpc": st.just("2.0") | VALUES, "id": VALUES, "method": METHODS, "params": VALUES, "result": VALUES}
OBJECTS = st.fixed_dictionaries({}, optional=FIELDS)
LIKELY = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": METHODS}, optional={"id": VALUES, "params": VALUES}
)


@given(messages=st.lists(LIKELY | OBJECTS | VALUES, max_size=12))
@settings(max_examples=150, deadline=None)
def test_each_request_is_admitted_or_refused_and_each_that_is_admitted_is_settled_once(messages: list[Any]) -> None:
    ledger, open_ids = Ledger(), []
    for message in messages:
        found = ledger.admit(json.dumps(message).encode())
        if isinstance(found, dict) and "method" in found and "id" in found:
            open_ids.append(found["id"])
        elif isinstance(message, dict) and "id" in message and "method" in message:
            assert isinstance(found, Refusal)
            assert found.id in (message["id"], None)
    assert [ledger.settle(each) for each in open_ids] == [True] * len(open_ids)
    assert [ledger.settle(each) for each in open_ids] == [False] * len(open_ids)
