"""Decode, extension and prefill of one model, beside what bandwidth and matrix rate allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.gpu import decoding
from benchmarks.gpu.bench import About, Answer, Bench, Skip
from benchmarks.gpu.subject import Subject
from benchmarks.shapes import decode_bytes, floor_seconds, prefill_flops
from benchmarks.timing import capture, measure
from engine.ops import Head, Ops

QUESTIONS = ("decode", "extension", "prefill")
CONTEXTS = (128, 2048, 8192)
NEW_TOKENS = (1, 4, 16, 64, 512, 2048)
PREFILLS = (512, 2048, 8192)
GRAPH_TOLERANCE = 0.1
"""Nats by which a graph's best log-probability may differ from the eager one: cuBLAS may choose otherwise when captured."""

GRAPHED = 64
"""Most new tokens of a step that is also timed as a graph: longer ones are not held up by launching."""


def run(bench: Bench, subject: Subject, found: dict[str, Ops]) -> None:
    """All speed questions of one model."""
    places = sorted({min(context, subject.shape.n_positions - 1) for context in CONTEXTS})
    for backend, ops in found.items():
        for context in places:
            _decode(bench, subject, backend, ops, context)
        _runner(bench, subject, backend, ops)
        for context in places:
            for tokens in NEW_TOKENS:
                if tokens < subject.shape.n_positions:
                    _extend(bench, subject, backend, ops, tokens, min(context, subject.shape.n_positions - tokens))
        for tokens in sorted({min(t, subject.shape.n_positions) for t in PREFILLS}):
            _prefill(bench, subject, backend, ops, tokens)
        bench.free()
    _predict(bench, subject, places)
    for bits in ("int8", "int4"):
        _in_fewer_bits(bench, subject.stored_in(bits), found, places)


def _in_fewer_bits(bench: Bench, subject: Subject, found: dict[str, Ops], places: Sequence[int]) -> None:
    """Decode alone: what fewer bits are for. Through our kernels; torch has none that would be a peer."""
    if "triton" in found:
        for context in places:
            _decode(bench, subject, "triton", found["triton"], context)
        bench.free()


def _decode(bench: Bench, subject: Subject, backend: str, ops: Ops, context: int) -> None:
    """Tokens a second at batch 1, launched one by one and as a graph, and the share of the read bandwidth."""
    for mode in ("eager", "graph"):

        def decode(mode: str = mode) -> Answer:
            work, told = _mode(bench, decoding.step(subject.ours(ops), 1, context, subject.shape.n_positions), mode)
            timing = measure(work, bench.device, seconds=bench.patience)
            size = decode_bytes(subject.shape, subject.stored, context)
            told |= bench.percent_of_read(size, timing.median)
            return Answer(timing=timing, per=lambda s: 1 / s, detail=told)

        detail = {"context": context, "mode": mode}
        bench.ask(About("decode", "tokens/s", subject.name, subject.stored, backend, detail), decode)


def _extend(bench: Bench, subject: Subject, backend: str, ops: Ops, tokens: int, context: int) -> None:
    """Milliseconds until the next token is known after `tokens` new ones."""
    for mode in ("eager", "graph") if tokens <= GRAPHED else ("eager",):

        def extend(mode: str = mode) -> Answer:
            step = decoding.step(subject.ours(ops), tokens, context, subject.shape.n_positions)
            work, told = _mode(bench, step, mode)
            timing = measure(work, bench.device, seconds=bench.patience / 2)
            return Answer(timing=timing, per=lambda s: s * 1e3, detail=told)

        detail = {"tokens": tokens, "context": context, "mode": mode}
        bench.ask(About("extension", "ms", subject.name, subject.stored, backend, detail), extend)


def _prefill(bench: Bench, subject: Subject, backend: str, ops: Ops, tokens: int) -> None:
    """Milliseconds for a prompt from nothing, and its share of the matrix rate."""

    def prefill() -> Answer:
        work = decoding.step(subject.ours(ops), tokens, 0, subject.shape.n_positions)
        timing = measure(work, bench.device, seconds=bench.patience)
        rate = bench.ceilings.rate
        flops = prefill_flops(subject.shape, tokens)
        share = {} if rate is None else {"percent_of_matrix_rate": round(100 * flops / timing.median / rate, 1)}
        return Answer(timing=timing, per=lambda s: s * 1e3, detail=share)

    detail = {"tokens": tokens}
    bench.ask(About("prefill", "ms", subject.name, subject.stored, backend, detail), prefill)


def _runner(bench: Bench, subject: Subject, backend: str, ops: Ops) -> None:
    """Tokens a second through the engine's own runner: host, traffic and sampling included."""

    def decode() -> Answer:
        try:
            from engine.runner import TorchRunner
            from engine.step import Span, Step
        except ImportError as error:
            raise Skip(f"engine.runner needs {error.name}, which is not installed here") from error
        context = min(128, subject.shape.n_positions // 2)
        runner = TorchRunner(subject.ours(ops), 1, subject.shape.n_positions)
        prompt = tuple(subject.prompt(context, bench.run.seed).tolist())
        runner.run(Step.of(Span(0, 0, context), prompt))
        token = prompt[0]

        def one() -> None:
            nonlocal token
            token = runner.run(Step.of(Span(0, context, 1), (token,)))[0].id

        timing = measure(one, bench.device, seconds=bench.patience)
        size = decode_bytes(subject.shape, subject.stored, context)
        detail = bench.percent_of_read(size, timing.median)
        return Answer(timing=timing, per=lambda s: 1 / s, detail={"context": context, **detail})

    bench.ask(About("decode", "tokens/s", subject.name, subject.stored, backend, {"mode": "runner"}), decode)


def _predict(bench: Bench, subject: Subject, contexts: Sequence[int]) -> None:
    """The floor that bytes and FLOP set, from the ceilings measured in this run: what a perfect engine would reach."""
    read, rate = bench.ceilings.read, bench.ceilings.rate
    if read is None or rate is None:
        return
    shape, dtype = subject.shape, subject.stored

    def floor(tokens: int, context: int) -> float:
        return floor_seconds(shape, dtype, tokens, context, read, rate)

    def tell(question: str, unit: str, value: float, detail: dict[str, int]) -> None:
        about = About(question, unit, subject.name, dtype, "floor", detail)
        bench.ask(about, lambda: Answer(value, measured=False))

    for context in contexts:
        tell("decode", "tokens/s", 1 / floor(1, context), {"context": context})
        for tokens in NEW_TOKENS:
            if tokens < shape.n_positions:
                start = min(context, shape.n_positions - tokens)
                tell("extension", "ms", 1e3 * floor(tokens, start), {"tokens": tokens, "context": start})
    for tokens in sorted({min(t, shape.n_positions) for t in PREFILLS}):
        tell("prefill", "ms", 1e3 * floor(tokens, 0), {"tokens": tokens})


def _mode(
    bench: Bench, step: Callable[[], Head | None], mode: str
) -> tuple[Callable[[], object], dict[str, int | float | str]]:
    """The step itself, or its graph, and what to tell of it; skips the question where there is no graph."""
    if mode == "eager":
        return step, {}
    captured = capture(step, bench.device)
    if captured.replay is None:
        raise Skip(captured.reason)
    eager, graphed = step(), captured.output
    assert isinstance(eager, Head)
    assert isinstance(graphed, Head)
    if all(torch.equal(a, b) for a, b in zip(eager, graphed, strict=True)):
        return captured.replay, {"against_eager": "bitwise equal"}
    apart = float((eager.logprobs - graphed.logprobs).abs().max())
    if not apart <= GRAPH_TOLERANCE:
        raise ValueError(f"the graph's log-probability is {apart:.3g} nats from the eager one")
    return captured.replay, {"against_eager": f"{apart:.2g} nats apart"}
