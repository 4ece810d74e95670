"""Every launch that the StarCoder family makes, collected on the meta device: what `check` compiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from triton_kernels.attend import Workspace
from triton_kernels.configs import Target
from triton_kernels.draw import DRAW_FIELDS, Following, advance, draw
from triton_kernels.head import head
from triton_kernels.launch import Launch, recorded
from triton_kernels.ops import TritonOps
from triton_kernels.quantize import GROUP, LANES, Int4Weight, Int8Weight, Weight
from triton_kernels.spans import HostSpan, SpanTable


class Model(NamedTuple):
    """Sizes of one checkpoint."""

    name: str
    width: int
    heads: int
    kv_heads: int
    vocabulary: int
    window: int


class Step(NamedTuple):
    """A kind of step: the new tokens of each span."""

    name: str
    lengths: tuple[int, ...]


MODELS = (
    Model("tiny", 768, 12, 1, 49152, 8192),
    Model("santacoder", 2048, 16, 1, 49280, 2048),
    Model("santacoder-mha", 2048, 16, 16, 49280, 2048),
    Model("3b", 2816, 22, 1, 49152, 8192),
    Model("7b", 4096, 32, 1, 49152, 8192),
    Model("15b", 6144, 48, 1, 49152, 8192),
)
STEPS = (
    Step("decode", (1,)),
    Step("batch", (1, 1, 1)),
    Step("verify", (8,)),
    Step("batch-8", (1,) * 8),
    Step("extend", (48,)),
    Step("prefill", (1024,)),
)
TARGETS = {
    80: Target(80, 108),
    86: Target(86, 28),
    89: Target(89, 128),
    90: Target(90, 132),
    120: Target(120, 170),
}
"""One device for each capability: A100, RTX 3060, RTX 4090, H200, RTX 5090."""

FORMATS = {"bf16": torch.bfloat16, "int8": torch.bfloat16, "int4": torch.bfloat16}
OTHER_FORMATS = ("santacoder",)
"""Models that are compiled in every format; the others in bf16 alone. float16 compiles to the same instructions."""


class Case(NamedTuple):
    """One launch and where it comes from."""

    label: str
    capability: int
    launch: Launch


class _Norm(NamedTuple):
    weight: Tensor
    bias: Tensor
    eps: float


class _Linear(NamedTuple):
    weight: Weight
    bias: Tensor


def cases(capability: int) -> Iterator[Case]:
    """All launches for one capability, repetitions included."""
    for model in MODELS:
        for name in FORMATS if model.name in OTHER_FORMATS else ("bf16",):
            for step in STEPS:
                seen: dict[str, int] = {}
                for launch in _launches(model, step, name, TARGETS[capability]):
                    number = seen[launch.name] = seen.get(launch.name, 0) + 1
                    yield Case(f"{model.name} {name} {step.name} {launch.name} {number}", capability, launch)


def _launches(model: Model, step: Step, form: str, target: Target) -> list[Launch]:
    ops = TritonOps(lambda *parts: parts, target)
    dtype, meta = FORMATS[form], torch.device("meta")
    width, head_dim = model.width, model.width // model.heads

    def empty(*shape: int, of: torch.dtype = dtype) -> Tensor:
        return torch.empty(*shape, dtype=of, device=meta)

    def linear(outputs: int, inputs: int) -> _Linear:
        return _Linear(_weight(form, dtype, outputs, inputs), empty(outputs))

    rows = sum(step.lengths)
    norm = _Norm(empty(width), empty(width), 1e-5)
    kv = empty(2, 3, 2, model.kv_heads, model.window, head_dim)[:, 1]
    # A graph is captured for the whole window, so that is what the splits are chosen for.
    spans = SpanTable.of([HostSpan(0, model.window - length, length) for length in step.lengths], meta)
    ids = empty(rows, of=torch.int64)
    with recorded(dry=True) as launches:
        x = ops.embed(ids, ids, empty(model.vocabulary, width), empty(model.window, width))
        q = ops.ln_qkv_append(x, norm, linear(width + 2 * model.kv_heads * head_dim, width), kv, spans)
        y = ops.attend(q, kv, spans, 0.1)
        x = ops.proj_residual(x, y, linear(width, width))
        inner = ops.ln_fc_gelu(x, norm, linear(4 * width, width), exact=False)
        x = ops.proj_residual(x, inner, linear(width, 4 * width))
        last = x[: len(step.lengths)]
        vocabulary = _weight("int8" if form == "int4" else form, dtype, model.vocabulary, width)
        ops.head(last, norm, vocabulary, None, 0)
        if step.name == "decode":
            allow = empty(1, model.vocabulary, of=torch.bool)
            ops.head(last, norm, vocabulary, allow, 0)
            workspace = Workspace.on(meta)
            choice = head(last, norm, vocabulary, None, workspace, target, dtype=dtype, logits=True)
            table = empty(DRAW_FIELDS, 1, of=torch.int32)
            after = Following(ids.int(), spans, empty(1, of=torch.int32))
            advance(choice.ids, after)
            draw(choice, table, workspace, narrowed=False, following=after)
            draw(choice, table, workspace, allow=allow, seen=allow)
    return launches


def _weight(form: str, dtype: torch.dtype, outputs: int, inputs: int) -> Weight:
    def empty(*shape: int, of: torch.dtype) -> Tensor:
        return torch.empty(*shape, dtype=of, device="meta")

    if form == "int8":
        return Int8Weight(empty(outputs, inputs, of=torch.int8), empty(outputs, of=torch.float32))
    if form == "int4":
        return Int4Weight(
            empty(outputs, inputs // LANES, of=torch.int32), empty(outputs, inputs // GROUP, of=torch.float32)
        )
    return empty(outputs, inputs, of=dtype)
