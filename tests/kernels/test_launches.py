"""How much a step asks of the device: launches are recorded on the meta device, where nothing runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton")

from engine.cuda.buckets import Bucket
from engine.cuda.graphs import HostDevice
from engine.cuda.passes import once
from engine.cuda.places import Place
from engine.gpt_bigcode import GPTBigCode, Layer, ModelShape, Weights
from engine.ops import Head, Linear, Norm, Ops
from engine.step import Span
from triton_kernels.family import cases
from triton_kernels.launch import recorded
from triton_kernels.ops import TritonOps

# Allocation and views cost the device nothing.
FREE = {"empty", "new_empty", "empty_strided", "view", "slice", "select", "as_strided", "detach", "alias", "unsqueeze"}


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what torch itself would launch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        name = func.__name__.partition(".")[0]
        on_device = any(isinstance(part, torch.Tensor) and part.is_meta for part in (answer, *args))
        if on_device and name not in FREE:
            self.calls[name] += 1
        return answer


def model(ops: Ops, layers: int = 3, *, multi_query: bool = True) -> GPTBigCode:
    shape = ModelShape(layers, 2048, 16, 8192, 8192, 49152, multi_query, False, True, 1e-5)
    d, kv = shape.n_embd, 2 * shape.kv_heads * shape.head_dim

    def empty(*size: int) -> torch.Tensor:
        return torch.empty(*size, dtype=torch.bfloat16, device="meta")

    def linear(outputs: int, inputs: int) -> Linear:
        return Linear(empty(outputs, inputs), empty(outputs))

    norm = Norm(empty(d), empty(d), 1e-5)
    layer = Layer(norm, linear(d + kv, d), linear(d, d), norm, linear(4 * d, d), linear(d, 4 * d))
    wte = empty(49152, d)
    return GPTBigCode(shape, Weights(wte, empty(8192, d), (layer,) * layers, norm, wte), ops)


def step(lengths: Sequence[int], *, multi_query: bool = True, layers: int = 3) -> tuple[list[str], Counter[str]]:
    """-> (our launches, torch's calls) of one step."""
    # Typed as the engine would: TritonOps is an Ops, or mypy says no.
    ops: Ops = TritonOps(Head)
    tested = model(ops, layers, multi_query=multi_query)
    kv = tested.new_kv(4, 8192)
    spans = [Span(slot, 2000, length) for slot, length in enumerate(lengths)]
    ids = torch.empty(sum(lengths), dtype=torch.int64, device="meta")
    rows = torch.empty(len(lengths), dtype=torch.int64, device="meta")
    with recorded(dry=True):
        tested.forward(ids[:1], ids[:1], [Span(0, 0, 1)], kv, rows[:1])
    with recorded(dry=True) as launches, Counting() as counting:
        head = tested.forward(ids, ids, spans, kv, rows)
    assert head is not None
    assert head.ids.shape == (len(lengths),)
    return [launch.name for launch in launches], counting.calls


@pytest.mark.parametrize("multi_query", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_one_token_takes_five_launches_a_layer_and_three(layers: int, multi_query: bool) -> None:
    ours, torchs = step([1], multi_query=multi_query, layers=layers)
    copies = torchs.pop("to")
    assert copies == 1, "the spans go to the device once a step"
    assert dict(torchs) == {"index": 1}, "the engine's own choice of rows to predict from"
    assert len(ours) + 1 <= 5 * layers + 3
    assert ours == ["embed", *["gemv", "attend_kernel", "gemv", "gemv", "gemv"] * layers, "head_one"]


@pytest.mark.parametrize("lengths", [[4], [1, 1, 2]])
def test_up_to_four_tokens_take_as_few(lengths: list[int]) -> None:
    ours, _ = step(lengths)
    assert len(ours) + 1 <= 5 * 3 + 3


@pytest.mark.parametrize("lengths", [[8], [16], [1] * 4, [5, 1, 1, 1]])
def test_up_to_sixteen_tokens_use_only_our_kernels(lengths: list[int]) -> None:
    ours, torchs = step(lengths)
    assert set(torchs) == {"to", "index"}
    assert len(ours) + 1 <= 7 * 3 + 4


@pytest.mark.parametrize("lengths", [[17], [600, 1]])
def test_many_tokens_leave_the_products_to_torch(lengths: list[int]) -> None:
    ours, torchs = step(lengths)
    layer = ["layer_norm", "append", "attend_kernel", "layer_norm"]
    assert ours[: 1 + len(layer) * 3] == ["embed", *layer * 3]
    assert torchs["linear"] == 4 * 3


class Nowhere(HostDevice):
    """Buffers on the meta device."""

    device = torch.device("meta")


@pytest.mark.parametrize("layers", [1, 24])
@pytest.mark.parametrize(
    ("bucket", "most"),
    [
        (Bucket(1, 2048, follows=True), 3),
        (Bucket(1, 8192, drawn=True, follows=True), 3),
        (Bucket(1, 8192, masked=True), 2),
        (Bucket(4, 4096), 2),
        (Bucket(4, 4096, drawn=True, narrowed=True), 4),
    ],
    ids=["greedy", "drawn", "masked", "guesses", "filtered"],
)
def test_a_captured_pass_takes_five_launches_a_layer_and_three(bucket: Bucket, most: int, layers: int) -> None:
    """From token ids to token ids, the step to the next token included, and nothing of torch's."""
    tested = model(TritonOps(Head), layers)
    place, kv = Place(bucket, tested.shape.vocab_size, Nowhere()), tested.new_kv(2, 8192)
    with recorded(dry=True):
        once(tested, place, kv)  # scratch memory grows
    with recorded(dry=True) as launches, Counting() as counting:
        ids, logprobs = once(tested, place, kv)
    assert ids.shape == logprobs.shape == (bucket.rows,)
    assert len(launches) == 5 * layers + most
    assert not counting.calls


def test_every_kernel_of_a_captured_pass_waits_for_the_one_before_it() -> None:
    kernels = {case.launch.name: case.launch.kernel for case in cases(90)}
    assert len(kernels) >= 11
    for name, kernel in kernels.items():
        assert "DEPENDENT" in kernel.arg_names, name
        assert kernel.src.count("DEPENDENT") > 1, name


def test_recording_ends_with_its_block() -> None:
    with recorded(dry=True) as outer:
        with recorded(dry=True) as inner:
            TritonOps(Head).embed(*torch.empty(2, 1, device="meta").long(), *torch.empty(2, 9, 8, device="meta"))
        assert len(inner) == len(outer) == 1
        TritonOps(Head).embed(*torch.empty(2, 1, device="meta").long(), *torch.empty(2, 9, 8, device="meta"))
    assert len(inner) == 1
    assert len(outer) == 2
