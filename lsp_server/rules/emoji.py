"""Signs that cannot be seen where they belong: inside of a well-formed emoji. Unicode Technical Standard 51.

Of the sequences with tags only the three flags are known that are in general use: tags can hide any text.
"""

from __future__ import annotations

import re
from typing import Final

JOINER: Final = "\u200d"
SELECTORS: Final = "\ufe0e\ufe0f"
"""As text, as a picture."""

FLAG: Final = "\U0001f3f4"
_FLAGS: Final = tuple(
    "".join(chr(0xE0000 + ord(letter)) for letter in region) + "\U000e007f" for region in ("gbeng", "gbsct", "gbwls")
)
"""What follows the black flag in those of England, Scotland and Wales."""
_TAGS: Final = len(_FLAGS[0])

_PICTURE: Final = re.compile(
    "[\xa9\xae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a-\u23ff\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe"
    "\u2600-\u27bf\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
)
"""A sign that is drawn as a picture, modifiers of the skin's colour included."""

_KEY: Final = re.compile("[0-9#*]")
_KEYCAP: Final = "\u20e3"


def part_of_emoji(text: str, at: int) -> int | None:
    """How many signs from `at` belong to the emoji that they stand in: 0 if to none, None if that depends on what follows."""
    sign, before = text[at], text[at - 1 : at]
    if sign in SELECTORS:
        if _PICTURE.match(before):
            return 1
        return _followed_by_keycap(text, at) if _KEY.match(before) and sign == SELECTORS[1] else 0
    if sign == JOINER:
        if before == SELECTORS[1]:
            before = text[at - 2 : at - 1]
        if not _PICTURE.match(before):
            return 0
        return None if at + 1 == len(text) else int(_PICTURE.match(text, at + 1) is not None)
    flag = text.rfind(FLAG, max(0, at - _TAGS), at)
    if flag < 0:
        return 0
    tags = text[flag + 1 : flag + 1 + _TAGS]
    if tags in _FLAGS:
        return flag + 1 + _TAGS - at
    return None if any(known.startswith(text[flag + 1 :]) for known in _FLAGS) else 0


def _followed_by_keycap(text: str, at: int) -> int | None:
    return None if at + 1 == len(text) else int(text[at + 1] == _KEYCAP)
