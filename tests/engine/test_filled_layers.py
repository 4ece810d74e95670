"""Layers that are given their rows as they come from a file: the layer of the whole weight, bit for bit."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine import blocked, packed
from engine.checkpoint.config import read_config
from engine.checkpoint.loader import load_model
from engine.checkpoint.reading import TensorReader
from engine.checkpoint.table import read_table
from engine.errors import CheckpointError
from engine.filling import FilledBlocks, FilledInt8, another
from engine.packed import BlockedLinear
from engine.precision import DENSE, NAMES, Precision
from tests.harness.checkpoints import make_checkpoint
from tests.harness.inprocess import InProcessEngine

SHAPES = [(64, 64), (33, 40), (801, 128), (7, 352), (1030, 96), (130, 25)]
INT4_SHAPES = [shape for shape in SHAPES if shape[1] % 32 == 0]


def _precision(name: str) -> Precision:
    return Precision(name, torch.device("cpu"), DENSE.get(name, torch.bfloat16), "the test's")


def _parts(outputs: int, inputs: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    return weight, torch.randn(outputs, generator=generator), torch.randn(9, inputs, generator=generator)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_a_filled_layer_multiplies_as_the_one_made_of_the_whole_weight(name: str, outputs: int, inputs: int) -> None:
    precision = _precision(name)
    like, bias, x = _parts(outputs, inputs, 1)
    weight = _parts(outputs, inputs, 2)[0]
    new = another(precision.linear("like", like, bias), like)
    if new is None:
        assert name == "float16" or inputs % 32, "these are made piece by piece wherever their kernels are"
        return
    filling = new()
    for first in range(0, outputs, filling.rows):
        filling.put(first, weight[first : first + filling.rows])
    filled = filling.layer(bias.to(precision.dtype))
    whole = precision.linear("whole", weight, bias)
    assert type(filled) is type(whole)
    for rows in (1, 4, 9):
        given = x[:rows].to(precision.dtype)
        assert torch.equal(filled(given), whole(given))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_blocks_are_onednns_own(outputs: int, inputs: int, dtype: torch.dtype, stored: torch.dtype) -> None:
    if not packed.works(dtype) or blocked.lanes(dtype) is None:
        pytest.skip(f"no blocked product in {dtype} here, or in another order")
    weight = _parts(outputs, inputs, 3)[0].to(stored)
    theirs = blocked.blocked(weight.to(dtype))
    order = blocked.order_of(theirs, weight.to(dtype))
    assert order is not None
    ours = blocked.Blocked(order)
    ours.put(0, weight)
    described = ours.weight()
    assert (described.shape, blocked.size(described)) == (theirs.shape, len(ours.memory))
    assert blocked.address(described) == ours.memory.data_ptr()
    assert torch.equal(ours.memory, blocked._bytes_of(theirs))


def test_a_layer_keeps_the_memory_that_its_weight_is_in() -> None:
    if not packed.works(torch.float32) or not blocked.describable():
        pytest.skip("weights are blocked by oneDNN alone here")
    weight, bias, x = _parts(1030, 512, 4)
    order = blocked.order_of(blocked.blocked(weight), weight)
    assert order is not None
    filling = FilledBlocks(order)
    filling.put(0, weight)
    layer = filling.layer(bias)
    expected = layer(x)
    del filling
    gc.collect()
    others = [torch.full((1030, 512), float("nan")) for _ in range(8)]
    assert torch.equal(layer(x), expected) and len(others) == 8


def test_an_order_that_is_not_as_expected_is_left_to_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    if not packed.works(torch.float32):
        pytest.skip("no blocked product here")
    weight, bias, _ = _parts(128, 64, 5)
    made = packed.dense(weight, bias)
    assert isinstance(made, BlockedLinear)
    assert another(made, weight.flip(0)) is None, "the weight is not what the layer was made of"
    monkeypatch.setattr(blocked, "describable", lambda: False)
    assert another(made, weight) is None


@pytest.mark.parametrize(
    ("name", "missing"), [("float32", "order"), ("float32", "description"), ("bfloat16", "description")]
)
def test_without_our_own_blocking_the_tokens_are_the_same(
    tmp_path: Path, name: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_checkpoint(tmp_path / "m", n_layer=3)
    prompt = list(range(30, 90))
    expected = InProcessEngine.of(directory, dtype=name).complete(prompt=prompt, max_tokens=12).ids
    if missing == "order":
        monkeypatch.setattr(blocked, "lanes", lambda dtype: None)
    else:
        monkeypatch.setattr(blocked, "describable", lambda: False)
    monkeypatch.setattr(FilledBlocks, "put", None)
    assert InProcessEngine.of(directory, dtype=name).complete(prompt=prompt, max_tokens=12).ids == expected


def test_a_table_is_quantised_row_by_row() -> None:
    weight = _parts(801, 64, 6)[0]
    filling = FilledInt8(801, 64)
    for first in range(0, 801, 100):
        filling.put(first, weight[first : first + 100])
    whole = _precision("int8").table(weight)
    assert not isinstance(whole, Tensor)
    assert torch.equal(filling.table().values, whole.values) and torch.equal(filling.table().scales, whole.scales)


def test_the_order_of_four_bits_is_torchs() -> None:
    if not packed.works("int4"):
        pytest.skip("no int4 product here")
    generator = torch.Generator().manual_seed(7)
    for outputs, inputs in ((128, 96), (64, 32), (96, 64)):
        values = torch.randint(16, (outputs, inputs), dtype=torch.uint8, generator=generator)
        theirs = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.int(), 1)
        assert torch.equal(packed._int4_blocks(values), theirs)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_wide_layers_that_come_in_several_pieces_are_whole(tmp_path: Path, name: str, stored: torch.dtype) -> None:
    directory = make_checkpoint(tmp_path / "m", n_head=8, n_embd=1024, n_positions=64, shards=2, dtype=stored)
    precision, config = _precision(name), read_config(directory)
    model = load_model(directory, config, precision.ops, precision)
    table = read_table(directory)
    x = torch.randn(5, 4096, generator=torch.Generator().manual_seed(1)).to(precision.dtype)
    with TensorReader(directory, table, precision) as read:
        pieces = len(list(read.pieces("transformer.h.1.mlp.c_fc.weight", 64)))
        assert pieces > 3
        for number, layer in enumerate(model.weights.layers):
            for part, filled in (("attn.c_attn", layer.qkv), ("mlp.c_fc", layer.fc), ("mlp.c_proj", layer.mlp_proj)):
                weight, bias = (read.owned(f"transformer.h.{number}.{part}.{kind}") for kind in ("weight", "bias"))
                whole = precision.linear(part, weight, bias)
                given = x[:, : weight.shape[1]].contiguous()
                assert torch.equal(filled(given), whole(given))
        wte = precision.table(read.owned("transformer.wte.weight"))
    ours, theirs = model.weights.wte, wte
    assert type(ours) is type(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_several_threads_load_what_one_loads_and_leave_torchs_threads_as_they_were(
    tmp_path: Path, threads: int
) -> None:
    directory = make_checkpoint(tmp_path / "m", n_layer=3, shards=3)
    precision, config = _precision("bfloat16"), read_config(directory)
    before = torch.get_num_threads()
    later: list[int] = []
    try:
        torch.set_num_threads(threads)
        model = load_model(directory, config, precision.ops, precision)
        assert torch.get_num_threads() == threads
        beginner = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        beginner.start()
        beginner.join()
    finally:
        torch.set_num_threads(before)
    assert later == [threads]
    expected = load_model(directory, config, precision.ops, precision)
    x = torch.randn(5, config.n_embd, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(model.weights.layers, expected.weights.layers, strict=True):
        assert torch.equal(ours.qkv(x), theirs.qkv(x)) and torch.equal(ours.fc(x), theirs.fc(x))


def test_what_fails_meanwhile_ends_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_checkpoint(tmp_path / "m", n_layer=8)
    read: set[str] = set()
    real = TensorReader._read

    def count(self: TensorReader, info: object, at: int, into: memoryview, where: str) -> None:
        read.add(where.rpartition(": ")[2])
        real(self, info, at, into, where)  # type: ignore[arg-type]

    def fail() -> None:
        raise CheckpointError("tokenizer.json: not usable")

    monkeypatch.setattr(TensorReader, "_read", count)
    precision = _precision("float32")
    with pytest.raises(CheckpointError, match="not usable"):
        load_model(directory, read_config(directory), precision.ops, precision, meanwhile=fail)
    assert not any(name.startswith("transformer.h.7.mlp") for name in read)


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_a_file_that_is_cut_while_it_is_read_is_an_error_that_names_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_checkpoint(tmp_path / "m", shards=1)
    file = directory / "model.safetensors"
    table = read_table(directory)
    last = max(table.values(), key=lambda info: info.end)
    monkeypatch.setattr("engine.checkpoint.loader.read_table", lambda _: table)
    with file.open("r+b") as writer:
        writer.truncate(last.begin + 1)
    precision = _precision(name)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .* the file was cut while it was read"):
        load_model(directory, read_config(directory), precision.ops, precision)
