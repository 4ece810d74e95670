"""From a wire request to a generation: model name, window, layout, healing and limits are decided here."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from engine.api import CompletionRequest
from engine.errors import RequestError
from engine.fim import Budget, Document, Layout, Prompt, Snippet, lay_out
from engine.generation import Generation
from engine.sampling import Sampling
from engine.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request's first candidate, ready to be queued with its followers, and what the answer says about its prompt."""

    generation: Generation
    layout: Layout
    healed: int

    @property
    def candidates(self) -> tuple[Generation, ...]:
        """All generations of the request: one, or as many as are drawn apart."""
        return (self.generation, *self.generation.followers)


@dataclass(frozen=True, slots=True)
class HealingPolicy:
    """Layouts in which the last pre-token is held back. Anchored always: its tail and the completion are one segment.

    A model trained as long as StarCoder has seen every cut inside a word; a small one has not.
    """

    layouts: frozenset[Layout]

    @classmethod
    def for_model(cls, parameters: int) -> HealingPolicy:
        """Chosen by size, until an evaluation of the very model says otherwise."""
        small = parameters < 500_000_000
        return cls(frozenset({Layout.ANCHORED, Layout.SPM, Layout.PSM} if small else {Layout.ANCHORED}))


class Intake:
    """One model's front desk. Tokenises, so that it may take milliseconds; safe to call from several threads."""

    def __init__(
        self,
        model_id: str,
        tokenizer: Tokenizer,
        vocab_size: int,
        window: int,
        healing: HealingPolicy,
        entropy: Callable[[], int] = lambda: secrets.randbits(64),
        layout: Layout = Layout.ANCHORED,
        budget: Callable[[int, int], Budget] = Budget.of,
    ) -> None:
        """`layout`: what `auto` is for a model that has tokens for the middle; `budget(window, max_tokens)`: how the
        window is shared out.
        """
        self.model_id = model_id
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._window = window
        self._healing = healing
        self._entropy = entropy
        self._budget = budget
        self._layout = layout if tokenizer.control.has_fim else Layout.NONE
        self._ids = itertools.count(1)

    @property
    def fills(self) -> bool:
        """Whether text after the cursor is looked at, unless a request says otherwise."""
        return self._layout is not Layout.NONE

    def take(self, request: CompletionRequest, client: str = "") -> Admitted:
        """Lay a request of `client` out; raises RequestError for what this model cannot serve."""
        if request.model not in (None, "default", self.model_id):
            raise RequestError(
                f"model {request.model!r} is not served here; ask for {self.model_id!r} or leave model out",
                param="model",
                code="model_not_found",
                status=404,
            )
        max_tokens = 16 if request.max_tokens is None else request.max_tokens
        fim = request.suffix is not None
        prompt = self._fim(request, max_tokens) if fim else self._plain(request, max_tokens)
        pin = prompt.shared if fim else len(prompt.ids)
        generation = Generation(
            id=next(self._ids),
            tokenizer=self._tokenizer,
            prompt=prompt.ids,
            max_tokens=max_tokens,
            ends_at=self._tokenizer.is_control if fim else self._is_end_of_text,
            held=prompt.held,
            stop=request.stop_strings,
            top=request.logprobs or 0,
            sampling=self._sampling(request),
            client=client,
            document=request.starfill.document,
            pin=pin if request.starfill.pin else 0,
        )
        if generation.draws_apart:
            generation.add_followers(next(self._ids) for _ in range((request.n or 1) - 1))
        return Admitted(generation, prompt.layout, prompt.healed if max_tokens else 0)

    def _sampling(self, request: CompletionRequest) -> Sampling | None:
        """None where the likeliest token is wanted and nothing changes the logits."""
        sampling = Sampling(
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            top_k=max(0, request.top_k or 0),
            min_p=request.min_p or 0.0,
            repetition_penalty=1.0 if request.repetition_penalty is None else request.repetition_penalty,
            seed=(self._entropy() if request.seed is None else request.seed) & 0xFFFF_FFFF_FFFF_FFFF,
        )
        return sampling if sampling.draws or sampling.penalises else None

    def _fim(self, request: CompletionRequest, max_tokens: int) -> Prompt:
        if not isinstance(request.prompt, str):
            raise RequestError("suffix: a prompt of token ids takes none", param="suffix", code="invalid_value")
        extension = request.starfill
        chosen = self._layout if extension.layout == "auto" else Layout(extension.layout)
        document = Document(
            prefix=request.prompt,
            suffix=request.suffix or "",
            path=extension.path or "",
            repository=extension.repository or "",
            context=[Snippet(s.path, s.text) for s in extension.context],
        )
        heal = chosen in self._healing.layouts and not extension.raw
        budget = self._budget(self._window, max_tokens)
        return lay_out(self._tokenizer, document, chosen, budget, heal=heal, raw=extension.raw)

    def _plain(self, request: CompletionRequest, max_tokens: int) -> Prompt:
        room = self._window - max_tokens
        if isinstance(request.prompt, str):
            encode = self._tokenizer.encode_raw if request.starfill.raw else self._tokenizer.encode
            ids = self._begun(encode(request.prompt, room)) or [self._tokenizer.control.end_of_text]
        else:
            ids = request.prompt
            if max(ids) >= self._vocab_size:
                raise RequestError(
                    f"prompt: token ids end at {self._vocab_size - 1}", param="prompt", code="invalid_value"
                )
        if len(ids) > room:
            # A text that does not fit is not tokenised to its end.
            length = f"more than {max(0, room)}" if isinstance(request.prompt, str) else len(ids)
            raise RequestError(
                f"prompt: {length} tokens and max_tokens {max_tokens} exceed the window of {self._window}; "
                "shorten one of them",
                param="prompt",
                code="context_length_exceeded",
            )
        return Prompt(ids, b"", 0, Layout.NONE)

    def _begun(self, ids: list[int]) -> list[int]:
        """The ids of a whole text, after what such a model has seen at the head of every text, if anything."""
        begin = self._tokenizer.control.begin
        return ids if begin is None or ids[:1] == [begin] else [begin, *ids]

    def _is_end_of_text(self, token: int) -> bool:
        control = self._tokenizer.control
        return token in (control.end_of_text, control.end_of_turn)
