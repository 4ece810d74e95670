"""Which architectures the second backend runs, and what it reads of their `config.json`. No torch.

Only fields that change the arithmetic are read, each within bounds; what else a configuration may ask for (code of its own,
another attention, quantised weights) never reaches the library.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.checkpoint.config import CONFIG_LIMITS, NATIVE_TYPES
from engine.checkpoint.folder import ModelFolder
from engine.checkpoint.json_file import read_object, refuse, shown
from engine.errors import CheckpointError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_Width = Annotated[int, Field(ge=8, le=65_536)]
_Count = Annotated[int, Field(ge=1, le=1_024)]
_Epsilon = Annotated[float, Field(gt=0, lt=1)]
_STRICT = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class _Rope(BaseModel):
    """How positions are turned. Kinds whose frequencies depend on the text's length would spoil what is cached."""

    model_config = _STRICT

    kind: Literal["default", "linear"] = Field(default="default", alias="rope_type")
    old_kind: Literal["default", "linear"] | None = Field(default=None, alias="type")
    factor: float = Field(default=1.0, ge=1.0, le=1_024.0)
    rope_theta: float | None = Field(default=None, gt=0, le=1e12)


class NativeConfig(BaseModel):
    """What all of them have in common. Defaults are those of the library's own classes."""

    model_config = _STRICT

    module: ClassVar[str]
    """The library's module with the classes."""
    config_class: ClassVar[str]
    model_class: ClassVar[str]

    model_type: str
    vocab_size: int = Field(ge=2, le=1_048_576)
    hidden_size: _Width
    intermediate_size: Annotated[int, Field(ge=8, le=1_048_576)]
    num_hidden_layers: _Count
    num_attention_heads: _Count
    num_key_value_heads: _Count | None = None
    max_position_embeddings: int = Field(ge=8, le=1_048_576)
    tie_word_embeddings: bool = False
    rope_theta: float = Field(default=10_000.0, gt=0, le=1e12)
    rope_scaling: _Rope | None = None
    rope_parameters: _Rope | None = None
    quantization_config: None = None

    @property
    def kv_heads(self) -> int:
        """Heads that keys and values have."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        own: int | None = getattr(self, "head_dim", None)
        return own or self.hidden_size // self.num_attention_heads

    def kv_bytes(self, window: int, dtype: torch.dtype) -> int:
        """Bytes of one KV slot of `window` positions."""
        return self.num_hidden_layers * 2 * self.kv_heads * window * self.head_width * dtype.itemsize

    def arguments(self) -> dict[str, Any]:
        """What the library's configuration class is made with."""
        given = self.model_dump(exclude={"model_type", "rope_theta", "rope_scaling", "rope_parameters",
                                         "quantization_config"})  # fmt: skip
        rope = self.rope_parameters or self.rope_scaling or _Rope()
        kind = rope.old_kind or rope.kind
        turned: dict[str, Any] = {"rope_type": kind, "rope_theta": float(rope.rope_theta or self.rope_theta)}
        if kind == "linear":
            turned["factor"] = rope.factor
        tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))  # the tokenizer knows them
        return given | tokens | {"num_key_value_heads": self.kv_heads, "rope_parameters": turned}


class Starcoder2(NativeConfig):
    """StarCoder2."""

    module = "starcoder2"
    config_class = "Starcoder2Config"
    model_class = "Starcoder2ForCausalLM"

    hidden_act: Literal["gelu_pytorch_tanh", "gelu"] = "gelu_pytorch_tanh"
    norm_epsilon: _Epsilon = 1e-5
    sliding_window: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    use_bias: bool = True
    tie_word_embeddings: bool = True


class Qwen2(NativeConfig):
    """Qwen2.5-Coder, CodeQwen's successors."""

    module = "qwen2"
    config_class = "Qwen2Config"
    model_class = "Qwen2ForCausalLM"

    hidden_act: Literal["silu"] = "silu"
    rms_norm_eps: _Epsilon = 1e-6
    use_sliding_window: bool = False
    sliding_window: Annotated[int, Field(ge=8, le=1_048_576)] | None = 4_096
    max_window_layers: Annotated[int, Field(ge=0, le=1_024)] = 28


class Llama(NativeConfig):
    """DeepSeek-Coder, and others of Llama's architecture that have tokens for the middle."""

    module = "llama"
    config_class = "LlamaConfig"
    model_class = "LlamaForCausalLM"

    hidden_act: Literal["silu"] = "silu"
    rms_norm_eps: _Epsilon = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False
    head_dim: _Width | None = None


class Gemma(NativeConfig):
    """CodeGemma."""

    module = "gemma"
    config_class = "GemmaConfig"
    model_class = "GemmaForCausalLM"

    # Both names say the tanh form, whatever they say: so the library reads them.
    hidden_act: Literal["gelu", "gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    hidden_activation: Literal["gelu_pytorch_tanh"] | None = None
    rms_norm_eps: _Epsilon = 1e-6
    attention_bias: bool = False
    head_dim: _Width = 256
    tie_word_embeddings: bool = True
    use_bidirectional_attention: Literal[False] | None = None

    def arguments(self) -> dict[str, Any]:
        """See `NativeConfig.arguments`."""
        given = super().arguments()
        del given["hidden_activation"], given["use_bidirectional_attention"]
        return given | {"hidden_act": "gelu_pytorch_tanh"}


FAMILIES: dict[str, type[NativeConfig]] = {"starcoder2": Starcoder2, "qwen2": Qwen2, "llama": Llama, "gemma": Gemma}
"""By the `model_type` of `config.json`: the library's own classes, and no others."""


def kind_of(directory: Path) -> str:
    """The `model_type` of a directory's `config.json`; raises CheckpointError unless one of the backends runs it."""
    return _kind(ModelFolder(directory).path("config.json"), _read(directory))


def read_native_config(directory: Path) -> NativeConfig:
    """Validate `config.json` for this backend; raises CheckpointError that names the field."""
    found = _read(directory)
    path = ModelFolder(directory).path("config.json")
    kind = _kind(path, found)
    family = FAMILIES.get(kind)
    if family is None:
        raise CheckpointError(f"{path}: model_type {shown(kind)} is the native backend's: leave --backend out")
    if found.get("quantization_config") is not None:
        raise CheckpointError(f"{path}: quantization_config: weights quantised by another tool are not supported; take "
                              "the original model")  # fmt: skip
    try:
        config = family.model_validate(found)
    except ValidationError as error:
        refuse(path, error)
    if config.num_attention_heads % config.kv_heads:
        raise CheckpointError(
            f"{path}: num_key_value_heads {config.kv_heads} does not divide num_attention_heads {config.num_attention_heads}"
        )
    if getattr(config, "head_dim", None) is None and config.hidden_size % config.num_attention_heads:
        raise CheckpointError(
            f"{path}: num_attention_heads {config.num_attention_heads} does not divide hidden_size {config.hidden_size}"
        )
    if config.head_width % 2:
        raise CheckpointError(f"{path}: head_dim {config.head_width} must be even")
    if "auto_map" in found:
        log.warning("%s: auto_map is ignored; code from a checkpoint is never run", path)
    return config


def _read(directory: Path) -> dict[str, Any]:
    return read_object(ModelFolder(directory), "config.json", CONFIG_LIMITS)


def _kind(path: Path, found: dict[str, Any]) -> str:
    kind = found.get("model_type")
    if not isinstance(kind, str) or kind not in (*NATIVE_TYPES, *FAMILIES):
        native, others = (", ".join(map(repr, types)) for types in (NATIVE_TYPES, FAMILIES))
        raise CheckpointError(
            f"{path}: model_type {shown(kind)} is not supported; the native backend runs {native}, the transformers "
            f"backend {others}"
        )
    return kind
