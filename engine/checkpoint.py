"""Validate and load a model directory: `config.json`, `tokenizer.json` and safetensors, nothing else.

Nothing from a checkpoint is executed: no pickle, no remote code; `auto_map` is ignored with a notice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import CheckpointError
from engine.gpt_bigcode import GPTBigCode, Layer, ModelShape, Weights
from engine.ops import Linear, Norm, Ops
from engine.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)

_MAX_JSON = 64 * 2**20
_ACTIVATIONS = {"gelu": True, "gelu_pytorch_tanh": False, "gelu_new": False, "gelu_fast": False}


def read_shape(directory: Path) -> ModelShape:
    """Validate `config.json` against what GPTBigCode needs."""
    path = directory / "config.json"
    config = _read_json(path)
    if config.get("model_type") != "gpt_bigcode":
        raise CheckpointError(
            f"{path}: model_type {config.get('model_type')!r} is not supported; expected 'gpt_bigcode'"
        )
    if "auto_map" in config:
        log.warning("%s: auto_map is ignored; code from a checkpoint is never run", path)

    def number(name: str, low: int, high: int, default: int | None = None) -> int:
        value = config.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise CheckpointError(f"{path}: {name} must be a whole number from {low} to {high}, not {value!r}")
        return value

    n_embd, n_head = number("n_embd", 8, 65_536), number("n_head", 1, 1_024)
    if n_embd % n_head or (n_embd // n_head) % 8:
        raise CheckpointError(f"{path}: n_embd / n_head = {n_embd} / {n_head} must be a multiple of 8 (head_dim)")
    activation = config.get("activation_function", "gelu_pytorch_tanh")
    if activation not in _ACTIVATIONS:
        raise CheckpointError(f"{path}: activation_function {activation!r} is none of {', '.join(_ACTIVATIONS)}")
    eps = config.get("layer_norm_epsilon", 1e-5)
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise CheckpointError(f"{path}: layer_norm_epsilon must be between 0 and 1, not {eps!r}")
    return ModelShape(
        n_layer=number("n_layer", 1, 1_024),
        n_embd=n_embd,
        n_head=n_head,
        n_inner=number("n_inner", 8, 1_048_576, default=4 * n_embd),
        n_positions=number("n_positions", 8, 1_048_576),
        vocab_size=number("vocab_size", 2, 1_048_576),
        multi_query=_flag(path, config, "multi_query"),
        exact_gelu=_ACTIVATIONS[activation],
        scale_attention=_flag(path, config, "scale_attn_weights"),
        norm_eps=eps,
    )


def check_vocabulary(directory: Path, shape: ModelShape, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer with ids that the model has no embedding for."""
    if tokenizer.size > shape.vocab_size:
        raise CheckpointError(
            f"{directory / 'tokenizer.json'}: has ids up to {tokenizer.size - 1}, but vocab_size in config.json is "
            f"{shape.vocab_size}; the two files are of different models"
        )


def load_model(directory: Path, shape: ModelShape, ops: Ops, device: torch.device, dtype: torch.dtype) -> GPTBigCode:
    """Map the safetensors files and bring the weights to the device one tensor at a time."""
    tensors = _TensorFiles(directory)
    d, kv = shape.n_embd, 2 * shape.kv_heads * shape.head_dim

    def take(name: str, *size: int) -> Tensor:
        return tensors.take(name, size).to(device=device, dtype=dtype)

    def norm(name: str) -> Norm:
        return Norm(take(f"{name}.weight", d), take(f"{name}.bias", d), shape.norm_eps)

    def linear(name: str, rows: int, columns: int) -> Linear:
        return Linear(take(f"{name}.weight", rows, columns), take(f"{name}.bias", rows))

    def qkv(name: str) -> Linear:
        fused = linear(name, d + kv, d)
        if shape.multi_query:
            return fused

        # Multi-head checkpoints interleave q, k and v head by head; ours are [all q | all k | all v].
        def order(t: Tensor) -> Tensor:
            return t.view(shape.n_head, 3, shape.head_dim, -1).transpose(0, 1).reshape(t.shape).contiguous()

        return Linear(order(fused.weight), order(fused.bias))

    wte = take("transformer.wte.weight", shape.vocab_size, d)
    layers = tuple(
        Layer(
            ln_1=norm(f"{block}.ln_1"),
            qkv=qkv(f"{block}.attn.c_attn"),
            attn_proj=linear(f"{block}.attn.c_proj", d, d),
            ln_2=norm(f"{block}.ln_2"),
            fc=linear(f"{block}.mlp.c_fc", shape.n_inner, d),
            mlp_proj=linear(f"{block}.mlp.c_proj", d, shape.n_inner),
        )
        for block in (f"transformer.h.{n}" for n in range(shape.n_layer))
    )
    weights = Weights(
        wte=wte,
        wpe=take("transformer.wpe.weight", shape.n_positions, d),
        layers=layers,
        ln_f=norm("transformer.ln_f"),
        vocabulary=take("lm_head.weight", shape.vocab_size, d) if "lm_head.weight" in tensors else wte,
    )
    return GPTBigCode(shape, weights, ops)


class _TensorFiles:
    """The tensors of a directory by name, whichever shard each is in."""

    def __init__(self, directory: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self._open: Callable[..., Any] = safe_open
        self._error: type[Exception] = SafetensorError
        self._file_of: dict[str, Path] = {}
        self._handles: dict[Path, Any] = {}
        self._directory = directory
        for file in self._files():
            for name in self._handle(file).keys():  # noqa: SIM118  (a handle of safetensors, not a dict)
                self._file_of[name] = file

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def take(self, name: str, size: tuple[int, ...]) -> Tensor:
        """One tensor, after its shape was checked."""
        import torch

        file = self._file_of.get(name)
        if file is None:
            raise CheckpointError(f"{self._directory}: tensor {name} is missing; download the checkpoint again")
        found = tuple(self._handle(file).get_slice(name).get_shape())
        if found != size:
            raise CheckpointError(f"{file}: {name} has shape {list(found)}, config.json makes it {list(size)}")
        tensor: Tensor = self._handle(file).get_tensor(name)
        if not tensor.dtype.is_floating_point or tensor.dtype.itemsize < 2:
            raise CheckpointError(f"{file}: {name} is {tensor.dtype}; expected float32, bfloat16 or float16")
        if tensor.dtype == torch.float64:
            raise CheckpointError(f"{file}: {name} is float64; expected float32, bfloat16 or float16")
        return tensor

    def _files(self) -> Iterator[Path]:
        index = self._directory / "model.safetensors.index.json"
        if not index.exists():
            single = self._directory / "model.safetensors"
            if not single.is_file():
                raise CheckpointError(f"{single}: no such file; a model directory needs safetensors weights")
            yield single
            return
        names = _read_json(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
            raise CheckpointError(f"{index}: weight_map must map tensor names to file names")
        for name in sorted(set(names.values())):
            if name != Path(name).name or not name.endswith(".safetensors"):
                raise CheckpointError(f"{index}: shard {name!r} must be a .safetensors file of the same directory")
            yield self._directory / name

    def _handle(self, file: Path) -> Any:
        if file not in self._handles:
            try:
                self._handles[file] = self._open(str(file), framework="pt")
            except (OSError, self._error) as error:
                raise CheckpointError(f"{file}: not a readable safetensors file ({error})") from error
        return self._handles[file]


def _read_json(path: Path) -> Mapping[str, Any]:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    try:
        if path.stat().st_size > _MAX_JSON:
            raise CheckpointError(f"{path}: larger than {_MAX_JSON >> 20} MiB")
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; a model directory needs it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold a JSON object")
    return value


def _flag(path: Path, config: Mapping[str, Any], name: str) -> bool:
    value = config.get(name, True)
    if not isinstance(value, bool):
        raise CheckpointError(f"{path}: {name} must be true or false, not {value!r}")
    return value
