"""Whatever a file holds: it is refused with CheckpointError, or is what the library of the format reads in it."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from engine.checkpoint.header import ITEM_BITS, read_header
from engine.checkpoint.json_file import JsonLimits, parse_object
from engine.checkpoint.vocabulary import read_vocabulary
from engine.errors import CheckpointError
from tests.harness.bpe import tokenizer_json

GOOD = save(
    {"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16), "c": torch.zeros(0, 5)}, {"format": "pt"}
)
HEADER = 8 + int.from_bytes(GOOD[:8], "little")

SIGNS = [bytes([sign]) for sign in b'"{}[],:0-9.e\\ ']
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "delete", "cut"]),
        st.integers(0, HEADER + 8),
        st.sampled_from(SIGNS) | st.binary(min_size=1, max_size=2),
    ),
    min_size=1,
    max_size=4,
)


def _edited(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for kind, at, what in edits:
        rest = {"set": data[at + len(what) :], "insert": data[at:], "delete": data[at + 1 :], "cut": b""}[kind]
        data = data[:at] + (what if kind in ("set", "insert") else b"") + rest
    return data


def _read(data: bytes) -> dict[str, tuple[int, ...]] | None:
    try:
        found = read_header(io.BytesIO(data), Path("m.safetensors"), len(data))
    except CheckpointError as refused:
        assert str(refused).isprintable()
        assert str(refused).startswith("m.safetensors: ")
        return None
    return {name: info.shape for name, info in found.items()}


def _as_the_library_reads(data: bytes) -> dict[str, tuple[int, ...]]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with safe_open(file.name, "pt") as handle:
            return {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118


@settings(max_examples=400, deadline=None)
@given(EDITS)
def test_an_edited_header_is_refused_or_read_as_the_library_reads_it(edits: list[tuple[str, int, bytes]]) -> None:
    data = _edited(GOOD, edits)
    ours = _read(data)
    if ours is not None:
        assert ours == _as_the_library_reads(data)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(ITEM_BITS)), st.lists(st.integers(0, 4), max_size=3), st.integers(-2, 2)),
        max_size=4,
    ),
    st.integers(-2, 2),
)
def test_a_made_up_header_is_refused_where_the_library_refuses_it(
    tensors: list[tuple[str, list[int], int]], surplus: int
) -> None:
    """Tensors in a row, each begun a little early or late, and a file a little too short or long."""
    at, header = 0, {}
    for number, (dtype, shape, shift) in enumerate(tensors):
        size = ITEM_BITS[dtype] // 8
        for axis in shape:
            size *= axis
        header[f"t{number}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at + shift, at + shift + size]}
        at += size
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(max(0, at + surplus))
    ours = _read(data)
    try:
        theirs = _as_the_library_reads(data)
    except SafetensorError:
        assert ours is None
    else:
        assert ours == theirs


NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=5))
def test_json_within_limits_is_read_as_it_was_meant(value: dict[str, Any]) -> None:
    limits = JsonLimits(size=2**16, values=1_000)
    for ascii_only in (True, False):
        data = json.dumps(value, ensure_ascii=ascii_only).encode()
        assert parse_object(data, Path("x.json"), limits) == value


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='{}[]",:\\ 0a', max_size=60))
def test_json_is_refused_where_the_standard_library_refuses_it(text: str) -> None:
    limits = JsonLimits(size=2**16, values=1_000, depth=3)
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    said = _refusal(text, limits)
    if isinstance(value, dict) and _depth(value) <= limits.depth:
        assert not said or "stands there twice" in said
    else:
        assert said


def _refusal(text: str, limits: JsonLimits) -> str:
    try:
        parse_object(text.encode(), Path("x.json"), limits)
    except CheckpointError as refused:
        return str(refused)
    return ""


def _depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(place for key in list(keys)[:6] for place in _places(value[key], (*path, key)))]


_SOURCE: dict[str, Any] = json.loads(tokenizer_json())
_PLACES = [place for place in _places(_SOURCE) if place]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizer")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(_PLACES), VALUES)
def test_a_tokenizer_with_anything_anywhere_is_refused_or_sound(
    folder: Path, place: tuple[Any, ...], value: object
) -> None:
    source = json.loads(tokenizer_json())
    at: Any = source
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    (folder / "tokenizer.json").write_text(json.dumps(source))
    try:
        file = read_vocabulary(folder)
    except CheckpointError as refused:
        assert str(refused).isprintable()
        return
    assert _no_two_share_an_id(file.vocab, file.control)
    _library_reads(file.for_library, file.size)


def _no_two_share_an_id(vocab: Any, control: Any) -> bool:
    both = dict(vocab) | dict(control)
    return len(set(both.values())) == len(both)


def _library_reads(written: Callable[[], str], size: int) -> None:
    import tokenizers

    read = tokenizers.Tokenizer.from_str(written())
    assert max(read.get_vocab(with_added_tokens=True).values()) == size - 1
