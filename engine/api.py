"""The engine's wire: OpenAI's legacy completions, with our own fields under one key. Types and limits only; no torch.

Both sides use these types: the service to validate, the client to write requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError
from pydantic_core import ErrorDetails

from engine.errors import RequestError

MAX_BODY = 16 * 2**20
"""Bytes of one request."""

MAX_TEXT = 4 * 2**20
"""Characters of prompt, suffix or one snippet."""

LayoutName = Literal["auto", "anchored", "spm", "psm", "none"]

_Text = Annotated[StrictStr, Field(max_length=MAX_TEXT)]
_Name = Annotated[StrictStr, Field(max_length=4_096)]
_TokenId = Annotated[StrictInt, Field(ge=0, lt=2**31)]

_KINDS = {"string_type": "a string", "list_type": "a list"}
"""What an alternative of a union wants, by the error that it was sent something else."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ContextSnippet(_Wire):
    """Part of another file, to stand before the document."""

    path: _Name
    text: _Text


class Extension(_Wire):
    """Our own request fields. `document` is opaque: affinity and fairness only.

    `pin` asks to keep the head of the prompt in a KV slot of its own, which other prompts do not displace: the repository
    and context that stand before the document, or all of a plain prompt.
    """

    context: Annotated[tuple[ContextSnippet, ...], Field(max_length=64)] = ()
    path: _Name | None = None
    repository: _Name | None = None
    language: _Name | None = None
    layout: LayoutName = "auto"
    document: _Name | None = None
    raw: StrictBool = False
    pin: StrictBool = False


class StreamOptions(_Wire):
    """OpenAI's streaming options."""

    include_usage: StrictBool = False


class CompletionRequest(_Wire):
    """`POST /v1/completions`. A `suffix`, even empty, makes it fill-in-the-middle.

    Absent and null are OpenAI's defaults: temperature 1, top_p 1, one candidate. `top_k` (0 and -1 are off), `min_p` and
    `repetition_penalty` are vLLM's.
    """

    model: _Name | None = None
    prompt: _Text | Annotated[list[_TokenId], Field(min_length=1, max_length=1_048_576)]
    suffix: _Text | None = None
    max_tokens: Annotated[StrictInt, Field(ge=0, le=1_048_576)] | None = 16
    temperature: Annotated[StrictFloat, Field(ge=0, le=2)] | None = None
    top_p: Annotated[StrictFloat, Field(gt=0, le=1)] | None = None
    top_k: Annotated[StrictInt, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[StrictFloat, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[StrictFloat, Field(gt=0, le=10)] | None = None
    n: Annotated[StrictInt, Field(ge=1, le=16)] | None = None
    stop: (
        Annotated[StrictStr, Field(min_length=1, max_length=256)]
        | Annotated[list[Annotated[StrictStr, Field(min_length=1, max_length=256)]], Field(max_length=16)]
        | None
    ) = None
    seed: Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | None = None
    logprobs: Annotated[StrictInt, Field(ge=0, le=5)] | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: StrictBool = False
    starfill: Extension = Extension()

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` in its one form."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


def parse_completion(body: bytes) -> CompletionRequest:
    """Validate a request's body; raises RequestError naming the field that is wrong."""
    try:
        return CompletionRequest.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        if found[0]["type"] == "json_invalid":
            raise RequestError(f"the body is not JSON: {found[0]['ctx']['error']}", code="invalid_json") from None
        wrong = _telling(found)
        raise _refusal(wrong["loc"], wrong["type"], wrong["msg"]) from None


def _telling(errors: Sequence[ErrorDetails]) -> ErrorDetails:
    """The first error; of a union the first of the alternative whose kind of value was sent."""
    first = errors[0]
    if not _alternative(first):
        return first
    rivals = [each for each in errors if each["loc"][0] == first["loc"][0]]
    kinds = [each for each in rivals if len(each["loc"]) == 2 and each["type"] in _KINDS]
    if len(kinds) < len(rivals):
        return next(each for each in rivals if each not in kinds)
    expected = " or ".join(_KINDS[each["type"]] for each in kinds)
    return {**first, "msg": f"Input should be {expected}"}


def _alternative(error: ErrorDetails) -> bool:
    """Whether a union's alternative was tried: the location names it ("prompt", "constrained-str")."""
    return any(isinstance(part, str) and not part.isidentifier() for part in error["loc"][1:])


def _refusal(location: tuple[int | str, ...], kind: str, message: str) -> RequestError:
    # The name of a union's alternative is none of a field: leave it out.
    path = [str(part) for part in location if isinstance(part, int) or part.isidentifier() or kind == "extra_forbidden"]
    param = ".".join(path) or None
    if kind == "extra_forbidden":
        return RequestError(f"unknown field {param!r}; remove it", param=param, code="unknown_field")
    if kind == "missing":
        return RequestError(f"{param} is required", param=param, code="missing_field")
    return RequestError(f"{param or 'the body'}: {message}", param=param, code="invalid_value")


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """OpenAI's usage object. Tokens held back for healing are not in `prompt`, nor their regrowth in `completion`."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
