"""Which precisions there are on which device, which one fits, and how each stores what a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine import packed
from engine.cpu_ops import CpuOps
from engine.cuda.quantised import quantised
from engine.errors import DeviceError
from engine.filling import FilledInt8
from engine.gpt_bigcode import ModelShape
from engine.ops import Linear, Ops, TorchOps
from engine.quantization import GROUPS, Int8Rows, quantize_int8
from engine.sizes import human_size
from triton_kernels.quantize import GROUP

SMALL_MODEL = 500_000_000
"""Parameters up to which a model is kept in float32 on a CPU, where it is exact and still quick."""

DENSE = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
QUANTISED = ("int8", "int4")
NAMES = (*DENSE, *QUANTISED)
"""What `--dtype` may say, beside auto."""

_LEAST_ROWS = 4
"""Rows of a floating-point product on a CPU: as quick as fewer, or quicker, and alike in any company."""

_RESERVE = 256 * 2**20
"""Bytes beside weights and KV: torch's libraries, activations, and what the system needs to stay responsive."""


@dataclass(frozen=True, slots=True)
class Precision:
    """How one model is stored and computed on one device.

    `dtype` is that of activations, keys and values; `reason` says why it was chosen, in words for `status`.
    """

    name: str
    device: torch.device
    dtype: torch.dtype
    reason: str

    @property
    def _streamed(self) -> bool:
        """Whether layers have the form that our own kernels read."""
        return self.device.type == "cuda" and self.name in QUANTISED

    @property
    def ops(self) -> Ops:
        """The operations to run with."""
        if self.device.type != "cpu":
            return TorchOps()
        return CpuOps(least_rows=_LEAST_ROWS if self.name in DENSE else 1)

    def linear(self, name: str, weight: Tensor, bias: Tensor) -> Linear:
        """A dense layer's weight [out, in] and bias [out], as read, in the form that it is computed in.

        `name` is the tensor's, for messages. `weight` may be kept, but only where it has that form already.
        """
        bias = bias.to(self.device, self.dtype)
        if self._streamed:
            return quantised(self.name, weight, bias)
        if self.name == "int8":
            return packed.int8(quantize_int8(weight), bias)
        if self.name == "int4":
            return packed.int4(weight, bias, GROUPS[0])
        weight = weight.to(self.device, self.dtype)
        return packed.dense(weight, bias) if self.device.type == "cpu" else Linear(weight, bias)

    def vector(self, tensor: Tensor) -> Tensor:
        """LayerNorm parameters: float32 on a CPU, so that no step converts them; else as the activations."""
        return tensor.to(self.device, torch.float32 if self.device.type == "cpu" else self.dtype)

    def positions(self, weight: Tensor) -> Tensor:
        """The embedding of positions [n_positions, d], never quantised."""
        return weight.to(self.device, self.dtype)

    def table(self, weight: Tensor) -> Tensor | Int8Rows:
        """An embedding [V, d] that is looked up by row; on a CPU int8 where the layers are int8 or int4."""
        if self.device.type == "cpu" and self.name in QUANTISED:
            return quantize_int8(weight)
        return weight.to(self.device, self.dtype)

    def table_filling(self, outputs: int, inputs: int) -> FilledInt8 | None:
        """What makes a `table` of rows as they come, where that is not simply their memory."""
        return FilledInt8(outputs, inputs) if self.device.type == "cpu" and self.name in QUANTISED else None

    def vocabulary(self, table: Tensor | Int8Rows) -> Tensor | Linear:
        """The head's matrix: `table`, or something that multiplies by it fast."""
        if self._streamed and isinstance(table, Tensor):
            return quantised("int8", table, table.new_zeros(len(table)))
        if self.device.type == "cpu" or isinstance(table, Int8Rows):
            return packed.vocabulary(table)
        return table


def choose(name: str, device: torch.device, shape: ModelShape, free_memory: int | None) -> Precision:
    """Resolve `--dtype` for a model on a device with `free_memory` bytes to spare, beside KV (None: nobody can tell).

    Raises DeviceError, before anything is loaded, for a precision that the device does not have or that does not fit,
    and names what would.
    """
    there = offered(device)
    if name != "auto" and name not in NAMES:
        raise DeviceError(f"--dtype {name}: no such precision; choose auto or one of {', '.join(there)}")
    if name != "auto" and name not in there:
        raise DeviceError(f"--dtype {name}: {device.type} computes in {', '.join(there)}; choose one of them, or auto")
    preferred = _preferred(device, shape) if name == "auto" else (name,)
    fitting = [one for one in there if free_memory is None or memory_needed(shape, one, device) <= free_memory]
    chosen = next((one for one in preferred if one in fitting), None)
    if chosen is None:
        raise DeviceError(_does_not_fit(name, device, shape, preferred[0], fitting, free_memory or 0))
    dtype = DENSE[_quickest(device) if chosen in QUANTISED else chosen]
    return Precision(chosen, device, dtype, _reason(name, chosen, preferred[0], device, shape, free_memory))


def weight_bytes(shape: ModelShape, name: str, device: torch.device) -> int:
    """Bytes that a model's weights take in one precision on a device."""
    d, kv = shape.n_embd, 2 * shape.kv_heads * shape.head_dim
    matrices = shape.n_layer * d * ((d + kv) + d + 2 * shape.n_inner)
    table = shape.vocab_size * d
    others = shape.parameters - matrices - table
    if name in DENSE:
        tables = 2 * table if device.type == "cpu" else table  # see `packed.vocabulary`
        return (matrices + tables + others) * DENSE[name].itemsize
    scales = 4 / GROUP if device.type == "cuda" else 4 / GROUPS[0]
    per_weight = 1.0 if name == "int8" else 0.5 + scales
    tables = 3 * table if device.type == "cuda" else table  # there it is looked up in 16 bits, and multiplied with in 8
    return round(matrices * per_weight + tables + 2 * others)


def memory_needed(shape: ModelShape, name: str, device: torch.device) -> int:
    """Bytes that must be free to load and run a model, beside KV: weights, the largest one as it is read, a reserve."""
    largest = shape.n_embd * max(shape.vocab_size, shape.n_inner)
    return weight_bytes(shape, name, device) + 4 * largest + _RESERVE


def offered(device: torch.device) -> tuple[str, ...]:
    """The precisions that a device computes in, the most exact first."""
    return NAMES if device.type in ("cpu", "cuda") else tuple(DENSE)


def _quickest(device: torch.device) -> str:
    """What a device computes in where weights are stored otherwise."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return "float16"
    return "bfloat16"


def _preferred(device: torch.device, shape: ModelShape) -> tuple[str, ...]:
    """What auto tries, the first that fits."""
    if device.type == "cuda":
        return (_quickest(device), *QUANTISED)
    if device.type != "cpu":
        return ("float16",)
    if shape.parameters <= SMALL_MODEL:
        return ("float32", "bfloat16", *QUANTISED)
    # Where bfloat16 has no kernel its products are far slower than those of float32.
    return ("bfloat16" if packed.works(torch.bfloat16) else "float32", *QUANTISED)


def _reason(
    asked: str, chosen: str, first: str, device: torch.device, shape: ModelShape, free_memory: int | None
) -> str:
    if asked != "auto":
        return f"--dtype {asked}"
    if chosen != first:
        needed = human_size(memory_needed(shape, first, device))
        return f"auto: {first} needs {needed}, {human_size(free_memory or 0)} are free"
    size = f"{shape.parameters / 1e6:.0f} million parameters"
    if device.type != "cpu":
        return f"auto: what {device} computes in fastest"
    if shape.parameters <= SMALL_MODEL:
        return f"auto: {size} are few enough for float32"
    return f"auto: {size} are too many for float32 to be quick" if chosen == "bfloat16" else f"auto: {size} fit"


def _does_not_fit(
    asked: str, device: torch.device, shape: ModelShape, first: str, fitting: list[str], free_memory: int
) -> str:
    """The remedy: what fits, or what it would take."""
    problem = (
        f"--dtype {asked}: the model needs {human_size(memory_needed(shape, first, device))} in {first} on {device}"
    )
    free = f"{human_size(free_memory)} are free"
    if fitting:
        best = fitting[0]
        return f"{problem}, {free}; --dtype {best} needs {human_size(memory_needed(shape, best, device))}"
    least = min(offered(device), key=lambda one: memory_needed(shape, one, device))
    more = " or use --device cpu" if device.type == "cuda" else ""
    return (
        f"{problem}, {free}; even {least} needs {human_size(memory_needed(shape, least, device))}: "
        f"end other programs, choose a smaller model ({_largest_that_fits(device, free_memory)}){more}"
    )


def _largest_that_fits(device: torch.device, free_memory: int) -> str:
    """The remedy by name: the largest model of the family for which there is room, and in what."""
    from engine.models.known import KNOWN

    for known in sorted(KNOWN.values(), key=lambda each: each.sizes.parameters, reverse=True):
        shape = known.sizes.shape()
        for name in (*_preferred(device, shape), *offered(device)):
            if memory_needed(shape, name, device) <= free_memory:
                return f"{known.id} fits in {name}"
    return "the built-in starter needs least: leave --model out"
