"""What the gate makes of bytes and of messages: bodies, refusals, and one reply for each request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lsp_server.gate import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_MESSAGE,
    NOT_INITIALIZED,
    PARSE_ERROR,
    Framer,
    Ledger,
    Refusal,
    encode,
)

GOOD = b'Content-Length: 4\r\n\r\n"ok"'


def frames(*pieces: bytes) -> list[bytes | int]:
    """Bodies as they are, refusals as their code; a refusal of bytes never has an id."""
    framer, found = Framer(), []
    for piece in pieces:
        found += list(framer.feed(piece))
    assert all(each.id is None for each in found if isinstance(each, Refusal))
    return [each.code if isinstance(each, Refusal) else each for each in found]


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: 2\r\n\r\n",
        b"content-length: 2\r\n\r\n",
        b"CONTENT-LENGTH:2\r\n\r\n",
        b"Content-Length: \t 2 \r\n\r\n",
        b"Content-Length: 2\n\n",
        b"Content-Length: 2\r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n\r\n",
        b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\ncontent-length: 2\r\n\r\n",
        b"X-Other: 1\nContent-Length: 2\nX-More: 2\n\n",
        b"Content-Length: 0000000002\r\n\r\n",
        b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n",
        b"X-Content-Length: 7\r\nContent-Length: 2\r\n\r\n",
        b"Content-Length: 2\r\nContent-Type: application/vscode-jsonrpc; charset=utf8\r\n\r\n",
        b'Content-Length: 2\r\nContent-Type: application/vscode-jsonrpc; charset="UTF-8"\r\n\r\n',
        b"Content-Length: 2\r\nContent-Type: application/vscode-jsonrpc\r\n\r\n",
    ],
)
def test_headers_that_are_understood(header: bytes) -> None:
    assert frames(header + b"{}") == [b"{}"]
    assert frames(header + b"{}" + GOOD + header + b"[]") == [b"{}", b'"ok"', b"[]"]


def test_a_body_may_be_empty_and_may_look_like_a_header() -> None:
    inner = b"Content-Length: 1\r\n\r\n"
    assert frames(b"Content-Length: 0\r\n\r\n" + encode({"a": 1})) == [b"", b'{"a":1}']
    assert frames(b"Content-Length: %d\r\n\r\n%s" % (len(inner), inner) + GOOD) == [inner, b'"ok"']


@pytest.mark.parametrize(
    "bad",
    [
        b"junk\r\n",
        b"\x00\xff\r\n\r\n",
        b"{}\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"Content-Length: -5\r\n\r\n{}",
        b"Content-Length: two\r\n\r\n{}",
        b"Content-Length: 99999999999999999999999999\r\n\r\n{}",
        b"Content-Length\r\n\r\n{}",
        b"Content-Type: text/plain\r\n\r\n{}",
        b"Content-Length: 2\r\nContent-Length: 4\r\n\r\n{}",
        b"Content-Length: +2\r\n\r\n{}",
        b"Content-Length: 2 2\r\n\r\n{}",
        b"Content-Length: 0x2\r\n\r\n{}",
        b"X-Content-Length: 2\r\n\r\n{}",
        b"Content-Length: 7",  # cut off, and the next header follows
        b"\xef\xbb\xbf",
    ],
)
def test_what_cannot_be_a_message_is_refused_once_and_the_next_message_is_read(bad: bytes) -> None:
    assert frames(bad + GOOD) == [PARSE_ERROR, b'"ok"']
    assert frames(bad, GOOD) == [PARSE_ERROR, b'"ok"']


@pytest.mark.parametrize("length", [MAX_MESSAGE + 1, 4_000_000_000_000, 10**20 - 1])
def test_an_absurd_length_is_refused_and_the_next_message_is_read_at_once(length: int) -> None:
    bad = b"Content-Length: %d\r\n\r\n" % length
    assert frames(bad) == [INVALID_REQUEST]
    assert frames(bad + GOOD) == [INVALID_REQUEST, b'"ok"']
    assert frames(bad + b'{"id":1}', GOOD) == [INVALID_REQUEST, b'"ok"']
    assert frames(*(bytes([byte]) for byte in bad + GOOD)) == [INVALID_REQUEST, b'"ok"']


def test_a_stretch_of_junk_is_refused_once_however_long_it_is() -> None:
    assert frames(*[b"x" * 65_536] * 16, GOOD) == [PARSE_ERROR, b'"ok"']
    refused = b"Content-Length: %d\r\n\r\n" % (2 * MAX_MESSAGE)
    assert frames(refused, *[b"y" * 65_536] * 16, GOOD) == [INVALID_REQUEST, b'"ok"']
    assert frames(b"x" * 10_000, GOOD, b"x" * 10_000, GOOD) == [PARSE_ERROR, b'"ok"', PARSE_ERROR, b'"ok"']


def test_headers_without_an_end_are_refused() -> None:
    endless = b"Content-Length: 2\r\n" + b"X-Filler: aaaaaaaa\r\n" * 400
    assert frames(endless, GOOD) == [PARSE_ERROR, b'"ok"']


def test_a_message_over_the_limit_is_skipped_though_its_text_looks_like_messages() -> None:
    text = json.dumps({"text": "Content-Length: 4\r\n\r\nnull" * 10_000}).encode()
    header = b"Content-Length: %d\r\n\r\n" % (MAX_MESSAGE + 1)
    assert frames(header + text, GOOD) == [INVALID_REQUEST, b'"ok"']


def test_junk_does_not_pile_up() -> None:
    framer = Framer()
    for _ in range(64):
        list(framer.feed(b"z" * 65_536))
    assert len(framer._data) < 65_536


def body(**fields: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **fields}).encode()


def request(method: str, request_id: int | str = 1, **params: Any) -> bytes:
    return body(id=request_id, method=method, params=params)


def started() -> Ledger:
    ledger = Ledger()
    assert isinstance(ledger.admit(request("initialize", 0)), dict)
    assert ledger.settle(0)
    return ledger


AT = {"textDocument": {"uri": "file:///a.py"}, "position": {"line": 0, "character": 0}}


@pytest.mark.parametrize(
    ("message", "code", "request_id"),
    [
        (b"", PARSE_ERROR, None),
        (b"{", PARSE_ERROR, None),
        (b"\xff\xfe\xfd", PARSE_ERROR, None),
        (b"[" * 100_000, PARSE_ERROR, None),
        (b'{"jsonrpc":"2.0","id":1,"method":' + b"9" * 5_000 + b"}", PARSE_ERROR, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"shutdown","params":{"x":NaN}}', PARSE_ERROR, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"shutdown","params":{"x":-Infinity}}', PARSE_ERROR, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"shut\ndown"}', PARSE_ERROR, None),
        ('{"jsonrpc":"2.0","id":1,"method":"shutdown"}'.encode("utf-16"), PARSE_ERROR, None),
        ('{"jsonrpc":"2.0","id":1,"method":"shutd\u00e9"}'.encode("latin-1"), PARSE_ERROR, None),
        (b"null", INVALID_REQUEST, None),
        (b"7", INVALID_REQUEST, None),
        (b'"text"', INVALID_REQUEST, None),
        (b"[" + request("shutdown") + b"]", INVALID_REQUEST, None),
        (b'{"id":4,"method":"shutdown"}', INVALID_REQUEST, 4),
        (b'{"jsonrpc":"1.0","id":"a","method":"shutdown"}', INVALID_REQUEST, "a"),
        (b'{"jsonrpc":2.0,"id":4,"method":"shutdown"}', INVALID_REQUEST, 4),
        (body(id=4, method=7), INVALID_REQUEST, 4),
        (body(id=4, method=None), INVALID_REQUEST, 4),
        (body(id=None, method="shutdown"), INVALID_REQUEST, None),
        (body(id=True, method="shutdown"), INVALID_REQUEST, None),
        (body(id=1.5, method="shutdown"), INVALID_REQUEST, None),
        (body(id=1.0, method="shutdown"), INVALID_REQUEST, None),
        (body(id={}, method="shutdown"), INVALID_REQUEST, None),
        (body(id=[1], method="shutdown"), INVALID_REQUEST, None),
        (body(id=4, method="shutdown", params="all"), INVALID_REQUEST, 4),
        (body(id=4, method="shutdown", params=7), INVALID_REQUEST, 4),
        (body(id=4), INVALID_REQUEST, 4),
    ],
)
def test_what_is_no_request_is_refused_with_its_id_where_it_has_one(
    message: bytes, code: int, request_id: int | str | None
) -> None:
    for ledger in (Ledger(), started()):
        refusal = ledger.admit(message)
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.id) == (code, request_id)
        if request_id is not None:
            assert not ledger.settle(request_id)


@pytest.mark.parametrize("method", ["textDocument/inlineCompletion", "textDocument/completion"])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"textDocument": AT["textDocument"]},
        {"position": AT["position"]},
        {**AT, "textDocument": None},
        {**AT, "textDocument": {}},
        {**AT, "textDocument": {"uri": 7}},
        {**AT, "position": [0, 0]},
        {**AT, "position": {"line": 0}},
        {**AT, "position": {"line": 0, "character": None}},
        {**AT, "position": {"line": 0.5, "character": 0}},
        {**AT, "position": {"line": "0", "character": 0}},
        {**AT, "position": {"line": True, "character": 0}},
        {**AT, "position": {"line": -1, "character": 0}},
        {**AT, "position": {"line": 0, "character": 2**31}},
    ],
)
def test_a_position_must_be_there_in_whole_numbers(method: str, params: dict[str, Any]) -> None:
    ledger = started()
    refusal = ledger.admit(request(method, 5, **params))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.id) == (INVALID_PARAMS, 5)
    assert isinstance(ledger.admit(request(method, 5, **AT)), dict), "the refused id is free again"


@pytest.mark.parametrize("params", [None, [], [1]])
def test_positions_are_not_read_out_of_other_things_than_objects(params: Any) -> None:
    refusal = started().admit(body(id=5, method="textDocument/inlineCompletion", params=params))
    assert isinstance(refusal, Refusal)
    assert refusal.code == INVALID_PARAMS


def test_before_initialize_requests_are_refused_and_notifications_dropped() -> None:
    ledger = Ledger()
    refusal = ledger.admit(request("textDocument/inlineCompletion", 1, **AT))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.id) == (NOT_INITIALIZED, 1)
    refusal = ledger.admit(request("shutdown", 1))
    assert isinstance(refusal, Refusal)
    assert refusal.code == NOT_INITIALIZED
    assert ledger.admit(body(method="textDocument/didOpen", params={})) is None
    assert ledger.admit(body(method="initialized")) is None
    assert isinstance(ledger.admit(body(method="exit")), dict)
    assert isinstance(ledger.admit(request("initialize", 1)), dict)
    assert isinstance(ledger.admit(body(method="a/note", params={})), dict)
    assert isinstance(ledger.admit(body(method="initialized")), dict)
    assert ledger.admit(body(method="initialized")) is None


def test_initialize_is_served_once() -> None:
    ledger = started()
    refusal = ledger.admit(request("initialize", 2))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.id) == (INVALID_REQUEST, 2)


def test_after_shutdown_only_exit_is_heard() -> None:
    ledger = started()
    assert isinstance(ledger.admit(request("shutdown", 1)), dict)
    for message in (
        request("textDocument/inlineCompletion", 2, **AT),
        request("shutdown", 3),
        request("initialize", 4),
    ):
        refusal = ledger.admit(message)
        assert isinstance(refusal, Refusal)
        assert refusal.code == INVALID_REQUEST
    assert ledger.admit(body(method="textDocument/didChange", params={})) is None
    assert isinstance(ledger.admit(body(method="exit")), dict)
    assert ledger.settle(1)


def test_an_id_is_open_once_and_settled_once() -> None:
    ledger = started()
    assert isinstance(ledger.admit(request("a/method", 1)), dict)
    refusal = ledger.admit(request("other/method", 1))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.id) == (INVALID_REQUEST, 1)
    assert isinstance(ledger.admit(request("a/method", "1")), dict), '1 and "1" are two ids'
    assert [ledger.settle(1), ledger.settle(1), ledger.settle("1"), ledger.settle("1")] == [True, False, True, False]
    assert isinstance(ledger.admit(request("a/method", 1)), dict), "a settled id may come again"
    assert not ledger.settle("never seen")


def test_params_are_kept_as_they_were_sent_while_the_request_is_open() -> None:
    ledger = started()
    ledger.admit(request("textDocument/inlineCompletion", 7, **AT, partialResultToken="t"))
    assert ledger.params(7) == {**AT, "partialResultToken": "t"}
    assert ledger.params(None) == ledger.params("7") == {}
    ledger.admit(body(id=8, method="workspace/executeCommand", params=[1]))
    assert ledger.params(8) == {}
    ledger.settle(7)
    assert ledger.params(7) == {}


def test_what_goes_on_has_the_fields_of_its_kind_and_no_others() -> None:
    ledger = started()
    assert ledger.admit(body(id=1, method="shutdown")) == {
        "jsonrpc": "2.0", "id": 1, "method": "shutdown", "params": None,
    }  # fmt: skip
    assert ledger.settle(1)
    both = body(id=1, method="a/method", params={}, error={"code": 1, "message": ""}, result=7, extra="x")
    assert started().admit(both) == {"jsonrpc": "2.0", "id": 1, "method": "a/method", "params": {}}
    assert started().admit(body(method="a/note", error=1)) == {"jsonrpc": "2.0", "method": "a/note", "params": None}


def test_json_that_is_odd_but_sound_is_read() -> None:
    ledger = started()
    plain = b'{"jsonrpc":"2.0","id":%d,"method":"a/method","params":{"a":1}}'
    for number, text in enumerate((b"\xef\xbb\xbf" + plain, b" \r\n\t" + plain + b"\n")):
        message = ledger.admit(text % number)
        assert isinstance(message, dict)
        assert message["params"] == {"a": 1}
    message = ledger.admit(b'{"jsonrpc":"2.0","id":5,"id":6,"method":"a/method","params":{"a":1,"a":"\\ud83d"}}')
    assert isinstance(message, dict)
    assert (message["id"], message["params"]) == (6, {"a": "\ud83d"})  # of equal keys the last one counts
    message = ledger.admit(b'{"jsonrpc":"2.0","id":7,"method":"a/method","params":{"a":"\xed\xa0\xbd","b":1e999}}')
    assert isinstance(message, dict)
    assert message["params"] == {"a": "\ud83d", "b": float("inf")}
    huge = ledger.admit(b'{"jsonrpc":"2.0","id":1' + b"0" * 4_000 + b',"method":"a/method"}')
    assert isinstance(huge, dict)
    assert huge["id"] == 10**4_000


def test_initialize_that_failed_may_be_sent_again() -> None:
    ledger = Ledger()
    ledger.admit(request("initialize", 1))
    assert ledger.settle(1, failed=True)
    refusal = ledger.admit(request("shutdown", 2))
    assert isinstance(refusal, Refusal)
    assert refusal.code == NOT_INITIALIZED
    assert isinstance(ledger.admit(request("initialize", 3)), dict)
    assert ledger.settle(3)
    ledger.admit(request("a/method", 4))
    assert ledger.settle(4, failed=True)
    assert ledger.initialized


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        (body(id="ours", result=None), True),
        (body(id="ours", result={}), True),
        (body(id="ours", error={"code": 1, "message": ""}), True),
        (body(id=1, result=None), False),  # the client's own request, which is open
        (body(id="never asked", result=None), False),
        (body(result=None), False),
        (body(id=[1], result=None), False),
        (body(id={}, result=None), False),
        (body(id=None, error={"code": 1, "message": ""}), False),
        (body(method="$/progress", params="all"), False),
    ],
)
def test_replies_to_what_we_asked_pass_once_and_what_asks_for_no_reply_gets_none(message: bytes, passes: bool) -> None:
    ledger = started()
    ledger.admit(request("a/method", 1))
    ledger.ask("ours")
    found = ledger.admit(message)
    assert isinstance(found, dict) if passes else found is None
    assert ledger.admit(message) is None


@pytest.mark.parametrize(
    "error", [7, "text", [], {}, {"code": "1", "message": ""}, {"code": 1}, {"code": True, "message": ""}]
)
def test_an_error_reply_that_is_malformed_is_an_error_reply_still(error: Any) -> None:
    ledger = started()
    ledger.ask("ours")
    found = ledger.admit(body(id="ours", error=error))
    assert isinstance(found, dict)
    assert found["error"]["code"] == INTERNAL_ERROR


def test_a_cancel_passes_only_for_a_request_that_is_open() -> None:
    ledger = started()
    ledger.admit(request("a/method", 1))
    ledger.ask("ours")
    assert isinstance(ledger.admit(body(method="$/cancelRequest", params={"id": 1})), dict)
    for params in ({"id": 2}, {"id": "1"}, {"id": "ours"}, {"id": None}, {"id": 1.0}, {"id": True}, {}, [1], None):
        assert ledger.admit(body(method="$/cancelRequest", params=params)) is None
    ledger.settle(1)
    assert ledger.admit(body(method="$/cancelRequest", params={"id": 1})) is None


def test_an_encoded_message_can_be_read_back_whatever_it_says() -> None:
    message = {"text": "\u00e9\U0001f600\ud800\r\nContent-Length: 3\r\n\r\n"}
    (found,) = list(Framer().feed(encode(message)))
    assert isinstance(found, bytes)
    assert json.loads(found) == message
