"""Whole models of real shapes and random weights: the same logits as transformers, then how fast they run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from benchmarks.gpu import decoding, speed
from benchmarks.gpu.bench import About, Answer, Bench, Skip, backends, dtype_name
from benchmarks.gpu.subject import Subject
from benchmarks.reference import ALLOWANCE, FACTOR, GAP, judge_logprobs, worst_lead
from benchmarks.shapes import FAMILY, TOYS
from benchmarks.weights import tensor_bytes
from engine.ops import Ops

WIDER = {torch.float32: torch.float64, torch.bfloat16: torch.float32, torch.float16: torch.float32}
SMALL = (*TOYS, "tiny")
"""Shapes that are also checked in float32, against float64."""

PROMPT, JUDGED, NEW = 160, 48, 32
"""Tokens of the prompt, its last rows that are judged, and tokens decoded greedily after it."""

LONG = 2048
"""Tokens of the longer prompt, where the window and the memory hold it."""


def run(bench: Bench, names: Sequence[str]) -> None:
    """For each shape: agreement with transformers, then decode, extension and prefill."""
    found = backends(bench)
    checks = [] if bench.toy or not names or "tiny" in names else [("tiny", torch.float32)]
    for name in names:
        checks += [(name, torch.float32)] if name in SMALL else []
        checks.append((name, torch.bfloat16))
    for name, dtype in checks:
        about = About("agreement", "-", name, dtype_name(dtype))
        if bench.wants("logprobs", "greedy"):
            bench.guard(about, partial(_agreement, bench, name, dtype, found), check=True)
        bench.free()
    for name in names:
        if FAMILY[name].multi_query and bench.wants(*speed.QUESTIONS):
            bench.guard(About("speed", "-", name), partial(_speed, bench, name, found))
        bench.free()


def _speed(bench: Bench, name: str, found: dict[str, Ops]) -> None:
    subject = _subject(bench, name, torch.bfloat16)
    speed.run(bench, subject, found)
    subject.forget()


def _subject(bench: Bench, name: str, dtype: torch.dtype) -> Subject:
    """Weights on the device, where they fit beside some work space."""
    shape = FAMILY[name]
    needed = shape.parameters * dtype.itemsize * 1.2 + 2e9
    if needed > bench.memory_left():
        raise Skip(f"{needed / 1e9:.0f} GB for the weights are not free")
    return Subject.random(name, shape, dtype, bench.device, bench.run.seed)


def _agreement(bench: Bench, name: str, dtype: torch.dtype, found: dict[str, Ops]) -> None:
    """Log-probabilities and greedy tokens against transformers in the next wider type, over the same rounded weights."""
    subject = _subject(bench, name, dtype)
    if tensor_bytes(subject.tensors) / dtype.itemsize * WIDER[dtype].itemsize + 4e9 > bench.memory_left():
        raise Skip(f"the reference in {dtype_name(WIDER[dtype])} does not fit beside the weights")
    oracle = subject.widened(WIDER[dtype])
    lengths = [min(PROMPT, subject.shape.n_positions - NEW)]
    if subject.shape.n_positions > LONG + NEW:
        lengths.append(LONG)
    for backend, ops in found.items():
        for length in lengths:
            for pieces in decoding.ways(length, JUDGED):
                detail: dict[str, int | str] = {"tokens": length, "pieces": len(pieces)}

                def logprobs(ops: Ops = ops, length: int = length, pieces: tuple[int, ...] = pieces) -> Answer:
                    return _judged(bench, subject, oracle, ops, length, pieces)

                bench.ask(About("logprobs", "nats RMS", name, dtype_name(dtype), backend, detail), logprobs, check=True)

        def greedy(ops: Ops = ops) -> Answer:
            return _greedy(bench, subject, oracle, ops, lengths[0])

        detail = {"tokens": NEW, "context": lengths[0]}
        bench.ask(About("greedy", "% same", name, dtype_name(dtype), backend, detail), greedy, check=True)
    oracle.forget()
    subject.forget()
    bench.free()


@torch.inference_mode()
def _judged(bench: Bench, subject: Subject, oracle: Subject, ops: Ops, length: int, pieces: tuple[int, ...]) -> Answer:
    """The two-times rule on log-probabilities, ours computed in these pieces; transformers' always in one."""
    ids = subject.prompt(length, bench.run.seed)
    expected = oracle.their_logprobs(ids, JUDGED)
    theirs = subject.their_logprobs(ids, JUDGED)
    ours = decoding.prefill(subject.ours(ops), ids, pieces, JUDGED, top=min(256, subject.shape.vocab_size))
    judged = judge_logprobs(ours, theirs, expected)
    limit = FACTOR * judged.theirs + ALLOWANCE[subject.dtype]
    return Answer(
        judged.ours, passed=judged.ours <= limit, limit=limit, detail={"transformers": float(f"{judged.theirs:.3g}")}
    )


@torch.inference_mode()
def _greedy(bench: Bench, subject: Subject, oracle: Subject, ops: Ops, length: int) -> Answer:
    """Our greedy tokens, each judged after our own: the same wherever the reference's lead exceeds the error fourfold."""
    prompt = subject.prompt(length, bench.run.seed)
    ids = decoding.greedy(subject.ours(ops), prompt, NEW)
    whole = torch.cat([prompt, ids])[:-1]
    expected, theirs = oracle.their_logprobs(whole, NEW), subject.their_logprobs(whole, NEW)
    if ids.numel() != NEW:
        raise Skip(f"{ids.numel()} tokens came, not {NEW}")
    error = float((theirs.to(expected.dtype) - expected).square().mean().sqrt())
    tolerance = GAP * error + ALLOWANCE[subject.dtype]
    lead, same = worst_lead(ids, expected)
    return Answer(
        100 * same,
        passed=lead <= tolerance,
        detail={"worst_lead": float(f"{lead:.3g}"), "tolerance": float(f"{tolerance:.3g}")},
    )
