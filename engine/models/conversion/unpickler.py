"""What a pickle says about tensors, and nothing else: no name in it is ever imported, looked up or called.

The few names that torch's own files need stand for functions of this module, which note their arguments. So what comes out is
plain data of ours, whatever went in; any other name ends the reading.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

_LONGEST_NAME = 256
_MOST_TENSORS = 16_384
_MOST_AXES = 8
_LARGEST = 2**48


class Readable(Protocol):
    """What an unpickler needs of a file."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""

    def readline(self) -> bytes:
        """Up to the next line feed."""


class Refused(Exception):
    """A file that is not taken; the message is one line, fit to be shown after the file's name."""


@dataclass(frozen=True, slots=True)
class ElementType:
    """What a storage is made of: its dtype in safetensors, and bytes of one element."""

    dtype: str
    size: int


@dataclass(frozen=True, slots=True)
class Storage:
    """A region of bytes in the file: `count` elements from element `first` of the storage called `key`."""

    key: str
    elements: ElementType
    count: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def size(self) -> int:
        """Bytes of its numbers, written one after another."""
        return self.elements * self.storage.elements.size


class _Names(dict[Any, Any]):
    """Stands for OrderedDict. What a pickle sets on it beside its items (`_metadata`) is dropped."""

    def __setstate__(self, state: object) -> None: ...


_ELEMENTS: Final = {
    "FloatStorage": ElementType("F32", 4),
    "HalfStorage": ElementType("F16", 2),
    "BFloat16Storage": ElementType("BF16", 2),
    "DoubleStorage": ElementType("F64", 8),
    "ByteStorage": ElementType("U8", 1),
    "CharStorage": ElementType("I8", 1),
    "ShortStorage": ElementType("I16", 2),
    "IntStorage": ElementType("I32", 4),
    "LongStorage": ElementType("I64", 8),
    "BoolStorage": ElementType("BOOL", 1),
}


def _tensor(storage: object, offset: object, shape: object, strides: object, *_: object) -> Tensor:
    """Stands for torch's `_rebuild_tensor` and `_rebuild_tensor_v2`, whose further arguments only autograd needs."""
    if not isinstance(storage, Storage):
        raise Refused("a tensor without a storage")
    first, lengths, steps = _whole(offset), _wholes(shape), _wholes(strides)
    if len(lengths) != len(steps) or len(lengths) > _MOST_AXES:
        raise Refused("a tensor whose shape and strides do not go together")
    tensor = Tensor(storage, first, lengths, steps)
    if tensor.elements > _LARGEST:
        raise Refused("a tensor larger than any disk")
    last = first + sum((length - 1) * step for length, step in zip(lengths, steps, strict=True))
    if tensor.elements and last >= storage.count:
        raise Refused("a tensor that reaches over the end of its storage")
    return tensor


def _parameter(data: object, *_: object) -> Tensor:
    """Stands for torch's `_rebuild_parameter`."""
    if not isinstance(data, Tensor):
        raise Refused("a parameter that is no tensor")
    return data


def _size(lengths: object = ()) -> tuple[int, ...]:
    """Stands for `torch.Size`."""
    return _wholes(lengths)


ALLOWED: Final[Mapping[tuple[str, str], object]] = {
    ("collections", "OrderedDict"): _Names,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): elements for name, elements in _ELEMENTS.items()},
}
"""Every name that a pickle may use, and what it means here."""


class TensorUnpickler(pickle.Unpickler):
    """Reads one pickle of a file that torch wrote."""

    def __init__(self, file: Readable) -> None:
        super().__init__(file)
        self.storages: dict[str, Storage] = {}
        """The whole of each storage that was mentioned, by key."""

    def find_class(self, module: str, name: str) -> Any:
        """One of our stand-ins; any other name is refused."""
        found = ALLOWED.get((module, name))
        if found is None:
            asked = ascii(f"{module}.{name}")[1:-1][:80]
            raise Refused(f"asks for {asked}, which no tensor needs: such a file may be made to run a program")
        return found

    def persistent_load(self, pid: Any) -> Storage:
        """The storage that `("storage", type, key, device, count[, view])` speaks of."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise Refused("refers to something that is no storage")
        _, elements, key, _, count, *view = pid
        if not isinstance(elements, ElementType) or not isinstance(key, str) or len(key) > _LONGEST_NAME:
            raise Refused("a storage of an unknown type")
        whole = Storage(key, elements, _whole(count))
        if self.storages.setdefault(key, whole) != whole:
            raise Refused("a storage that is described in two ways")
        if not view or view[0] is None:
            return whole
        if not isinstance(view[0], tuple) or len(view[0]) != 3:
            raise Refused("a view of a storage that cannot be read")
        first, length = _whole(view[0][1]), _whole(view[0][2])
        if first + length > whole.count:
            raise Refused("a view that reaches over the end of its storage")
        return Storage(key, elements, length, first)


def read_pickle(file: Readable) -> tuple[object, dict[str, Storage]]:
    """One pickle, and the storages that it mentions; raises Refused."""
    unpickler = TensorUnpickler(file)
    try:
        return unpickler.load(), unpickler.storages
    except Refused:
        raise
    except MemoryError as error:
        raise Refused("asks for more memory than its tensors need") from error
    except RecursionError as error:
        raise Refused("is nested too deep") from error
    except Exception as error:  # its opcodes reach anything that plain data can raise
        raise Refused(f"is not a pickle that torch wrote ({type(error).__name__})") from error


def named_tensors(content: object) -> dict[str, Tensor]:
    """The state of a model: a flat mapping of names to tensors; raises Refused for anything else."""
    if not isinstance(content, dict) or not content:
        raise Refused("holds no mapping of names to tensors; a checkpoint of training is not the model alone")
    if len(content) > _MOST_TENSORS:
        raise Refused(f"holds more than {_MOST_TENSORS} tensors")
    for name, tensor in content.items():
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or name == "__metadata__":
            raise Refused("holds a name that is no tensor's")
        if not isinstance(tensor, Tensor):
            raise Refused(f"holds {ascii(name)[:80]}, which is no tensor; only a model's weights can be converted")
    return dict(content)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise Refused("a size or offset that cannot be")
    return value


def _wholes(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > _MOST_AXES:
        raise Refused("a shape that cannot be")
    return tuple(map(_whole, values))
