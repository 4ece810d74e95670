"""How a model is told what to do: the form of its prompt, and which models follow instructions at all.

The Alpaca form is byte for byte that of the cards that name it: GPTeacher-Codegen's has the one with an input, and refers for
the other to Alpaca's `train.py`. Nothing stands after `### Response:`; the models begin their answer there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engine.models import ModelSource

NOTE: Final = "tune.json"
"""What tuning leaves beside a model: from what it was made, and which form of instructions it was taught."""

OPENAI_TERMS: Final = (
    "This model was fine-tuned on outputs of OpenAI's GPT-4, so OpenAI's terms of use apply to what it writes, beside the "
    "model's own licence: https://openai.com/policies/terms-of-use"
)

_WITH_INPUT: Final = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
_WITHOUT_INPUT: Final = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)


class Form(StrEnum):
    """How a model takes an instruction."""

    ALPACA = "alpaca"
    """Fine-tuned on instructions in Alpaca's form."""
    ASSISTANT = "assistant"
    """Trained on code alone, but able to go on with a dialogue that it is shown the beginning of."""


@dataclass(frozen=True, slots=True)
class Following:
    """Whether and how a model follows instructions. `form` is None for one that does not, as far as is known."""

    form: Form | None = None
    terms: str | None = None
    """Whose terms apply to what it writes, beside its licence, in a sentence for people."""


def alpaca(instruction: str, text: str = "") -> str:
    """The prompt of an instruction-tuned model, with `text` as its input unless that is empty."""
    if text:
        return _WITH_INPUT.format(instruction=instruction, input=text)
    return _WITHOUT_INPUT.format(instruction=instruction)


def following_of_id(model: str) -> Following:
    """What is known of a model by its id alone; its owner does not count: a folder that somebody copied is called so too."""
    from engine.models.known import FOLLOWING

    return FOLLOWING.get(model.partition("@")[0].rpartition("/")[2].casefold(), Following())


def following_of(source: ModelSource) -> Following:
    """What is known of a model on disk: what tuning noted beside it, or what its id tells."""
    from engine.checkpoint.folder import ModelFolder
    from engine.checkpoint.json_file import JsonLimits, read_object
    from engine.errors import CheckpointError

    folder = ModelFolder(source.directory)
    if not folder.has(NOTE):
        return following_of_id(source.id)
    try:
        note = read_object(folder, NOTE, JsonLimits(size=2**16, values=2_000))
    except CheckpointError:
        return Following()
    form, terms = note.get("instruct"), note.get("terms")
    return Following(Form(form) if form in tuple(Form) else None, terms if isinstance(terms, str) else None)
