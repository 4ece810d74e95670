"""What was offered to the editor lately, by id, so that what it says about an item can be understood."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from lsp_server.state.outcome import Item

_MAX_OFFERS = 256


@dataclass(slots=True)
class Offer:
    """One item as the editor got it, line ends included."""

    language: str
    text: str
    logprob: float | None
    by_hand: bool = False
    """Whether somebody had asked for it."""
    shown: bool = False
    taken: int = 0
    """How much of it was accepted so far, in UTF-16 code units."""

    @property
    def length(self) -> int:
        """In UTF-16 code units."""
        return utf16(self.text)


class Offers:
    """The latest offers, least recently spoken of forgotten first."""

    def __init__(self) -> None:
        self._session = secrets.token_hex(4)
        self._last = 0
        self._offers: LRUCache[str, Offer] = LRUCache(_MAX_OFFERS)

    def name(self) -> str:
        """A new id."""
        self._last += 1
        return f"{self._session}-{self._last}"

    def add(self, item: Item, text: str, language: str, identifier: str | None = None, *, by_hand: bool = False) -> str:
        """Remember an item, sent as `text`, under an id or a new one -> the id."""
        identifier = identifier or self.name()
        self._offers[identifier] = Offer(language, text, item.logprob, by_hand)
        return identifier

    def get(self, identifier: Any) -> Offer | None:
        """The offer of an id that came from a client."""
        return self._offers.get(identifier) if isinstance(identifier, str) else None

    def of_item(self, item: Any) -> Offer | None:
        """The offer that a client's item is: the argument of its command says so."""
        command = item.get("command") if isinstance(item, Mapping) else None
        arguments = command.get("arguments") if isinstance(command, Mapping) else None
        return self.get(arguments[0]) if isinstance(arguments, list | tuple) and arguments else None


def utf16(text: str) -> int:
    """The length in UTF-16 code units."""
    return len(text) + sum(ord(sign) > 0xFFFF for sign in text)
