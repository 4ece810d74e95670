"""Which precision is chosen, and what is said when none fits."""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise

import pytest
import torch

from benchmarks.shapes import FAMILY
from engine import packed, precision
from engine.cuda.quantised import quantised
from engine.errors import DeviceError
from engine.gpt_bigcode import ModelShape
from engine.precision import NAMES, choose, memory_needed
from triton_kernels import quantize
from triton_kernels.quantize import Int4Weight, Int8Weight

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SMALL, LARGE = FAMILY["tiny"], FAMILY["1b"]
MIB = 2**20


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_for_is_what_is_chosen(name: str) -> None:
    chosen = choose(name, CPU, SMALL, None)
    assert chosen.name == name
    assert chosen.reason == f"--dtype {name}"
    assert chosen.dtype == {"float32": torch.float32, "float16": torch.float16}.get(name, torch.bfloat16)


def test_auto_takes_float32_for_small_models_and_bfloat16_for_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "works", lambda kernel: True)
    small, large = choose("auto", CPU, SMALL, None), choose("auto", CPU, LARGE, None)
    assert (small.name, large.name) == ("float32", "bfloat16")
    assert "million parameters" in small.reason
    assert "too many for float32" in large.reason


def test_auto_does_without_bfloat16_where_it_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "works", lambda kernel: kernel != torch.bfloat16)
    assert choose("auto", CPU, LARGE, None).name == "float32"


@pytest.mark.parametrize(
    ("shape", "order"), [(SMALL, ("float32", "bfloat16", "int8", "int4")), (LARGE, ("bfloat16", "int8", "int4"))]
)
def test_auto_takes_what_fits_and_says_what_did_not(
    shape: ModelShape, order: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "works", lambda kernel: True)
    for better, name in pairwise(order):
        chosen = choose("auto", CPU, shape, memory_needed(shape, better, CPU) - 1)
        assert chosen.name == name
        assert chosen.reason.startswith(f"auto: {order[0]} needs ")


def test_a_precision_that_does_not_fit_is_refused_and_one_that_does_is_named() -> None:
    free = memory_needed(LARGE, "int8", CPU) + MIB
    with pytest.raises(
        DeviceError, match=r"--dtype float32: .* needs .* in float32 on cpu, .* are free; --dtype int8 needs"
    ):
        choose("float32", CPU, LARGE, free)


def test_a_model_that_fits_in_no_precision_is_refused_with_a_remedy() -> None:
    with pytest.raises(DeviceError, match=r"even int4 needs .*: end other programs, choose a smaller model"):
        choose("auto", CPU, LARGE, 100 * MIB)


def test_what_a_device_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(DeviceError, match="--dtype int8: mps computes in float32, bfloat16, float16"):
        choose("int8", torch.device("mps"), LARGE, None)
    with pytest.raises(
        DeviceError, match=re.escape(f"--dtype fp8: no such precision; choose auto or one of {', '.join(NAMES)}")
    ):
        choose("fp8", CPU, LARGE, None)


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_an_old_gpu_computes_in_float16_whatever_its_weights_are_in(
    capability: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    for name in ("auto", "int8", "int4"):
        assert choose(name, CUDA, LARGE, None).dtype == dtype


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_layers_for_a_gpu_are_what_its_kernels_read_and_multiply_without_them_too(form: str) -> None:
    """On the CPU, where they are made in the same way."""
    weight, bias = torch.randn(96, 256, dtype=torch.bfloat16), torch.randn(96, dtype=torch.bfloat16)
    layer = quantised(form, weight, bias)
    assert isinstance(layer.weight, Int4Weight if form == "int4" else Int8Weight)
    x = torch.randn(3, 256, dtype=torch.bfloat16)
    expected = x.float() @ layer.weight.dequantize(torch.float32).T + bias.float()
    torch.testing.assert_close(layer(x).float(), expected, rtol=0.02, atol=0.2)
    assert isinstance(quantised("int4", weight[:, :100], bias).weight, Int8Weight)  # four bits do not come out even


def test_a_layer_is_quantised_and_widened_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = torch.randn(96, 256), torch.randn(3, 256)
    whole = quantised("int4", weight, torch.zeros(96))
    monkeypatch.setattr(quantize, "_AT_A_TIME", 256 * 10)
    parts = quantised("int4", weight, torch.zeros(96))
    assert all(torch.equal(a, b) for a, b in zip(whole.weight, parts.weight, strict=True))
    torch.testing.assert_close(parts(x), whole(x))


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_what_is_predicted_for_a_layer_on_a_gpu_is_what_it_takes(form: str) -> None:
    """By two models that differ in one layer."""
    deeper = dataclasses.replace(LARGE, n_layer=LARGE.n_layer + 1)
    d, inner, kv = LARGE.n_embd, LARGE.n_inner, 2 * LARGE.kv_heads * LARGE.head_dim
    layers = [
        quantised(form, torch.zeros(outputs, inputs), torch.zeros(outputs))
        for outputs, inputs in ((d + kv, d), (d, d), (inner, d), (d, inner))
    ]
    predicted = precision.weight_bytes(deeper, form, CUDA) - precision.weight_bytes(LARGE, form, CUDA)
    assert predicted == pytest.approx(sum(part.nbytes for layer in layers for part in layer.weight), rel=0.01)


def test_fewer_bits_need_less_memory() -> None:
    needed = [memory_needed(LARGE, name, CPU) for name in ("float32", "bfloat16", "int8", "int4")]
    assert needed == sorted(needed, reverse=True)
    wider = dataclasses.replace(LARGE, vocab_size=2 * LARGE.vocab_size)
    assert precision.weight_bytes(wider, "int8", CPU) - precision.weight_bytes(LARGE, "int8", CPU) == 49_152 * 2_048


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize(("memory", "expected"), [(48, "bfloat16"), (24, "int8"), (12, "int4")])
def test_the_largest_of_the_family_runs_in_eight_bits_on_24_gb_and_in_four_on_12(
    memory: int, expected: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "works", lambda kernel: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    keys_and_values = 512 * MIB
    chosen = choose("auto", device, FAMILY["15.5b"], memory * 10**9 - keys_and_values)
    assert chosen.name == expected
    if expected != "bfloat16":
        assert chosen.reason.startswith("auto: bfloat16 needs ")


def test_a_model_of_the_family_that_cannot_fit_names_the_largest_that_can() -> None:
    with pytest.raises(DeviceError, match=r"even int4 needs .*choose a smaller model \(\S+ fits in \w+\)"):
        choose("auto", CPU, FAMILY["15.5b"], 4 * 10**9)
