"""Each operation of `engine.ops` against float64 by the two-times rule, then its time with a cold L2 cache."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import reference
from benchmarks.gpu.bench import About, Answer, Bench, Skip, backends, dtype_name
from benchmarks.shapes import FAMILY
from benchmarks.timing import capture, measure, rotations
from engine.gpt_bigcode import ModelShape
from engine.ops import Linear, Norm, Ops, TorchOps
from engine.step import Span

SLOTS = 3
TOP = 8
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Random inputs of one layer at one shape; keys and values past each span's end are NaN."""

    shape: ModelShape
    spans: tuple[Span, ...]
    x: Tensor
    q: Tensor
    inner: Tensor
    ids: Tensor
    positions: Tensor
    allow: Tensor
    kv: Tensor
    norm: Norm
    qkv: Linear
    proj: Linear
    fc: Linear
    mlp: Linear
    wte: Tensor
    wpe: Tensor

    @property
    def scale(self) -> float:
        """Of attention scores."""
        return float(self.shape.head_dim**-0.5)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: how to run it, its float64 result, and which of its inputs are large enough to rotate."""

    run: Callable[[Ops, Inputs], Tensor]
    expected: Callable[[Inputs], Tensor]
    large: str
    times: bool = True


def _qkv(ops: Ops, i: Inputs) -> Tensor:
    kv = i.kv.clone()
    q = ops.ln_qkv_append(i.x, i.norm, i.qkv, kv, i.spans)
    places = [(s.slot, slice(None), slice(None), slice(s.start, s.start + s.length)) for s in i.spans]
    new = torch.cat([kv[place].permute(2, 0, 1, 3).flatten(1) for place in places])
    for place in places:
        kv[place] = i.kv[place]
    if not torch.equal(kv.view(torch.uint8), i.kv.view(torch.uint8)):
        raise ValueError("keys or values were written outside the step's spans")
    return torch.cat([q, new], dim=1)


def _head(ops: Ops, i: Inputs, allow: Tensor | None) -> Tensor:
    head = ops.head(i.x, i.norm, i.wte, allow, TOP)
    return torch.cat([head.logprobs[:, None], head.top_logprobs.sort(dim=1, descending=True).values], dim=1)


def _expected_head(i: Inputs, allow: Tensor | None) -> Tensor:
    logprobs = reference.logprobs(i.x, i.norm, i.wte)
    best = logprobs if allow is None else logprobs.masked_fill(~allow, float("-inf"))
    return torch.cat([best.max(dim=1, keepdim=True).values, torch.topk(logprobs, TOP, dim=1).values], dim=1)


OPERATIONS: dict[str, Operation] = {
    "embed": Operation(
        lambda ops, i: ops.embed(i.ids, i.positions, i.wte, i.wpe),
        lambda i: i.wte[i.ids].double() + i.wpe[i.positions].double(),
        "wte",
        times=False,
    ),
    "ln_qkv_append": Operation(_qkv, lambda i: reference.dense(reference.layer_norm(i.x, i.norm), i.qkv), "qkv"),
    "attend": Operation(
        lambda ops, i: ops.attend(i.q, i.kv, i.spans, i.scale),
        lambda i: reference.attend(i.q, i.kv, i.spans, i.scale),
        "kv",
    ),
    "proj_residual": Operation(
        lambda ops, i: ops.proj_residual(i.x.clone(), i.inner, i.mlp),
        lambda i: i.x.double() + reference.dense(i.inner, i.mlp),
        "mlp",
    ),
    "ln_fc_gelu": Operation(
        lambda ops, i: ops.ln_fc_gelu(i.x, i.norm, i.fc, exact=False),
        lambda i: reference.gelu(reference.dense(reference.layer_norm(i.x, i.norm), i.fc), exact=False),
        "fc",
    ),
    "ln_fc_gelu exact": Operation(
        lambda ops, i: ops.ln_fc_gelu(i.x, i.norm, i.fc, exact=True),
        lambda i: reference.gelu(reference.dense(reference.layer_norm(i.x, i.norm), i.fc), exact=True),
        "fc",
        times=False,
    ),
    "head": Operation(lambda ops, i: _head(ops, i, None), lambda i: _expected_head(i, None), "wte"),
    "head masked": Operation(
        lambda ops, i: _head(ops, i, i.allow), lambda i: _expected_head(i, i.allow), "wte", times=False
    ),
}


def cases(shape: ModelShape) -> list[tuple[Span, ...]]:
    """Steps to check: one token, a few, a block, several sequences at once; at odd contexts and at the window's end."""
    last = shape.n_positions
    wanted = [
        (Span(0, 0, 1),),
        (Span(1, min(2047, last - 1), 1),),
        (Span(2, last - 1, 1),),
        (Span(1, min(777, last - 5), 5),),
        (Span(0, min(63, last - 16), 16),),
        (Span(0, 0, 64),),
        (Span(0, min(1991, last - 200), 200),),
        (Span(2, min(127, last - 3), 3), Span(0, 0, 1), Span(1, min(64, last - 33), 33)),
    ]
    return list(dict.fromkeys(wanted))


def make_inputs(
    shape: ModelShape, spans: Sequence[Span], dtype: torch.dtype, device: torch.device, seed: int
) -> Inputs:
    """Fresh random inputs for a step of these spans."""
    generator = torch.Generator(device).manual_seed(seed)
    d, inner, vocab = shape.n_embd, shape.n_inner, shape.vocab_size
    rows = sum(span.length for span in spans)

    def normal(*size: int, std: float = 1.0, mean: float = 0.0, dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device).normal_(mean, std, generator=generator)

    def linear(out: int, columns: int) -> Linear:
        return Linear(normal(out, columns, std=1 / math.sqrt(columns)), normal(out, std=0.1))

    kv = normal(SLOTS, 2, shape.kv_heads, shape.n_positions, shape.head_dim)
    for slot in range(SLOTS):
        ends = [span.start + span.length for span in spans if span.slot == slot]
        kv[slot, :, :, max(ends, default=0) :] = float("nan")
    positions = torch.cat([torch.arange(s.start, s.start + s.length, device=device) for s in spans])
    allow = torch.empty(rows, vocab, device=device).uniform_(generator=generator) < 0.01
    allow[:, 3] = True
    return Inputs(
        shape=shape,
        spans=tuple(spans),
        x=normal(rows, d, dtype=torch.float32),
        q=normal(rows, d),
        inner=normal(rows, inner),
        ids=torch.randint(vocab, (rows,), generator=generator, device=device),
        positions=positions,
        allow=allow,
        kv=kv,
        norm=Norm(normal(d, std=0.1, mean=1.0), normal(d, std=0.1), shape.norm_eps),
        qkv=linear(d + 2 * shape.kv_heads * shape.head_dim, d),
        proj=linear(d, d),
        fc=linear(inner, d),
        mlp=linear(d, inner),
        wte=normal(vocab, d, std=3 / math.sqrt(d)),
        wpe=normal(shape.n_positions, d),
    )


def run(bench: Bench, names: Sequence[str]) -> None:
    """All operations at the shapes named: correctness of every shape first, then times of every shape."""
    found = backends(bench)
    for name in names:
        for dtype in DTYPES:
            _check(bench, name, dtype, found)
        bench.free()
    for name in names:
        for label in OPERATIONS:
            for backend, ops in found.items():
                _time(bench, name, label, backend, ops)
        bench.free()


def _check(bench: Bench, name: str, dtype: torch.dtype, found: dict[str, Ops]) -> None:
    """One row for each operation and backend: the worst of all cases, relative to what the rule allows."""
    shape = FAMILY[name]
    for backend, ops in found.items():
        for label, operation in OPERATIONS.items():
            about = About("error against float64", "relative", name, dtype_name(dtype), backend, {"operation": label})

            def check(ops: Ops = ops, operation: Operation = operation) -> Answer:
                return _worst(shape, operation, ops, dtype, bench)

            bench.ask(about, check, check=True)


@torch.inference_mode()
def _worst(shape: ModelShape, operation: Operation, ops: Ops, dtype: torch.dtype, bench: Bench) -> Answer:
    worst = Answer(0.0, passed=True, limit=reference.SANE[dtype])
    plain, steps = TorchOps(), cases(shape)
    for number, spans in enumerate(steps):
        inputs = make_inputs(shape, spans, dtype, bench.device, bench.run.seed + number)
        expected = operation.expected(inputs)
        error = reference.relative_error(operation.run(ops, inputs), expected)
        if isinstance(ops, TorchOps):
            limit = reference.SANE[dtype]
            passed = error <= limit
        else:
            passed, limit = reference.two_times(
                error, reference.relative_error(operation.run(plain, inputs), expected), dtype
            )
        assert worst.value is not None and worst.limit is not None
        if error / limit > worst.value / worst.limit:
            case = ", ".join(f"{s.length} at {s.start}" for s in spans)
            worst = Answer(error, passed=passed, limit=limit, detail={"worst_case": case})
    return dataclasses.replace(worst, detail={**worst.detail, "cases": len(steps)})


def _time(bench: Bench, name: str, label: str, backend: str, ops: Ops) -> None:
    """One row for each number of new tokens, at a context of 2,047 or the most that the window holds."""
    operation, shape = OPERATIONS[label], FAMILY[name]
    if not operation.times:
        return
    for tokens in (1, 16):
        context = min(2047, shape.n_positions - tokens)
        detail = {"operation": label, "tokens": tokens, "context": context}

        def time(tokens: int = tokens, context: int = context) -> Answer:
            return _timed(bench, shape, operation, ops, Span(1, context, tokens))

        bench.ask(About("operation time", "us", name, "bfloat16", backend, detail), time)


@torch.inference_mode()
def _timed(bench: Bench, shape: ModelShape, operation: Operation, ops: Ops, span: Span) -> Answer:
    inputs = make_inputs(shape, (span,), torch.bfloat16, bench.device, bench.run.seed)
    large = getattr(inputs, operation.large)
    size = _bytes(large) if operation.large != "kv" else _kv_bytes(shape, span)
    copies = rotations(size, bench.device, most=4 if bench.toy else 256)
    if copies * _bytes(large) > bench.memory_left() * 0.8:
        raise Skip(f"{copies} copies of the weights do not fit")
    work = [_bound(operation, ops, _rotated(inputs, operation.large)) for _ in range(copies)]
    captured = capture(work, bench.device)
    if captured.replay is not None:
        timing = measure(captured.replay, bench.device, seconds=bench.patience, calls=copies)
    else:
        timing = measure(work, bench.device, seconds=bench.patience)
    detail: dict[str, int | float | str] = {
        "mode": "graph" if captured.replay is not None else "eager",
        "copies": copies,
        "gigabytes_per_second": round(size / timing.median / 1e9, 1),
        **bench.percent_of_read(size, timing.median),
    }
    return Answer(timing=timing, per=lambda s: s * 1e6, detail=detail)


def _bound(operation: Operation, ops: Ops, inputs: Inputs) -> Callable[[], object]:
    if operation.run is _qkv:  # the copy and the look at what was appended belong to the check, not to the operation
        return lambda: ops.ln_qkv_append(inputs.x, inputs.norm, inputs.qkv, inputs.kv, inputs.spans)
    if operation.large == "wte":
        return lambda: ops.head(inputs.x, inputs.norm, inputs.wte, None, 0)
    if operation.large == "mlp":
        return lambda: ops.proj_residual(inputs.x, inputs.inner, inputs.mlp)
    return lambda: operation.run(ops, inputs)


def _rotated(inputs: Inputs, name: str) -> Inputs:
    """The same inputs, the large one in memory of its own."""
    large: Tensor | Linear = getattr(inputs, name)
    copy = large.clone() if isinstance(large, Tensor) else Linear(large.weight.clone(), large.bias.clone())
    changed: dict[str, Any] = {name: copy}
    return dataclasses.replace(inputs, **changed)


def _bytes(large: Tensor | Linear) -> int:
    return large.nbytes if isinstance(large, Tensor) else large.weight.nbytes + large.bias.nbytes


def _kv_bytes(shape: ModelShape, span: Span) -> int:
    return (span.start + span.length) * 2 * shape.kv_heads * shape.head_dim * 2
