"""The ways in which families of models cut a text up before BPE: a closed set, each known by the patterns that it has.

A pattern is compared with ours and then ours is used: one from a file could take forever on the right text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.checkpoint.json_file import shown
from engine.errors import CheckpointError

SPACE = "▁"
"""What stands for a blank in a vocabulary that falls back to bytes."""

_Part = tuple[str | bool, ...]

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTE_LEVEL: _Part = ("ByteLevel", False, True)
_BYTES_ONLY: _Part = ("ByteLevel", False, False)


@dataclass(frozen=True, slots=True)
class Splitting:
    """One way. `parts` are the steps; `seams` is where a text may be cut into pieces that tokenise independently."""

    parts: tuple[_Part, ...]
    seams: re.Pattern[str] | None
    composed: bool = False
    """Whether characters are composed first (Unicode's NFC)."""
    byte_fallback: bool = False
    """Whether the vocabulary is of characters, blanks written as `SPACE`, with bytes for the rest."""

    def normalizer(self) -> dict[str, Any] | None:
        """In the library's form. Composing is done before it."""
        if not self.byte_fallback:
            return None
        return {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}

    def pre_tokenizer(self) -> dict[str, Any] | None:
        """In the library's form."""
        steps = [_written(part) for part in self.parts]
        return {"type": "Sequence", "pretokenizers": steps} if steps and not self.byte_fallback else None


def _split(pattern: str) -> _Part:
    return "Split", pattern, "Isolated", False


_BEFORE_LINE_END = re.compile(r"(?<=\S)(?=[\r\n])")
_AFTER_LINE_END = re.compile(r"(?<=\n)(?=[^\S\r\n]*\S)")
"""Signs take the line ends behind them along, and blanks the line ends among them: a line that is not blank starts anew."""

STARCODER2 = Splitting((("Digits", True), _BYTE_LEVEL), _BEFORE_LINE_END)
GPT2 = Splitting((_BYTE_LEVEL,), _BEFORE_LINE_END)
QWEN2 = Splitting((_split(_QWEN2), _BYTES_ONLY), _AFTER_LINE_END, composed=True)
DEEPSEEK_CODER = Splitting(
    (
        _split("[\r\n]"),
        _split(r"\s?\p{L}+"),
        _split(r"\s?\p{P}+"),
        _split("[一-龥ࠀ-一가-퟿]+"),
        ("Digits", True),
        _BYTES_ONLY,
    ),
    _AFTER_LINE_END,
)
GEMMA = Splitting((("Split", " ", "MergedWithPrevious", False),), _BEFORE_LINE_END, byte_fallback=True)

_KNOWN = (STARCODER2, GPT2, QWEN2, DEEPSEEK_CODER, GEMMA, Splitting((), _BEFORE_LINE_END, byte_fallback=True))


def find_splitting(path: Path, normalizer: object, pre_tokenizer: object) -> Splitting:
    """The way that a file describes; raises CheckpointError for any other."""
    composed, byte_fallback = _normal_form(path, normalizer)
    parts = tuple(map(_read, _flat(path, "pre_tokenizer", pre_tokenizer, "pretokenizers")))
    for known in _KNOWN:
        if (known.parts, known.composed, known.byte_fallback) == (parts, composed, byte_fallback):
            return known
    kinds = ", ".join(str(part[0]) for part in parts) or "nothing"
    raise CheckpointError(
        f"{path}: pre_tokenizer: {shown(kinds)[1:-1]} with patterns that are none of those of StarCoder2, Qwen2.5-Coder, "
        "DeepSeek-Coder or CodeGemma"
    )


def _normal_form(path: Path, normalizer: object) -> tuple[bool, bool]:
    """-> whether characters are composed, and whether blanks are written as `SPACE`."""
    steps = _flat(path, "normalizer", normalizer, "normalizers")
    if not steps:
        return False, False
    if steps == [{"type": "NFC"}]:
        return True, False
    if steps == [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]:
        return False, True
    kinds = ", ".join(str(step.get("type")) for step in steps)
    raise CheckpointError(
        f"{path}: normalizer: expected none, NFC, or blanks replaced by {SPACE!a}, not {shown(kinds)}"
    )


def _flat(path: Path, field: str, value: object, inner: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    steps = value.get(inner) if isinstance(value, dict) and value.get("type") == "Sequence" else [value]
    if not isinstance(steps, list) or len(steps) > 16 or not all(isinstance(step, dict) for step in steps):
        raise CheckpointError(f"{path}: {field}: expected one step or a sequence of them")
    return steps


def _read(step: dict[str, Any]) -> _Part:
    """A step in comparable form; of an unknown kind only its kind."""
    kind = step.get("type")
    pattern = step.get("pattern")
    if kind == "Digits":
        return "Digits", step.get("individual_digits") is True
    if kind == "ByteLevel":
        return "ByteLevel", step.get("add_prefix_space") is not False, step.get("use_regex", True) is not False
    if kind == "Split" and isinstance(pattern, dict) and len(pattern) == 1:
        (text,) = pattern.values()
        return "Split", str(text), str(step.get("behavior")), step.get("invert") is True
    return (str(kind),)


def _written(part: _Part) -> dict[str, Any]:
    kind, *rest = part
    if kind == "Digits":
        return {"type": "Digits", "individual_digits": rest[0]}
    if kind == "ByteLevel":
        return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": rest[1]}
    return {"type": "Split", "pattern": {"Regex": rest[0]}, "behavior": rest[1], "invert": rest[2]}
