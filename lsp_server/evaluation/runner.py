"""Holes through the whole pipeline: window, request, engine, shaping, as the completer does it, and what came of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from engine.errors import StarfillError
from lsp_server.buffer import Buffer
from lsp_server.completer import Completer
from lsp_server.evaluation import scores
from lsp_server.evaluation.holes import Hole, Kind
from lsp_server.evaluation.tape import Recording, Tape
from lsp_server.reasons import Reason
from lsp_server.shaping import Rule, Shaper
from lsp_server.state.ask import Surroundings
from lsp_server.state.policy import PLAIN, Policy
from lsp_server.window import Window, window_at

FAILED = frozenset({Reason.ENGINE_DOWN, Reason.LOADING, Reason.REFUSED, Reason.BUSY})


@dataclass(frozen=True, slots=True)
class Result:
    """What one hole got, and how good that is. None where a measure does not apply."""

    hole: Hole
    text: str
    reason: Reason | None
    exact: float | None
    similarity: float | None
    chrf: float | None
    shown: float | None
    quiet: float | None
    overrun: float | None
    broken: float | None
    repeated: float | None
    tokens: float
    seconds: float | None
    computed: float | None


def window_of(hole: Hole) -> Window:
    """The window that the language server would cut."""
    buffer = Buffer(hole.prefix + hole.suffix, encoding="utf-32")
    start = hole.prefix.rfind("\n") + 1
    return window_at(buffer, buffer.position(hole.prefix.count("\n"), hole.start - start))


def judge(
    hole: Hole,
    text: str,
    reason: Reason | None,
    *,
    tokens: float = 0,
    seconds: float | None = None,
    computed: float | None = None,
) -> Result:
    """Score what was shown."""
    truth, shown = hole.truth, bool(text.strip())
    scored = hole.kind is not Kind.NOTHING
    broken = scores.breaks(text, hole.language, hole.prefix, hole.suffix, truth) if shown else None
    return Result(
        hole=hole,
        text=text,
        reason=reason,
        exact=float(scores.exact(text, truth)) if scored else None,
        similarity=scores.edit_similarity(text, truth) if scored else None,
        chrf=scores.chrf(text, truth) if scored else None,
        shown=float(shown) if scored else None,
        quiet=None if scored else float(not shown),
        overrun=float(scores.overruns(text, truth)) if shown else None,
        broken=None if broken is None else float(broken),
        repeated=float(scores.repeats_surroundings(text, hole.prefix, hole.suffix)) if shown else None,
        tokens=tokens,
        seconds=seconds,
        computed=computed,
    )


class Runner:
    """Completes holes one after the other, as one author would ask."""

    def __init__(
        self,
        max_tokens: int,
        *,
        automatic: bool,
        context: Callable[[Hole], Surroundings],
        policy: Policy = PLAIN,
    ) -> None:
        """`policy`: how sure the model has to be of what an automatic request shows."""
        self._max_tokens = max_tokens
        self._automatic = automatic
        self._context = context
        self._policy = policy

    async def run(
        self, holes: Sequence[Hole], tape: Tape, advance: Callable[[], None] = lambda: None
    ) -> list[tuple[Result, Recording | None]]:
        """Complete every hole through a completer of its own -> results, and what the model said where it was asked.

        Raises StarfillError when the engine cannot be had.
        """
        results: list[tuple[Result, Recording | None]] = []
        for hole in holes:
            completer = Completer(tape, self._max_tokens, perf_counter, policy=self._policy)
            tape.last = None
            try:
                outcome = await completer.complete(
                    hole.key, window_of(hole), invoked=not self._automatic, surroundings=self._context(hole)
                )
            finally:
                await completer.aclose()
            if outcome.reason in FAILED:
                raise StarfillError(f"the engine failed: {outcome.detail or outcome.reason.text}")
            text = outcome.items[0].text if outcome.items else ""
            recording = tape.last
            seconds: list[float] = recording.seconds if recording else []
            spent = seconds[min(outcome.generated, len(seconds)) - 1] if seconds and outcome.generated else None
            computed = None if recording is None else recording.computed
            result = judge(hole, text, outcome.reason, tokens=outcome.generated, seconds=spent, computed=computed)
            results.append((result, recording))
            advance()
        return results


def reshape(
    hole: Hole,
    recording: Recording,
    rules: frozenset[Rule],
    window: Window | None = None,
    *,
    invoked: bool = False,
    policy: Policy | None = None,
) -> Result:
    """Shape a recorded generation by some of the rules; with a `policy` it is not shown if the model was not sure enough."""
    shaper = Shaper(window or window_of(hole), hole.language, rules, invoked=invoked)
    tokens, total, enough = 0, 0.0, False
    for text, logprobs in recording.pieces:
        tokens += len(logprobs)
        total += sum(logprobs)
        if shaper.feed(text).enough:
            enough = True
            break
    text, reason = shaper.finish(cut_short=not enough and recording.finish == "length")
    if text and tokens and policy is not None and not invoked:
        doubt = policy.doubt(total / tokens, prose=shaper.in_prose)
        text, reason = (text, None) if doubt is None else ("", doubt[0])
    return judge(hole, text, reason, tokens=tokens, computed=recording.computed)
