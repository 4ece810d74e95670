"""One generation: from prompt ids to text, with healing, stop strings and budgets. No device, no clock, no wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from engine.sampling import Sampling
from engine.step import Sample
from engine.tokenizer import Detokenizer, Tokenizer


class Finish(StrEnum):
    """Why a generation ended, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token as the wire reports it: `text` is what it adds, `label` names it even where it adds none.

    A character that several tokens make is the text of the last of them.
    """

    id: int
    text: str
    label: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step added. `text` may lag behind `tokens` while a character or a stop string is incomplete."""

    text: str
    tokens: tuple[Token, ...] = ()
    finish: Finish | None = None


@dataclass(slots=True, eq=False)
class Generation:
    """A prompt being continued. The scheduler moves `arrival` to `paused`; this class turns samples into text.

    sampling: how tokens are drawn; None is the arg-max.
    client, document: whom and what it is for: fairness, and the newest first within one document.
    pin: leading tokens of the prompt that are to stay in a KV slot of their own.
    followers: the request's other candidates, which continue the same prompt from its KV.
    request: the id of the first candidate.
    discarded, admitted_at: tokens whose KV had to go for it, and when it got its slot, by the worker's clock.
    """

    id: int
    tokenizer: Tokenizer
    prompt: Sequence[int]
    max_tokens: int
    ends_at: Callable[[int], bool]
    held: bytes = b""
    stop: tuple[str, ...] = ()
    top: int = 0
    sampling: Sampling | None = None
    client: str = ""
    document: str | None = None
    pin: int = 0
    followers: tuple[Generation, ...] = ()
    request: int = 0
    arrival: int = 0
    slot: int | None = None
    reused: int = 0
    computed: int = 0
    skipped: int = 0
    discarded: int = 0
    admitted_at: float | None = None
    paused: bool = False
    generated: list[int] = field(default_factory=list)
    _counted: int = 0
    _pending: str = ""
    _detokenizer: Detokenizer = field(init=False)

    def __post_init__(self) -> None:
        self._detokenizer = Detokenizer(self.tokenizer)
        self.request = self.request or self.id
        if self.max_tokens == 0:
            self.held = b""

    @property
    def length(self) -> int:
        """Tokens known so far: the prompt's and those generated."""
        return len(self.prompt) + len(self.generated)

    @property
    def primes_only(self) -> bool:
        """Whether the prompt's KV is all that is wanted."""
        return self.max_tokens == 0

    @property
    def candidate(self) -> int:
        """Which of the request's completions this is."""
        return self.sampling.candidate if self.sampling is not None else 0

    @property
    def draws_apart(self) -> bool:
        """Whether several candidates could differ: greedy ones are all alike, and so is nothing."""
        return self.sampling is not None and self.sampling.draws and not self.primes_only

    def add_followers(self, ids: Iterable[int]) -> None:
        """Ask for more candidates, one for each id."""
        assert self.sampling is not None  # noqa: S101  (callers look at `draws_apart`)
        self.followers = tuple(
            replace(
                self, id=each, request=self.id, sampling=replace(self.sampling, candidate=number), pin=0, generated=[]
            )
            for number, each in enumerate(ids, start=1)
        )

    @property
    def draws(self) -> int:
        """Tokens to draw after the row that is computed next: one for each candidate after the prompt, then one."""
        return 1 if self.generated else 1 + len(self.followers)

    @property
    def foreseeable(self) -> bool:
        """Whether the tokens after the next one are drawn as the next one is, so that guesses at them can be verified."""
        penalised = self.sampling is not None and self.sampling.penalises
        return not (self.primes_only or self.held or penalised or self.draws > 1)

    @property
    def left(self) -> int:
        """Tokens that may still be generated."""
        return self.max_tokens - self._counted

    @property
    def seen(self) -> Sequence[int]:
        """Ids that a repetition penalty applies to; none without one."""
        if self.sampling is None or not self.sampling.penalises:
            return ()
        return sorted({*self.prompt, *self.generated})

    @property
    def allowed(self) -> Sequence[int] | None:
        """Ids that may come next while held-back text is regrown; None when all may."""
        return self.tokenizer.tokens_along(self.held) if self.held else None

    def ids_from(self, start: int, end: int) -> Sequence[int]:
        """Token ids of the half-open range of positions."""
        prompt = len(self.prompt)
        return [*self.prompt[start:end], *self.generated[max(0, start - prompt) : max(0, end - prompt)]]

    def accept(self, sample: Sample) -> Delta:
        """Take the model's next token."""
        self.generated.append(sample.id)
        if not self.held and self.ends_at(sample.id):
            return self._end(Finish.STOP)
        data = self.tokenizer.bytes_of(sample.id)
        if self.held:
            if not data or not (data.startswith(self.held) or self.held.startswith(data)):
                return self._end(Finish.STOP)  # not one of `allowed`: nothing that follows would be counted
            if len(data) <= len(self.held) and self.held.startswith(data):
                self.held = self.held[len(data) :]
                return Delta("")
            data, self.held = data[len(self.held) :], b""
        text = self._detokenizer.feed_bytes(data)
        self._counted += 1
        top = tuple((self.tokenizer.label(i), logprob) for i, logprob in sample.top[: self.top])
        label = self.tokenizer.label(sample.id)
        token = Token(sample.id, text, label, sample.logprob, top)
        if self._counted >= self.max_tokens:
            return self._end(Finish.LENGTH, text, token)
        shown, stopped = self._pass_stop(text)
        return Delta(shown, (token,), Finish.STOP if stopped else None)

    def close(self) -> Delta:
        """Close the sequence: its KV slot is full, or nothing more than its prompt was wanted."""
        return self._end(Finish.LENGTH)

    def _end(self, finish: Finish, text: str = "", *tokens: Token) -> Delta:
        shown, stopped = self._pass_stop(text + self._detokenizer.finish())
        if stopped:
            return Delta(shown, tokens, Finish.STOP)
        shown += self._pending
        self._pending = ""
        return Delta(shown, tokens, finish)

    def _pass_stop(self, text: str) -> tuple[str, bool]:
        """-> (text that may be shown, whether a stop string was met); keeps back what may yet become one."""
        if not self.stop:
            return text, False
        text = self._pending + text
        found = [at for at in (text.find(stop) for stop in self.stop) if at >= 0]
        if found:
            self._pending = ""
            return text[: min(found)], True
        keep = max(
            (n for stop in self.stop for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n])),
            default=0,
        )
        self._pending = text[len(text) - keep :]
        return text[: len(text) - keep], False
