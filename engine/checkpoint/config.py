"""`config.json` under our own schema: every value that changes the arithmetic is known or refused, the rest is ignored."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.checkpoint.folder import ModelFolder
from engine.checkpoint.json_file import JsonLimits, read_object, refuse, shown
from engine.errors import CheckpointError

if TYPE_CHECKING:
    from engine.gpt_bigcode import ModelShape

log = logging.getLogger(__name__)

CONFIG_LIMITS = JsonLimits(size=2**20, values=20_000)
NATIVE_TYPES = ("gpt_bigcode", "gpt2")
"""What `model_type` may be: StarCoder's, and what SantaCoder's custom code called itself."""

_EXACT_GELU = frozenset({"gelu", "gelu_python"})

Width = Annotated[int, Field(ge=8, le=65_536)]


class Storage(StrEnum):
    """How a checkpoint stores its dense layers."""

    GPT_BIGCODE = "gpt_bigcode"
    """transformers' own: [out, in]; multi-query `c_attn` is [q | k | v], multi-head one interleaved head by head."""
    SANTACODER = "santacoder"
    """`gpt2` with custom code: [in, out]; `q_attn` and `kv_attn`, or for all heads GPT-2's `c_attn` of [q | k | v]."""


class Config(BaseModel):
    """What is read of `config.json`. Token ids are not: the tokenizer knows them, and configurations are often wrong."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    model_type: Literal["gpt_bigcode", "gpt2"]
    n_layer: int = Field(ge=1, le=1_024)
    n_embd: Width
    n_head: int = Field(ge=1, le=1_024)
    n_inner: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    n_positions: int = Field(ge=8, le=1_048_576)
    vocab_size: int = Field(ge=2, le=1_048_576)
    layer_norm_epsilon: float = Field(default=1e-5, gt=0, lt=1)
    activation_function: (
        Literal["gelu", "gelu_python", "gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_accurate"] | None
    ) = None
    multi_query: bool = True
    attention_head_type: Literal["multiquery", "multihead"] | None = None
    scale_attn_weights: bool = True
    tie_word_embeddings: bool = True
    scale_attn_by_inverse_layer_idx: Literal[False] | None = None
    add_cross_attention: Literal[False] | None = None
    quantization_config: None = None

    @property
    def storage(self) -> Storage:
        """Which of the two forms the weights are in."""
        return Storage.SANTACODER if self.model_type == "gpt2" else Storage.GPT_BIGCODE

    def shape(self) -> ModelShape:
        """The sizes, for the model."""
        from engine.gpt_bigcode import ModelShape

        # The defaults are those of the classes that wrote the files.
        custom = self.storage is Storage.SANTACODER
        activation = self.activation_function or ("gelu_new" if custom else "gelu_pytorch_tanh")
        return ModelShape(
            n_layer=self.n_layer,
            n_embd=self.n_embd,
            n_head=self.n_head,
            n_inner=4 * self.n_embd if self.n_inner is None else self.n_inner,
            n_positions=self.n_positions,
            vocab_size=self.vocab_size,
            multi_query=self.attention_head_type == "multiquery" if custom else self.multi_query,
            exact_gelu=activation in _EXACT_GELU,
            scale_attention=self.scale_attn_weights,
            norm_eps=self.layer_norm_epsilon,
        )


def read_config(directory: Path) -> Config:
    """Validate `config.json`; raises CheckpointError that names the field."""
    folder = ModelFolder(directory)
    path = folder.path("config.json")
    found = read_object(folder, "config.json", CONFIG_LIMITS)
    _check_kind(path, found)
    try:
        config = Config.model_validate(found)
    except ValidationError as error:
        refuse(path, error)
    if config.n_embd % config.n_head or (config.n_embd // config.n_head) % 8:
        raise CheckpointError(
            f"{path}: n_embd / n_head = {config.n_embd} / {config.n_head} must be a multiple of 8 (head_dim)"
        )
    if "auto_map" in found:
        log.warning("%s: auto_map is ignored; code from a checkpoint is never run", path)
    return config


def read_shape(directory: Path) -> ModelShape:
    """The sizes in `config.json`, once it was validated."""
    return read_config(directory).shape()


def _check_kind(path: Path, found: dict[str, Any]) -> None:
    """Another architecture is refused for what it is, before its fields are."""
    kind = found.get("model_type")
    if kind not in NATIVE_TYPES:
        raise CheckpointError(
            f"{path}: model_type {shown(kind)} is not supported by the native backend; expected 'gpt_bigcode' (StarCoder) "
            "or 'gpt2' (SantaCoder)"
        )
    if found.get("quantization_config") is not None:
        raise CheckpointError(
            f"{path}: quantization_config: weights quantised by another tool are not supported; take the original "
            "model and choose --dtype int8 or int4"
        )
