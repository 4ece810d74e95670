"""Sessions as editors send them, ways to spoil them, and what a server must answer to what is left."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.harness.editor import capability_names, load_client

Message = dict[str, Any]

URI = "file:///project/module.py"
PARSE, INVALID, UNKNOWN, PARAMS, EARLY, CANCELLED = -32700, -32600, -32601, -32602, -32002, -32800
RESULT = 0  # stands for a reply without an error
CODES = frozenset({PARSE, INVALID, UNKNOWN, PARAMS, EARLY, CANCELLED})

DEEP = "@deep@"
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 9, 2**31 - 1, 2**31, 2**53, 2**64, -(2**63), 10**30, 0.5, 1e308, "", "x", "1", "\ud83d",
    "\u0000", "y" * 5_000, URI, [], [None], [[]], {}, {"uri": None}, {"line": 0}, {"kind": "snippet"}, DEEP,
)  # fmt: skip
COMMANDS = frozenset({"starfill.status"})


def recorded(random: Random) -> list[Message]:
    """One editor's session from initialize to exit, with some variety; every message sound."""
    client = load_client(random.choice(capability_names()))
    ids = iter(range(1, 100))
    text = "".join(
        random.choice(("x = 1\n", "s = '😀é'\r\n", "\fdef f():\r", "    return \u2028y\n")) for _ in range(6)
    )

    def request(method: str, params: Any = None) -> Message:
        return {"jsonrpc": "2.0", "id": next(ids), "method": method, "params": params}

    def note(method: str, params: Any = None) -> Message:
        return {"jsonrpc": "2.0", "method": method, "params": params}

    def at() -> Message:
        return {"line": random.randrange(8), "character": random.randrange(12)}

    document = {"uri": URI, "languageId": "python", "version": 1, "text": text}
    messages = [
        request("initialize", {"processId": None, "rootUri": "file:///project", "workspaceFolders": None, **client}),
        note("initialized", {}),
        note("textDocument/didOpen", {"textDocument": document}),
    ]
    for version in range(2, 2 + random.randrange(1, 5)):
        place = at()
        changes: list[Message] = []
        if random.random() < 0.15:
            changes.append({"text": "y = 2\n" * random.randrange(5)})
        changes.append({"range": {"start": place, "end": place}, "rangeLength": 0, "text": random.choice("ab \n\r😀")})
        named = {"uri": URI, "version": version}
        messages.append(note("textDocument/didChange", {"textDocument": named, "contentChanges": changes}))
        where: Message = {"textDocument": {"uri": URI}, "position": at()}
        inline: Message = {**where, "context": {"triggerKind": random.choice((1, 2))}}
        if random.random() < 0.3:
            inline["partialResultToken"] = f"token-{version}"
        messages.append(request("textDocument/inlineCompletion", inline))
        if random.random() < 0.3:
            messages.append(note("$/cancelRequest", {"id": messages[-1]["id"]}))
        if random.random() < 0.4:
            messages.append(request("textDocument/completion", {**where, "context": {"triggerKind": 1}}))
    messages += [
        note("textDocument/didSave", {"textDocument": {"uri": URI}}),
        note("workspace/didChangeConfiguration", {"settings": {"starfill": {"max_tokens": 32}}}),
        note("$/setTrace", {"value": "off"}),
        note("$/somebodyElses", {"a": [1]}),
        request("workspace/executeCommand", {"command": "starfill.status", "arguments": []}),
        request("no/suchMethod", {"a": 1}),
        note("textDocument/didShowCompletion", {"item": {"insertText": "a", "command": {"arguments": ["1"]}}}),
        note("workspace/didChangeWorkspaceFolders", {"event": {"added": [], "removed": []}}),
        note("window/workDoneProgress/cancel", {"token": "nobody's"}),
        note("textDocument/didClose", {"textDocument": {"uri": URI}}),
    ]
    if random.random() < 0.5:
        messages.append(request("shutdown"))
        if random.random() < 0.5:
            messages.append(note("exit"))
    return messages


# Mutations of messages


def _paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        if key != "capabilities":  # five hundred leaves that would take all the mutations
            yield (*before, key)
            yield from _paths(inner, (*before, key))


def _holder(message: Message, path: tuple[Any, ...]) -> Any:
    inner: Any = message
    for key in path[:-1]:
        inner = inner[key]
    return inner


def drop(messages: list[Message], random: Random) -> None:
    del messages[random.randrange(len(messages))]


def duplicate(messages: list[Message], random: Random) -> None:
    messages.insert(random.randrange(len(messages) + 1), copy.deepcopy(random.choice(messages)))


def reorder(messages: list[Message], random: Random) -> None:
    messages.insert(random.randrange(len(messages)), messages.pop(random.randrange(len(messages))))


def change_a_field(messages: list[Message], random: Random) -> None:
    message = random.choice(messages)
    if paths := list(_paths(message)):
        path = random.choice(paths)
        _holder(message, path)[path[-1]] = copy.deepcopy(random.choice(ODD))


def remove_a_field(messages: list[Message], random: Random) -> None:
    message = random.choice(messages)
    if paths := [path for path in _paths(message) if isinstance(path[-1], str)]:
        path = random.choice(paths)
        del _holder(message, path)[path[-1]]


def add_a_field(messages: list[Message], random: Random) -> None:
    message = random.choice(messages)
    message[random.choice(("error", "result", "id", "extra"))] = copy.deepcopy(random.choice(ODD))


def misplace(messages: list[Message], random: Random) -> None:
    """Positions inside surrogate pairs and line ends, past the end, before the start."""
    for message in messages:
        for path in list(_paths(message)):
            if path[-1] in ("line", "character") and random.random() < 0.4:
                _holder(message, path)[path[-1]] = random.choice((-1, 0, 1, 2, 3, 5, 6, 7, 99, 2**31 - 1, 2**31))


def answer_what_nobody_asked(messages: list[Message], random: Random) -> None:
    reply = {"jsonrpc": "2.0", "id": random.choice((1, 2, 3, "x", None)), "result": random.choice(ODD)}
    messages.insert(random.randrange(len(messages) + 1), reply)


OF_MESSAGES: tuple[Callable[[list[Message], Random], None], ...] = (
    drop, duplicate, reorder, change_a_field, change_a_field, change_a_field, remove_a_field, add_a_field, misplace,
    answer_what_nobody_asked,
)  # fmt: skip


# Mutations of bytes


def flip(data: bytearray, random: Random) -> None:
    for _ in range(random.randrange(1, 4)):
        data[random.randrange(len(data))] = random.randrange(256)


def cut(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    del data[at : at + random.choice((1, 2, 10, 200))]


def repeat(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    data[at:at] = data[at : at + random.choice((1, 2, 10, 200))]


def insert_junk(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    data[at:at] = random.choice(
        (b"\xef\xbb\xbf", b"\r\n\r\n", b"junk\r\n", b"[]", b"\x00" * 50, b"Content-Length: 3\r\n\r\n", b"NaN", b"\xff")
    )


OF_BYTES: tuple[Callable[[bytearray, Random], None], ...] = (flip, flip, cut, repeat, insert_junk)


def to_bytes(message: Any) -> bytes:
    """A frame; `DEEP` becomes three thousand brackets."""
    body = json.dumps(message).encode().replace(json.dumps(DEEP).encode(), b"[" * 3_000 + b"]" * 3_000)
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


@dataclass(slots=True)
class Spoilt:
    """One session. `expected` has, by id, what each request with it may be answered; None where bytes were spoilt too."""

    data: bytes
    expected: dict[str, list[set[int]]] | None
    leaves: bool = False  # an exit gets through
    states: set[str] = field(default_factory=set)  # what the server may think at the end: early, open, over


def spoil(seed: int) -> Spoilt:
    """A session of its own for each seed: half of them with spoilt messages, half with spoilt bytes besides."""
    random = Random(seed)
    messages = recorded(random)
    for _ in range(random.randrange(1, 6)):
        if messages:
            random.choice(OF_MESSAGES)(messages, random)
    data = bytearray(b"".join(map(to_bytes, messages)))
    if random.random() < 0.5 and data:
        for _ in range(random.randrange(1, 4)):
            random.choice(OF_BYTES)(data, random)
        return Spoilt(bytes(data), None, states={"early", "open", "over"})
    judge = _Judge()
    judge.watch(messages)
    return Spoilt(bytes(data), judge.expected, judge.leaves, judge.states)


# What must be answered, by the protocol's words and without the server's code


class _Judge:
    def __init__(self) -> None:
        self.expected: dict[str, list[set[int]]] = {}
        self.states = {"early"}
        self.leaves = False
        self._cancels = False
        self._completion = False

    def watch(self, messages: list[Message]) -> None:
        # shutdown cancels what is under way
        self._cancels = any(message.get("method") in ("$/cancelRequest", "shutdown") for message in messages)
        for message in messages:
            if _is_exit(message):
                self.leaves = True
                return
            self._one(message)

    def _one(self, message: Message) -> None:
        request_id = message.get("id")
        if type(request_id) not in (int, str) or DEEP in (request_id, message.get("method")):
            return
        if _holds_deep(message):
            return  # too deep to be read: its id is unknown to the server
        if "method" not in message and message.get("jsonrpc") == "2.0" and {"result", "error"} & set(message):
            return
        earlier = self.expected.setdefault(json.dumps(request_id), [])
        allowed = self._allowed(message)
        if earlier:
            allowed = allowed | {INVALID}
        earlier.append(allowed)
        if "shutdown" in (message.get("method"),) and RESULT in allowed:
            self.states = {"over"} if allowed == {RESULT} else self.states | {"over"}

    def _allowed(self, message: Message) -> set[int]:
        method, params = message.get("method"), message.get("params")
        if message.get("jsonrpc") != "2.0" or not isinstance(method, str) or not isinstance(params, dict | list | None):
            return {INVALID}
        allowed: set[int] = set()
        if "early" in self.states:
            if method == "initialize":
                allowed |= {RESULT} if isinstance(params, dict) and _untouched(params) else {RESULT, PARAMS}
                self.states = (self.states - {"early"}) | ({"open"} if allowed == {RESULT} else {"open", "early"})
                return allowed | ({INVALID} if self.states - {"open", "early"} else set())
            allowed.add(EARLY)
        if "over" in self.states:
            allowed.add(INVALID)
        if "open" in self.states:
            allowed |= self._while_open(method, params)
        return allowed

    def _while_open(self, method: str, params: Any) -> set[int]:
        if method == "initialize":
            return {INVALID}
        if method == "shutdown":
            return {RESULT}
        if method == "textDocument/completion":
            # Offered or not, by what the client said of itself.
            context = {PARAMS} if _placed(params) and params.get("context") != {"triggerKind": 1} else set()
            return {UNKNOWN, RESULT, CANCELLED} | context if _placed(params) else {UNKNOWN, PARAMS}
        if method == "textDocument/inlineCompletion":
            if not _placed(params) or not isinstance(params.get("context"), dict):
                return {PARAMS}
            if type(params["context"].get("triggerKind")) is not int or params["context"]["triggerKind"] not in (1, 2):
                return {PARAMS, RESULT, CANCELLED}
            return {RESULT, CANCELLED} if self._cancels else {RESULT}
        if method == "workspace/executeCommand":
            command = params.get("command") if isinstance(params, dict) else None
            return {RESULT, PARAMS} if isinstance(command, str) and command in COMMANDS else {PARAMS}
        return {RESULT, PARAMS, UNKNOWN} if method in _KNOWN_NOTES else {UNKNOWN}


_KNOWN_NOTES = frozenset(
    {
        "initialized", "exit", "textDocument/didOpen", "textDocument/didChange", "textDocument/didClose", "$/setTrace",
        "textDocument/didSave", "workspace/didChangeConfiguration", "workspace/didChangeWorkspaceFolders",
        "window/workDoneProgress/cancel", "textDocument/didShowCompletion", "$/cancelRequest",
    }
)  # fmt: skip
"""Notifications that may come with an id by mutation: answered they must be, with what is the server's own business."""


def _is_exit(message: Message) -> bool:
    sound = message.get("jsonrpc") == "2.0" and isinstance(message.get("params"), dict | list | None)
    return sound and message.get("method") == "exit" and "id" not in message


def _holds_deep(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_deep, value.values()))
    if isinstance(value, list):
        return any(map(_holds_deep, value))
    return bool(value == DEEP)


def _untouched(params: Message) -> bool:
    """Whether what matters of initialize is as every editor sends it."""
    known = {"processId", "rootUri", "workspaceFolders", "clientInfo", "locale", "trace", "capabilities"}
    client = params.get("clientInfo")
    return (
        set(params) <= known
        and isinstance(params.get("capabilities"), dict)
        and params.get("rootUri") == "file:///project"
        and all(params.get(key, 0) is None for key in ("workspaceFolders", "processId"))
        and isinstance(client, dict)
        and isinstance(client.get("name"), str)
        and all(isinstance(params.get(key, ""), str) for key in ("locale", "trace"))
        and params.get("trace", "off") in ("off", "messages", "verbose")
        and isinstance(client.get("version", ""), str)
    )


def _placed(params: Any) -> bool:
    if not isinstance(params, dict):
        return False
    document, position = params.get("textDocument"), params.get("position")
    if not isinstance(document, dict) or not isinstance(document.get("uri"), str) or not isinstance(position, dict):
        return False
    return all(type(n) is int and 0 <= n < 2**31 for n in (position.get("line"), position.get("character")))
