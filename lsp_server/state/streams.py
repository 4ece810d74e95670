"""One stream of the engine: what it has said, and what of it would be shown at the cursor that it is read at. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.client import Chunk
from lsp_server.reasons import Reason
from lsp_server.reuse import Reusable, typed_since
from lsp_server.rules.hygiene import CleanStream
from lsp_server.rules.languages import Language, by_id
from lsp_server.shaping import CLOSERS, Shaper
from lsp_server.state.ask import Ask, RequestId
from lsp_server.state.call import Call, Purpose, StreamId
from lsp_server.state.events import Typed
from lsp_server.state.outcome import Item, Outcome
from lsp_server.window import Window


class Voice:
    """One choice of a stream: its text as the document has it, and what of that would be shown."""

    def __init__(self, window: Window, language: Language, *, invoked: bool) -> None:
        self.text = ""
        self.enough = False
        self.logprobs: list[float] = []
        self._language = language
        self._clean = CleanStream(window)
        self._shaper = Shaper(window, language, invoked=invoked)
        self._before = ""  # said before the cursor that it is read at

    def feed(self, chunk: Chunk) -> None:
        """Take in a piece."""
        self.logprobs.extend(chunk.logprobs)
        if text := self._clean.feed(chunk.text):
            self._shape(text)
        self.enough = self.enough or self._clean.cut is not None

    def read_at(self, window: Window, said: int, *, invoked: bool) -> None:
        """Shape it for another request, at whose cursor so many of its characters stand already."""
        raw = self.raw
        self.text, self.enough = "", False
        self._before, self._shaper = raw[:said], Shaper(window, self._language, invoked=invoked)
        self._shape(raw[said:])
        self.enough = self.enough or self._clean.cut is not None

    def finish(self, *, cut_short: bool) -> tuple[str, Reason | None]:
        """The text to show in the end, or why there is none."""
        text, reason = self._shaper.finish(cut_short=cut_short)
        return text, self._clean.cut if not text and self._clean.cut is not None else reason

    @property
    def raw(self) -> str:
        """All that was said."""
        return self._before + self._shaper.raw

    @property
    def in_prose(self) -> bool:
        """Whether the cursor is in a comment or a text of several lines."""
        return self._shaper.in_prose

    @property
    def logprob(self) -> float | None:
        """The mean over its tokens."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else None

    def _shape(self, text: str) -> None:
        shaped = self._shaper.feed(text)
        self.text, self.enough = shaped.text, shaped.enough


class Stream:
    """A call in progress. `owner` is the request that it answers, `invoked` or not; without one it goes on for what may be
    typed.

    `lead` is text that was shown but not accepted yet, if the call goes from what would stand there if it were.
    """

    def __init__(
        self,
        number: StreamId,
        call: Call,
        owner: RequestId | None,
        now: float,
        lead: str = "",
        *,
        invoked: bool = False,
    ) -> None:
        self.id = number
        self.call = call
        self.owner = owner
        self.opened = now
        self.lead = lead
        language = by_id(call.surroundings.language)
        self.voices = [Voice(call.window, language, invoked=invoked) for _ in range(call.candidates)]
        self.closing = False
        self.attached = False  # it answers, or answered, a request other than the one that it was opened for
        self.shown = ""
        self.first: float | None = None  # when there was text to show
        self.finish: str | None = None
        self.generated = 0
        self.answer: str | None = None
        self.usage: dict[str, Any] | None = None
        self.extension: dict[str, Any] = {}
        self._typed = ""  # since the call, or since what it leads with was shown

    @property
    def raw(self) -> str:
        """All that its first choice said."""
        return self.voices[0].raw

    @property
    def logprob(self) -> float | None:
        """The mean over the tokens of its first choice."""
        return self.voices[0].logprob

    @property
    def prose(self) -> bool:
        """Whether it is read in a comment or a text of several lines."""
        return self.voices[0].in_prose

    @property
    def enough(self) -> bool:
        """Whether no more is needed of it."""
        if self.lead and self.owner is None:  # nobody waits for it, and after this line comes the next
            return self.voices[0].enough and goes_beyond_its_line(self.raw)
        return all(voice.enough for voice in self.voices)

    @property
    def ended(self) -> bool:
        """Whether the model had no more to say."""
        return self.finish == "stop"

    @property
    def cut_short(self) -> bool:
        """Whether the model had more to say than it was allowed to."""
        return self.finish == "length"

    def take(self, chunk: Chunk, now: float) -> str | None:
        """Take in a piece -> text to show by now, if that is news."""
        self.extension |= chunk.extension or {}
        self.answer = chunk.id or self.answer
        self.usage = chunk.usage or self.usage
        self.generated += len(chunk.logprobs)
        if chunk.index >= len(self.voices):
            return None
        voice = self.voices[chunk.index]
        if chunk.finish_reason is not None and chunk.index == 0:
            self.finish = chunk.finish_reason
        voice.feed(chunk)
        return self._news(now) if chunk.index == 0 else None

    def follow(self, typed: Typed) -> bool:
        """Somebody typed where it is read -> whether it still says what is typed."""
        if typed.deleted > len(self._typed):
            return False
        self._typed = self._typed[: len(self._typed) - typed.deleted] + typed.inserted
        said = self.lead + self.raw
        # An editor may have closed the bracket that was typed.
        return any(
            said.startswith(text) or text.startswith(said)
            for text in (self._typed, self._typed.rstrip("".join(CLOSERS)))
        )

    def agrees(self, window: Window) -> str | None:
        """What was typed since the call if this stream has said that and more, so that it can go on from there."""
        if self.closing or self.call.purpose is not Purpose.COMPLETE:
            return None
        typed = typed_since(self.call.window, window)
        if typed is None or not self.raw.startswith(typed) or (typed and len(typed) == len(self.raw)):
            return None
        return typed

    def attach(self, owner: RequestId, ask: Ask, typed: str, now: float) -> str | None:
        """Let it answer a later request -> text to show by now."""
        self.attached = True
        self.owner, self.lead, self._typed = owner, "", typed
        self.shown, self.first = "", None
        self.voices[0].read_at(ask.window, len(typed), invoked=ask.invoked)
        return self._news(now)

    def outcome(self, since: float, now: float) -> Outcome:
        """What there is to show of it, or why nothing."""
        voice = self.voices[0]
        text, reason = voice.finish(cut_short=self.cut_short)
        cached, computed = self.extension.get("cached"), self.extension.get("computed")
        return Outcome(
            items=(Item(text, voice.logprob),) if text else (),
            reason=reason,
            layout=self.extension.get("layout"),
            finish_reason=self.finish or "stop",
            usage=self.usage or self._counted(),
            cached=cached,
            computed=computed,
            generated=self.generated,
            prose=voice.in_prose,
            first=None if self.first is None else self.first - since,
            total=now - since,
            answer=self.answer,
        )

    def alternatives(self) -> list[Item]:
        """What its choices come to, the likeliest first."""
        items = []
        for voice in self.voices:
            text, _ = voice.finish(cut_short=not voice.enough)
            if text:
                items.append(Item(text, voice.logprob))
        return sorted(items, key=lambda item: -(item.logprob if item.logprob is not None else float("inf")))

    def _news(self, now: float) -> str | None:
        text = self.voices[0].text
        if self.first is None and text:
            self.first = now
        if text == self.shown:
            return None
        self.shown = text
        return text if text.strip() else None

    def _counted(self) -> dict[str, Any] | None:
        """The usage of a stream that was stopped before the engine could say it."""
        if not self.extension:
            return None
        cached, computed = self.extension.get("cached", 0), self.extension.get("computed", 0)
        return {
            "prompt_tokens": cached + computed,
            "completion_tokens": self.generated,
            "total_tokens": cached + computed + self.generated,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


def reused(found: Reusable, ask: Ask, since: float, now: float) -> Outcome | None:
    """What there is to show of a remembered completion; None if it does not say all that is to be shown."""
    shaper = Shaper(ask.window, by_id(ask.surroundings.language), invoked=ask.invoked)
    source = found.source
    enough = shaper.feed(found.rest).enough
    text, reason = shaper.finish(cut_short=source.cut_short)
    if not enough and not source.ended and not (source.cut_short and text):
        return None
    return Outcome(
        items=(Item(text, source.logprob),) if text else (),
        reason=reason,
        layout=source.layout,
        finish_reason="stop",
        cached=0,
        computed=0,
        reused=True,
        prose=shaper.in_prose,
        first=now - since if text else None,
        total=now - since,
    )


def with_alternatives(first: Outcome | None, stream: Stream, since: float, now: float) -> Outcome:
    """What was found first, then what a stream of samples says besides, each text once."""
    first = first or Outcome()
    items = {item.text: item for item in reversed((*first.items, *stream.alternatives()))}
    ordered = tuple(reversed(items.values()))
    return replace(
        first,
        items=ordered,
        reason=None if ordered else first.reason,
        generated=first.generated + stream.generated,
        total=now - since,
    )


def goes_beyond_its_line(text: str) -> bool:
    """Whether a text has another whole line, that is not blank, after the one that it begins on."""
    return any(line.strip() for line in text.split("\n")[1:-1])


def reason_of(error: Exception) -> tuple[Reason, str] | None:
    """Why an engine's error leaves nothing to show, and a sentence for a person; None if nobody foresaw it."""
    from engine.errors import EngineLoading, EngineUnavailable, Overloaded, RequestError

    match error:
        case EngineLoading():
            return Reason.LOADING, str(error)
        case EngineUnavailable():
            return Reason.ENGINE_DOWN, str(error)
        case Overloaded():
            return Reason.BUSY, error.message
        case RequestError():
            return Reason.REFUSED, error.message
    return None
