"""Others on the same weights in the same run: transformers' generate and a compiled loop in the style of gpt-fast.

The prompt is short (prefill is another question) and greedy decoding runs to a fixed length: tokens a second, batch 1.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.gpu import decoding, gpt_fast
from benchmarks.gpu.bench import About, Answer, Bench, Skip, backends, dtype_name
from benchmarks.gpu.models import WIDER
from benchmarks.gpu.subject import Subject
from benchmarks.reference import ALLOWANCE, GAP, worst_lead
from benchmarks.shapes import FAMILY, decode_bytes
from benchmarks.timing import Timing, capture, measure, wall
from benchmarks.weights import tensor_bytes
from engine.ops import Ops

DTYPE = torch.bfloat16
GENERATE: dict[str, tuple[str, dict[str, Any]]] = {
    "transformers eager": ("eager", {"disable_compile": True}),
    "transformers sdpa": ("sdpa", {"disable_compile": True}),
    "transformers static": ("sdpa", {"cache_implementation": "static", "disable_compile": True}),
    "transformers compiled": ("sdpa", {"cache_implementation": "static"}),
}
"""Peers that are a way to call generate: attention implementation and generation options."""


def run(bench: Bench, names: Sequence[str]) -> None:
    """For each shape: tokens a second of ours and of each peer, then ratios."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="torch|transformers")
    found = backends(bench)
    for name in names:
        if not FAMILY[name].multi_query:
            continue
        bench.guard(About("peers", "-", name, dtype_name(DTYPE)), partial(_compare, bench, name, found))
        bench.free()


def _compare(bench: Bench, name: str, found: dict[str, Ops]) -> None:
    needed = FAMILY[name].parameters * DTYPE.itemsize * 1.2 + 2e9
    if needed > bench.memory_left():
        raise Skip(f"{needed / 1e9:.0f} GB for the weights are not free")
    subject = Subject.random(name, FAMILY[name], DTYPE, bench.device, bench.run.seed)
    _Peers(bench, subject).run(found)
    subject.forget()


class _Peers:
    """One shape's comparison."""

    def __init__(self, bench: Bench, subject: Subject) -> None:
        self.bench, self.subject = bench, subject
        self.prompt_tokens, self.new_tokens = (16, 8) if bench.toy else (128, 128)
        self.window = self.prompt_tokens + self.new_tokens
        self.rates: dict[str, float] = {}

    def run(self, found: dict[str, Ops]) -> None:
        """Ours, theirs, ratios."""
        for backend, ops in found.items():
            self.speed(f"starfill {backend} eager", lambda ops=ops: self.ours(ops, graph=False))  # type: ignore[misc]
            self.speed(f"starfill {backend} graph", lambda ops=ops: self.ours(ops, graph=True))  # type: ignore[misc]
        for peer in GENERATE:
            self.speed(peer, lambda peer=peer: self.generate(peer), needs=20.0)  # type: ignore[misc]
            torch.compiler.reset()
        self.agreement()
        self.speed("gpt-fast reduce-overhead", lambda: self.fast("reduce-overhead"), needs=40.0)
        torch.compiler.reset()
        self.speed("gpt-fast captured", lambda: self.fast("default"), needs=40.0)
        torch.compiler.reset()
        self.ratios()

    def about(self, question: str, unit: str, backend: str) -> About:
        """A question on this shape."""
        detail = {"context": self.prompt_tokens, "tokens": self.new_tokens}
        return About(question, unit, self.subject.name, dtype_name(self.subject.dtype), backend, detail)

    def speed(self, backend: str, work: Callable[[], Timing], needs: float = 0.0) -> None:
        """One row: seconds a token, as tokens a second."""

        def answer() -> Answer:
            timing = work()
            self.rates[backend] = 1 / timing.median
            size = decode_bytes(self.subject.shape, dtype_name(self.subject.dtype), self.prompt_tokens)
            percent = self.bench.percent_of_read(size, timing.median)
            return Answer(timing=timing, per=lambda s: 1 / s, detail=percent)

        about = self.about("tokens per second", "tokens/s", backend)
        self.bench.ask(about, answer, needs=0.0 if self.bench.toy else needs)

    def ours(self, ops: Ops, *, graph: bool) -> Timing:
        """A step in the middle of the new tokens."""
        model, context = self.subject.ours(ops), self.prompt_tokens + self.new_tokens // 2
        work: Callable[[], object] = decoding.step(model, 1, context, self.window)
        if graph:
            captured = capture(work, self.bench.device)
            if captured.replay is None:
                raise Skip(captured.reason)
            work = captured.replay
        return measure(work, self.bench.device, seconds=self.bench.patience)

    @torch.no_grad()
    def generate(self, peer: str) -> Timing:
        """The difference between generating all new tokens and one, so that prefill does not count."""
        attention, options = GENERATE[peer]
        if peer == "transformers compiled" and self.bench.device.type == "cpu":
            raise Skip("transformers compiles generate on a GPU only")
        model = self.subject.theirs(attention)
        ids = self.subject.prompt(self.prompt_tokens, self.bench.run.seed)[None]
        model.generation_config.eos_token_id = None
        count = self.new_tokens

        def go(count: int) -> Callable[[], Any]:
            return lambda: model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=count,
                pad_token_id=0,
                **options,
            )

        if tuple(go(count)().shape) != (1, self.window):
            raise ValueError("generate stopped early")
        warmup = 1 if peer == "transformers compiled" else 0
        long = wall(go(count + 1), self.bench.device, warmup=warmup)
        short = wall(go(1), self.bench.device, warmup=warmup)
        each = [max(t - short.median, 1e-9) / count for t in (long.median, long.p10, long.p90)]
        return Timing(each[0], each[1], each[2], long.n)

    @torch.no_grad()
    def fast(self, mode: str) -> Timing:
        """The compiled step in the middle of the new tokens; torch's `default` mode is captured in a graph by hand."""
        device = self.bench.device
        model = gpt_fast.FastModel(self.subject.shape, self.subject.tensors, self.window)
        step = gpt_fast.compiled(model, mode, device)
        token = torch.zeros(1, dtype=torch.int64, device=device)
        position = torch.full((1,), self.prompt_tokens + self.new_tokens // 2, dtype=torch.int64, device=device)

        def one() -> None:
            if mode != "default":
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            token.copy_(step(token, position))

        if mode == "default":
            for _ in range(3):
                one()
            captured = capture(one, device)
            if captured.replay is None:
                raise Skip(captured.reason)
            return measure(captured.replay, device, seconds=self.bench.patience)
        return measure(one, device, seconds=self.bench.patience)

    def agreement(self) -> None:
        """The compiled loop is a fair peer only if it computes the same model: its greedy tokens against the reference."""
        subject, dtype = self.subject, self.subject.dtype
        wider = WIDER[dtype]

        @torch.inference_mode()
        def check() -> Answer:
            if tensor_bytes(subject.tensors) / dtype.itemsize * wider.itemsize + 4e9 > self.bench.memory_left():
                raise Skip(f"the reference in {dtype_name(wider)} does not fit beside the weights")
            model = gpt_fast.FastModel(subject.shape, subject.tensors, self.window)
            prompt = subject.prompt(min(16, self.prompt_tokens), self.bench.run.seed)
            ids = gpt_fast.generate(model, prompt, self.new_tokens)
            whole = torch.cat([prompt, ids])[:-1]
            oracle = subject.widened(wider)
            expected, theirs = oracle.their_logprobs(whole, len(ids)), subject.their_logprobs(whole, len(ids))
            oracle.forget()
            error = float((theirs.to(expected.dtype) - expected).square().mean().sqrt())
            tolerance = GAP * error + ALLOWANCE[dtype]
            lead, same = worst_lead(ids, expected)
            return Answer(
                100 * same,
                passed=lead <= tolerance,
                detail={"worst_lead": _short(lead), "tolerance": _short(tolerance)},
            )

        self.bench.ask(self.about("greedy", "% same", "gpt-fast"), check, check=True)

    def ratios(self) -> None:
        """Our best over each peer: above 1 is in our favour."""
        mine = {name: rate for name, rate in self.rates.items() if name.startswith("starfill")}
        if not mine:
            return
        best = max(mine, key=lambda name: mine[name])
        for peer, rate in self.rates.items():
            if peer not in mine:
                answer = Answer(
                    mine[best] / rate, detail={"ours": best, "ours_tokens_per_second": round(mine[best], 1)}
                )
                self.bench.ask(self.about("ours over peer", "x", peer), lambda answer=answer: answer)  # type: ignore[misc]


def _short(number: float) -> float:
    return float(f"{number:.3g}")
