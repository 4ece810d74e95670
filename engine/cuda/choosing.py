"""Which operations and which runner a model on a CUDA device gets: each is tried on the model itself first.

What cannot be had, or does not say what it should, is left out with a reason: the same tokens, slower.
"""

from __future__ import annotations

import atexit
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.errors import DeviceError
from engine.gpt_bigcode import GPTBigCode
from engine.ops import Head, Ops
from engine.processes import ProcessIdentity
from engine.runner import TorchRunner
from engine.step import Runner, Span

if TYPE_CHECKING:
    from engine.cuda.buckets import Bucket
    from engine.cuda.graphs import Device, Outputs

log = logging.getLogger(__name__)

_WINDOW = 512
"""Positions that are tried, where a model has so many: attention is split over several programs by then."""

_APART = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""What two implementations may differ by, in parts of the values' spread: what rounding adds up to in a deep model."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a model runs with. `note` says what it has to do without, and why; `idle` is for when nobody waits."""

    runner: Runner
    note: str = ""
    idle: Callable[[], bool] | None = None


def choose(model: GPTBigCode, slots: int, window: int, marker: Path | None = None) -> Chosen:
    """Give a model on a CUDA device its operations, KV memory and runner.

    `marker` is a file that is there while kernels are tried, with the process that tries them. One that is found says that a
    trial hung or broke the device, which no exception tells, or that another engine is at it: then there is no other here.
    Raises DeviceError where a trial broke the device of this process.
    """
    if marker is None:
        return _tried(model, slots, window, None)
    if marker.exists():
        over = f"an earlier trial did not end; remove {marker} to try again"
        return _plainly(model, slots, window, "another engine is trying them" if _under_way(marker) else over)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps(astuple(ProcessIdentity.own())), "utf-8")
    # An ordinary end in the middle of a trial says nothing against it; a fault, or the watchdog's end, runs no such hook.
    forget = partial(marker.unlink, missing_ok=True)
    atexit.register(forget)
    try:
        chosen = _tried(model, slots, window, marker.with_name("ordinary-graphs"))
    except Exception:
        if _usable(model.device):
            atexit.unregister(forget)
            forget()
            raise
    if not _usable(model.device):
        atexit.unregister(forget)
        raise DeviceError(f"trying the Triton kernels broke {model.device}; start the engine again: it will do without")
    atexit.unregister(forget)
    forget()
    return chosen


def _under_way(marker: Path) -> bool:
    """Whether another process that began a trial is still there."""
    try:
        trying = ProcessIdentity(*json.loads(marker.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return False
    return trying.alive and trying != ProcessIdentity.own()


def _usable(device: torch.device) -> bool:
    """Whether a device still answers: some errors of a kernel are the end of it for a whole process."""
    try:
        return float(torch.ones(3, device=device).sum()) == 3
    except RuntimeError:
        return False


def _tried(model: GPTBigCode, slots: int, window: int, ordinary: Path | None) -> Chosen:
    try:
        from triton_kernels.ops import TritonOps
    except ImportError as error:
        return _plainly(model, slots, window, f"Triton cannot be imported ({error})")
    ops: Ops = TritonOps(Head)
    try:
        agreed = agrees(model, ops)
    except Exception as error:  # noqa: BLE001  (a compiler's errors are of many kinds, and none may cost the model)
        return _plainly(model, slots, window, f"a Triton kernel failed: {_short(error)}")
    if not agreed:
        return _plainly(model, slots, window, "the Triton kernels and torch disagree on this model")
    model.ops = ops
    eager = TorchRunner(model, slots, window)
    if not isinstance(model.weights.wte, Tensor):
        return Chosen(eager, "no CUDA graphs: the embedding is quantised")
    from engine.cuda.graph_runner import GraphRunner
    from engine.cuda.passes import once

    device, reason = _device(model, ordinary)
    if device is None:
        log.warning("no CUDA graphs: %s", reason)
        return Chosen(eager, f"no CUDA graphs, decoding is slower: {reason}")
    runner = GraphRunner(eager, partial(once, model), model.shape.vocab_size, device)
    return Chosen(runner, idle=runner.idle)


def _plainly(model: GPTBigCode, slots: int, window: int, reason: str) -> Chosen:
    log.warning("no Triton kernels: %s", reason)
    return Chosen(TorchRunner(model, slots, window), f"no Triton kernels, decoding is slower: {reason}")


def _device(model: GPTBigCode, ordinary: Path | None) -> tuple[Device | None, str]:
    """The quickest way to replay graphs that repeats what the launches one by one say; else why there is none.

    After a capture that torch could not end there is no other in a process (torch 2.11): `ordinary` is a file that is left
    for the next one, which begins without dependent launches.
    """
    from engine.cuda.graphs import CudaDevice
    from triton_kernels.launch import DEPENDENT_FROM

    major, minor = torch.cuda.get_device_capability(model.device)
    reason = ""
    may_depend = 10 * major + minor >= DEPENDENT_FROM and not (ordinary is not None and ordinary.exists())
    for dependent in (True, False) if may_depend else (False,):
        device = CudaDevice(model.device, dependent=dependent)
        try:
            if repeats(model, device):
                return device, ""
            reason = "a replayed pass differs from the one it repeats"
        except Exception as error:  # noqa: BLE001  (whatever a driver says, there is the ordinary way)
            reason = f"a pass cannot be captured: {_short(error)}"
            if dependent and ordinary is not None:
                ordinary.touch()
        log.info("graphs%s: %s", " of dependent launches" if dependent else "", reason)
    return None, reason


@torch.inference_mode()
def agrees(model: GPTBigCode, ops: Ops) -> bool:
    """Whether `ops` say of a few made-up tokens what the model's own say: residual, keys and values, logits."""
    window = _window(model)
    # Attention that is split over programs and that is not, each for many tokens, a few, and one.
    late = max(0, window - 48)
    for start, length in (
        (0, 20),
        (20, 3),
        (23, 1),
        (late, min(40, window)),
        (window - 6, 5),
        (window - 2, 2),
        (window - 1, 1),
    ):
        found = []
        for each in (model.ops, ops):
            kv = model.new_kv(1, window)
            kv[:, :, :, :, :start] = _made_up(model, kv[:, :, :, :, :start].shape)
            found.append(_pass(model, each, kv, Span(0, start, length)))
        if not all(_close(a, b, _APART[model.dtype]) for a, b in zip(*found, strict=True)):
            return False
    return True


def _pass(model: GPTBigCode, ops: Ops, kv: Tensor, span: Span) -> tuple[Tensor, ...]:
    tried = GPTBigCode(model.shape, model.weights, ops)
    ids = _made_up_ids(model, span.length)
    positions = torch.arange(span.start, span.start + span.length, device=model.device)
    rows = torch.arange(span.length, device=model.device)
    head = tried.forward(ids, positions, (span,), kv, rows, logits=True)
    assert head is not None  # noqa: S101  (rows were asked for)
    return head.logits, kv[:, :, :, :, span.start : span.start + span.length]


def repeats(model: GPTBigCode, device: Device) -> bool:
    """Whether replays say bit for bit what launches one by one do: ids, log-probabilities, keys and values."""
    from engine.cuda.buckets import Bucket

    window = _window(model)
    greedy = Bucket(1, window, follows=True)
    drawn = Bucket(4, window, drawn=True, narrowed=True)
    return _repeats(model, device, greedy, (Span(1, 9, 1),), times=3) and _repeats(
        model, device, drawn, (Span(0, 3, 3), Span(1, 9, 1)), times=1
    )


@torch.inference_mode()
def _repeats(model: GPTBigCode, device: Device, bucket: Bucket, spans: Sequence[Span], times: int) -> bool:
    from engine.cuda.buckets import Drawn
    from engine.cuda.passes import once
    from engine.cuda.places import Place
    from engine.sampling import Sampling

    rows = sum(span.length for span in spans)
    ids = _made_up_ids(model, rows).tolist()
    answers = [Drawn(row, 10 + row, Sampling(top_k=50, seed=row)) for row in range(rows)]
    place, kv = Place(bucket, model.shape.vocab_size, device), model.new_kv(2, bucket.reach)

    def said(turn: Callable[[], Outputs]) -> list[Tensor]:
        """Everything that some passes in a row leave behind, from the same beginning."""
        kv.copy_(_made_up(model, kv.shape))
        place.fill(spans, ids, answers, ())
        return [*(part[:rows].clone() for _ in range(times) for part in turn()), kv.clone()]

    def replayed() -> Outputs:
        replay()
        return outputs

    one_by_one = said(partial(once, model, place, kv))
    place.fill((), (), (), ())
    replay, outputs = device.record(partial(once, model, place, kv))
    return all(_same(a, b) for a, b in zip(one_by_one, said(replayed), strict=True))


def _window(model: GPTBigCode) -> int:
    return min(_WINDOW, model.shape.n_positions)


def _made_up_ids(model: GPTBigCode, count: int) -> Tensor:
    drawn = torch.randint(model.shape.vocab_size, (count,), generator=torch.Generator().manual_seed(count))
    return drawn.to(model.device)


def _made_up(model: GPTBigCode, shape: Sequence[int]) -> Tensor:
    drawn = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0))
    return drawn.to(model.device, model.dtype)


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def _close(a: Tensor, b: Tensor, apart: float) -> bool:
    a, b = a.float(), b.float()
    return bool((a - b).square().mean().sqrt() <= apart * a.square().mean().sqrt())


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
