"""Why nothing is shown: a closed set, each with a sentence for a person."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """Why a request was answered without items."""

    # what the model said
    NOTHING_TO_ADD = "nothing_to_add"
    DUPLICATE = "duplicate"
    REPETITION = "repetition"
    DOES_NOT_PARSE = "does_not_parse"
    LOW_CONFIDENCE = "low_confidence"
    PROSE = "prose"
    UNSAFE = "unsafe"
    VERBATIM = "verbatim"
    # where the cursor stands
    MID_WORD = "mid_word"
    MID_TEXT = "mid_text"
    # what the user set
    DISABLED = "disabled"
    LANGUAGE_OFF = "language_off"
    MANUAL_ONLY = "manual_only"
    # the document
    EXCLUDED = "excluded"
    SECRET = "secret"  # noqa: S105 (a reason, no password)
    TOO_LARGE = "too_large"
    GENERATED = "generated"
    NOT_OPEN = "not_open"
    # code actions
    ACTIONS_OFF = "actions_off"
    NO_INSTRUCTIONS = "no_instructions"
    TOO_LONG = "too_long"
    CUT_OFF = "cut_off"
    NOT_APPLIED = "not_applied"
    # the request's life
    SUPERSEDED = "superseded"
    OUTDATED = "outdated"
    CANCELLED = "cancelled"
    PENDING = "pending"
    FAILED = "failed"
    # the engine
    LOADING = "loading"
    ENGINE_DOWN = "engine_down"
    BUSY = "busy"
    REFUSED = "refused"

    @property
    def text(self) -> str:
        """One sentence for a person; it holds no text of theirs."""
        return _TEXTS[self]


_TEXTS: Final[dict[Reason, str]] = {
    Reason.NOTHING_TO_ADD: "The model had nothing to add here.",
    Reason.DUPLICATE: "The model said what stands right of or below the cursor already.",
    Reason.REPETITION: "The model repeated itself.",
    Reason.DOES_NOT_PARSE: "What the model said would break the file's syntax here.",
    Reason.LOW_CONFIDENCE: "The model was not sure enough (setting min_confidence); invoke completion by hand to see it.",
    Reason.PROSE: "In comments and texts of several lines the model has to be surer (setting min_confidence); invoke "
    "completion by hand to see it.",
    Reason.UNSAFE: "The model's text held characters that cannot be seen or that reorder what is seen.",
    Reason.VERBATIM: "What the model said stands verbatim in indexed code (setting attribution).",
    Reason.MID_WORD: "The cursor stands inside a word; invoke completion by hand to complete there.",
    Reason.MID_TEXT: "The cursor stands in the middle of a comment's or a string's line; invoke completion by hand to "
    "complete there.",
    Reason.DISABLED: "Completion is switched off (setting enabled).",
    Reason.LANGUAGE_OFF: "Completion is switched off for this language.",
    Reason.MANUAL_ONLY: "Completion is shown only when it is invoked by hand (setting trigger).",
    Reason.EXCLUDED: "This file is excluded by an ignore file or by the setting exclude.",
    Reason.SECRET: "This file looks like one that holds secrets, or what the model said like a live key.",
    Reason.TOO_LARGE: "This file, or a line of it, is larger than the settings allow.",
    Reason.GENERATED: "This file is generated; invoke completion by hand to complete there.",
    Reason.NOT_OPEN: "This document is not open here.",
    Reason.ACTIONS_OFF: "Code actions are switched off (setting actions).",
    Reason.NO_INSTRUCTIONS: "This model completes code but is not known to follow instructions; docs/actions.md names models "
    "that do, and the setting actions can insist.",
    Reason.TOO_LONG: "The selection is longer than the model's window; select less.",
    Reason.CUT_OFF: "The answer was longer than the setting action_tokens allows, so it is no edit to apply.",
    Reason.NOT_APPLIED: "The editor did not apply the edit.",
    Reason.SUPERSEDED: "A newer request for this document took its place.",
    Reason.OUTDATED: "The document changed before the answer was there.",
    Reason.CANCELLED: "The editor cancelled the request.",
    Reason.PENDING: "The model is still writing; the next request shows what it wrote.",
    Reason.FAILED: "The language server failed at this request; its log names the kind of error.",
    Reason.LOADING: "The engine is loading its model.",
    Reason.ENGINE_DOWN: "No engine answers; starfill doctor says what is wrong.",
    Reason.BUSY: "The engine has too much to do and took no more work.",
    Reason.REFUSED: "The engine refused the request.",
}
