"""oneDNN's blocked order of a weight: read off, written, and described to torch.

torch can block a weight only from a copy of it that is complete, and does so at a fraction of the speed of memory. Here rows
are put into the order as they come from a file, while they are in the processor's cache. The order is that of a layer which
oneDNN blocked itself, and so is the description that makes a tensor of the memory; where either is not as expected, oneDNN
blocks every layer.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from engine import pages

log = logging.getLogger(__name__)

_LIBRARY = {"linux": "libtorch_cpu.so", "darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Order:
    """How weights [outputs, inputs] of one size are blocked, `lanes` outputs side by side; `depth` counts filled up inputs.

    `description` is oneDNN's own, as bytes.
    """

    outputs: int
    inputs: int
    lanes: int
    depth: int
    dtype: torch.dtype
    description: Tensor

    @property
    def blocks(self) -> int:
        """How many there are."""
        return -(-self.outputs // self.lanes)

    @property
    def words(self) -> int:
        """Words of four bytes that a row takes: an input of float32, or two of 16 bits."""
        return self.depth * self.dtype.itemsize // 4


class Blocked:
    """A weight in a known order, filled some rows at a time."""

    def __init__(self, order: Order) -> None:
        self.rows = order.lanes
        self._order = order
        size = order.blocks * order.words * order.lanes * 4
        self.memory = pages.room(size)
        self._blocks = self.memory.view(torch.int32).view(order.blocks, order.words, order.lanes)

    def put(self, first: int, rows: Tensor) -> None:
        """Rows [n, inputs] from output `first` on; both are multiples of `rows`, but for the last n."""
        order = self._order
        rows = rows.to(order.dtype)
        fill = (0, order.depth - order.inputs, 0, -len(rows) % order.lanes)
        if any(fill):
            rows = F.pad(rows, fill)
        words = rows.contiguous().view(torch.int32).view(-1, order.lanes, order.words)
        at = first // order.lanes
        pages.take(self._blocks[at : at + len(words)])
        for block, target in zip(words, self._blocks[at : at + len(words)], strict=True):
            target.copy_(block.t())

    def weight(self) -> Tensor:
        """torch's tensor over `memory`, which it does not keep."""
        order = self._order
        return _described(self.memory, (order.outputs, order.inputs), order.dtype, order.description)


def blocked(weight: Tensor) -> Tensor:
    """A weight [out, in] in oneDNN's order; opaque."""
    made: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
    return made


def address(weight: Tensor) -> int:
    """Where the numbers of a blocked weight begin."""
    return int(torch.ops.mkldnn.data_ptr(weight))


def size(weight: Tensor) -> int:
    """Bytes of a blocked weight, with what fills it up."""
    return int(torch.ops.mkldnn._nbytes(weight))


def order_of(weight: Tensor, plain: Tensor) -> Order | None:
    """How `weight` is blocked, which oneDNN made of `plain`; None where that is not known, or cannot be written."""
    lanes_ = lanes(plain.dtype)
    if lanes_ is None or not describable():
        return None
    outputs, inputs = plain.shape
    depth = size(weight) // (plain.dtype.itemsize * lanes_ * -(-outputs // lanes_))
    description = torch.ops.mkldnn._get_mkldnn_serialized_md(weight)
    order = Order(outputs, inputs, lanes_, depth, plain.dtype, description)
    # Sizes of the same dtype may be blocked in different ways: the first and the last block are looked at.
    for first in (0, (order.blocks - 1) * lanes_):
        rows = plain[first : first + lanes_]
        sample = Blocked(Order(len(rows), inputs, lanes_, depth, plain.dtype, description))
        sample.put(0, rows)
        begin = first * depth * plain.dtype.itemsize
        if not torch.equal(_bytes_of(weight)[begin : begin + len(sample.memory)], sample.memory):
            return None
    return order


@functools.cache
def lanes(dtype: torch.dtype) -> int | None:
    """Outputs that stand side by side in a blocked weight, if its order is the one that `cpu_kernels.product` reads.

    Found out by blocking numbers that all differ.
    """
    outputs, inputs = 160, 64
    try:
        numbers = torch.arange(outputs * inputs)
        plain = numbers.float() if dtype == torch.float32 else numbers.to(torch.int16).view(dtype)
        plain = plain.view(outputs, inputs)
        made = blocked(plain)
        found = _bytes_of(made).view(dtype)
    except (RuntimeError, AttributeError, TypeError):
        return None
    together = 4 // dtype.itemsize
    for count in (64, 48, 32, 16):
        blocks = -(-outputs // count)
        depth, rest = divmod(len(found), blocks * count)
        if rest or depth < inputs or depth % together:
            continue
        filled = F.pad(plain, (0, depth - inputs, 0, blocks * count - outputs))
        ordered = filled.view(blocks, count, depth // together, together).transpose(1, 2).reshape(-1)
        if torch.equal(ordered.view(torch.uint8), found.view(torch.uint8)):
            return count
    return None


@functools.cache
def describable() -> bool:
    """Whether torch makes a blocked tensor of given memory: tried on a small one."""
    try:
        weight = torch.arange(48.0 * 32).view(48, 32)
        right = blocked(weight)
        memory = _bytes_of(right).clone()
        made = _described(memory, (48, 32), torch.float32, torch.ops.mkldnn._get_mkldnn_serialized_md(right))
        x, none = torch.ones(4, 32), torch.zeros(48)
        products = [torch.ops.mkldnn._linear_pointwise(x, one, none, "none", [], "") for one in (right, made)]
        return address(made) == memory.data_ptr() and size(made) == size(right) and torch.equal(*products)
    except (RuntimeError, AttributeError, TypeError, OSError) as error:
        log.info("this torch takes no weights that are blocked already (%s): loading is slower", type(error).__name__)
        return False


def _bytes_of(weight: Tensor) -> Tensor:
    """The memory of a blocked weight, for as long as that lives."""
    memory = (ctypes.c_char * size(weight)).from_address(address(weight))
    return torch.frombuffer(memory, dtype=torch.uint8)


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / _LIBRARY.get(sys.platform, "libtorch_cpu.so")))


def _described(memory: Tensor, shape: tuple[int, int], dtype: torch.dtype, description: Tensor) -> Tensor:
    """torch's tensor over `memory` by oneDNN's description, through the interface that compiled models use (AOTInductor)."""
    library, handle = _library(), ctypes.c_void_p()
    name = str(dtype).removeprefix("torch.")
    if memory.data_ptr() % _ALIGNMENT:
        raise RuntimeError("memory that oneDNN reads must be aligned")
    failed = library.aoti_torch_create_tensor_from_blob_v2(
        ctypes.c_void_p(memory.data_ptr()), ctypes.c_int64(2), (ctypes.c_int64 * 2)(*shape),
        (ctypes.c_int64 * 2)(shape[1], 1), ctypes.c_int64(0), ctypes.c_int32(getattr(library, f"aoti_torch_dtype_{name}")()),
        ctypes.c_int32(library.aoti_torch_device_type_cpu()), ctypes.c_int32(0), ctypes.byref(handle),
        ctypes.c_int32(library.aoti_torch_layout__mkldnn()), ctypes.c_void_p(description.data_ptr()),
        ctypes.c_int64(description.numel()),
    )  # fmt: skip
    if failed:
        raise RuntimeError("torch does not take the memory")
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype, capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    made: Tensor = torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr(capsule(handle, None, None))
    return made
