"""Which tensors of a checkpoint make which weight of the model, in each form that the family is published in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.checkpoint.config import Storage
from engine.checkpoint.header import TensorInfo
from engine.checkpoint.json_file import shown
from engine.checkpoint.table import TIED_HEAD
from engine.errors import CheckpointError

if TYPE_CHECKING:
    from engine.gpt_bigcode import ModelShape

FLOATS = ("F32", "BF16", "F16")
_MASK_BUFFER = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)", re.ASCII)
"""The causal mask, which old versions of transformers stored with the weights."""


@dataclass(frozen=True, slots=True)
class Dense:
    """One dense layer: the outputs of `parts`, one after another, over the same inputs."""

    parts: tuple[tuple[str, int], ...]  # name without .weight or .bias, outputs
    inputs: int
    transposed: bool = False
    """Whether the file has [in, out]."""
    interleaved: int = 0
    """Heads, if the outputs are q, k and v of one head after another instead of all q, all k, all v."""

    def expected(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Each tensor's name and its shape in the file."""
        for name, outputs in self.parts:
            yield f"{name}.weight", (self.inputs, outputs) if self.transposed else (outputs, self.inputs)
            yield f"{name}.bias", (outputs,)


@dataclass(frozen=True, slots=True)
class Block:
    """The sources of one block's weights."""

    ln_1: str
    qkv: Dense
    attn_proj: Dense
    ln_2: str
    fc: Dense
    mlp_proj: Dense


@dataclass(frozen=True, slots=True)
class TensorMap:
    """The sources of all weights."""

    blocks: tuple[Block, ...]
    width: int
    vocab_size: int
    n_positions: int
    tied: bool
    wte: str = "transformer.wte.weight"
    wpe: str = "transformer.wpe.weight"
    ln_f: str = "transformer.ln_f"
    head: str = TIED_HEAD

    def expected(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that the model needs, and its shape in the file."""
        found: dict[str, tuple[int, ...]] = {
            self.wte: (self.vocab_size, self.width),
            self.wpe: (self.n_positions, self.width),
        }
        for name in (self.ln_f, *(norm for block in self.blocks for norm in (block.ln_1, block.ln_2))):
            found |= {f"{name}.weight": (self.width,), f"{name}.bias": (self.width,)}
        for block in self.blocks:
            for dense in (block.qkv, block.attn_proj, block.fc, block.mlp_proj):
                found |= dict(dense.expected())
        if not self.tied:
            found[self.head] = (self.vocab_size, self.width)
        return found

    def found_in(self, table: Mapping[str, TensorInfo]) -> TensorMap:
        """The same for a file that has a tied pair under the head's name alone, as safetensors' `save_model` writes it."""
        head_alone = self.tied and self.head in table and self.wte not in table
        return replace(self, wte=self.head) if head_alone else self

    @property
    def own_head(self) -> bool:
        """Whether head and embedding go by two names."""
        return self.head != self.wte


def tensor_map(shape: ModelShape, storage: Storage, *, tied: bool) -> TensorMap:
    """Where the weights of a model are in a checkpoint of that form."""
    d, inner, kv = shape.n_embd, shape.n_inner, 2 * shape.kv_heads * shape.head_dim
    turned = storage is Storage.SANTACODER

    def qkv(attn: str) -> Dense:
        if turned and shape.multi_query:
            return Dense(((f"{attn}.q_attn", d), (f"{attn}.kv_attn", kv)), d, transposed=True)
        interleaved = 0 if turned or shape.multi_query else shape.n_head
        return Dense(((f"{attn}.c_attn", d + kv),), d, transposed=turned, interleaved=interleaved)

    def block(number: int) -> Block:
        name = f"transformer.h.{number}"
        return Block(
            ln_1=f"{name}.ln_1",
            qkv=qkv(f"{name}.attn"),
            attn_proj=Dense(((f"{name}.attn.c_proj", d),), d, turned),
            ln_2=f"{name}.ln_2",
            fc=Dense(((f"{name}.mlp.c_fc", inner),), d, turned),
            mlp_proj=Dense(((f"{name}.mlp.c_proj", d),), inner, turned),
        )

    return TensorMap(tuple(map(block, range(shape.n_layer))), d, shape.vocab_size, shape.n_positions, tied)


def check_table(directory: Path, wanted: TensorMap, table: Mapping[str, TensorInfo]) -> TensorMap:
    """Refuse a checkpoint that lacks a tensor, has one of another shape or dtype, or one that we would not use.

    -> where everything is in this one.
    """
    wanted = wanted.found_in(table)
    expected = wanted.expected()
    if wanted.tied and wanted.head in table:
        expected[wanted.head] = (wanted.vocab_size, wanted.width)
    strangers = (name for name in table if name not in expected and not _MASK_BUFFER.fullmatch(name))
    stranger = next(strangers, None)
    missing = next((name for name in expected if name not in table), None)
    if missing is not None:
        instead = f" (there is {shown(stranger)} instead)" if stranger is not None else ""
        raise CheckpointError(
            f"{directory}: tensor {missing} is missing{instead}; config.json is of another model, or cut"
        )
    if stranger is not None:
        info = table[stranger]
        raise CheckpointError(
            f"{directory / info.file}: tensor {shown(stranger)} is no part of the model in config.json"
        )
    for name, shape in expected.items():
        info = table[name]
        if info.shape != shape:
            raise CheckpointError(
                f"{directory / info.file}: {name} has shape {list(info.shape)}, config.json makes it {list(shape)}"
            )
        if info.dtype not in FLOATS:
            raise CheckpointError(
                f"{directory / info.file}: {name} is {info.dtype}; expected F32, BF16 or F16 (float32, bfloat16, float16)"
            )
    return wanted
