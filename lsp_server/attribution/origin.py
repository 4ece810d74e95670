"""Where a completion stands already, in plain data and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

SEARCH_INDEXES: Final = {
    "StarCoder, StarCoderBase (The Stack 1.2)": "https://huggingface.co/spaces/bigcode/starcoder-search",
    "SantaCoder (The Stack 1.1)": "https://huggingface.co/spaces/bigcode/santacoder-search",
}
"""The published search indexes of what the models were trained on, as their cards name them. Nothing here calls them."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A source that a passage stands in verbatim. `tokens` is the passage's length."""

    package: str
    path: str
    line: int
    licence: str
    tokens: int

    @property
    def text(self) -> str:
        """It in words."""
        return f"{self.package}, {self.path} line {self.line} ({self.licence})"

    def as_dict(self) -> dict[str, Any]:
        """It as sent to editors and printed."""
        return asdict(self)


def sentence(origins: Sequence[Origin]) -> str:
    """What a user is told of a completion that stands there."""
    others = len(origins) - 1
    more = f" and {others} other {'places' if others > 1 else 'place'}" if others else ""
    return f"{origins[0].tokens} tokens verbatim as in {origins[0].text}{more}"
