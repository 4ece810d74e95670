"""The control tokens that prompts are laid out with, whatever each family of models calls them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_ENDS_OF_TURN = ("<|end|>", "<|im_end|>", "<end_of_turn>", "<|EOT|>")
"""StarChat's, Qwen2.5-Coder's, CodeGemma's and DeepSeek-Coder's."""


@dataclass(frozen=True, slots=True)
class ControlTokens:
    """Ids of the control tokens that we lay out prompts with; None where the model has none.

    `begin` is what stands at the head of every text that such a model has seen; `end_of_turn` is what a model that was
    taught to answer ends its answers with.
    """

    end_of_text: int
    fim_prefix: int | None
    fim_middle: int | None
    fim_suffix: int | None
    filename: int | None
    reponame: int | None
    begin: int | None = None
    end_of_turn: int | None = None

    @property
    def has_fim(self) -> bool:
        """Whether the model was made for fill-in-the-middle."""
        return None not in (self.fim_prefix, self.fim_middle, self.fim_suffix)


def find_end_of_turn(control: Mapping[str, int]) -> int | None:
    """The token that ends an answer, if there is one among the control tokens."""
    return next((control[text] for text in _ENDS_OF_TURN if text in control), None)
