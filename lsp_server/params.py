"""What must be right about params before pygls reads them: its converter makes text of whatever stands where text belongs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_MOST = 2**31


def fault_of(method: str, params: Any) -> str | None:
    """What is wrong with the params of a message, in words for the client; None if nothing is, or if nobody minds."""
    check = _CHECKS.get(method)
    return None if check is None else check(params)


def _positioned(params: Any) -> str | None:
    document, at = _at(params, "textDocument"), _at(params, "position")
    sound = isinstance(_at(document, "uri"), str) and _is_position(at, least=0)
    return None if sound else "params need textDocument.uri and a position in whole numbers"


def _ranged(params: Any) -> str | None:
    document, where = _at(params, "textDocument"), _at(params, "range")
    ends = (_at(where, "start"), _at(where, "end"))
    sound = isinstance(_at(document, "uri"), str) and all(_is_position(end, least=0) for end in ends)
    return None if sound else "params need textDocument.uri and a range in whole numbers"


def _opened(params: Any) -> str | None:
    document = _at(params, "textDocument")
    sound = all(isinstance(_at(document, key), str) for key in ("uri", "languageId", "text"))
    return None if sound else "params need textDocument with uri, languageId and text"


def _changed(params: Any) -> str | None:
    changes = _at(params, "contentChanges")
    sound = isinstance(_at(_at(params, "textDocument"), "uri"), str) and isinstance(changes, list)
    return None if sound and all(map(_is_change, changes)) else "params need textDocument.uri and sound contentChanges"


def _is_change(change: Any) -> bool:
    if not isinstance(_at(change, "text"), str):
        return False
    if change.get("range") is None:
        change.pop("range", None)  # null as some write it; pygls would take it for a range
        return True
    start, end = _at(change["range"], "start"), _at(change["range"], "end")
    return _is_position(start, least=-_MOST) and _is_position(end, least=-_MOST)


def _is_position(position: Any, *, least: int) -> bool:
    return all(type(n) is int and least <= n < _MOST for n in (_at(position, "line"), _at(position, "character")))


def _at(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, dict) else None


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "textDocument/inlineCompletion": _positioned,
    "textDocument/completion": _positioned,
    "textDocument/codeAction": _ranged,
    "textDocument/didOpen": _opened,
    "textDocument/didChange": _changed,
}
