"""The pipeline for one request from the command line: `starfill complete` and `starfill generate`; what `doctor` is about."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import paths
from engine.api import CompletionRequest, Extension
from engine.errors import StarfillError
from engine.models import STARTER_ID, locate
from engine.sizes import parse_size
from lsp_server.attribution.attributor import Attributor
from lsp_server.buffer import Buffer, Position
from lsp_server.completer import Completer
from lsp_server.engines import connect
from lsp_server.privacy.admission import Admission
from lsp_server.privacy.uris import local_path
from lsp_server.rules.languages import by_path
from lsp_server.settings import Settings, load_settings, read_token
from lsp_server.settings.sources import merged, read_flags
from lsp_server.state.ask import Surroundings
from lsp_server.state.outcome import Item, Outcome
from lsp_server.window import window_at

if TYPE_CHECKING:
    from engine.doctor import Wanted

FILL_HERE = "<FILL_HERE>"


async def complete_file(file: Path, at: str, flags: Mapping[str, Any], candidates: int) -> dict[str, Any]:
    """Complete `file` at LINE:COLUMN -> the object that `--json` prints, and `detail` for people."""
    buffer, cursor = _open(file, at)
    settings = load_settings(flags)
    admission = Admission(time.monotonic)
    admission.configure(settings)
    uri = Path(os.path.abspath(file)).as_uri()  # noqa: PTH100, ASYNC240 (touches no disk)
    if (reason := admission.refusal(uri, buffer, cursor, invoked=True)) is not None:
        outcome = Outcome(reason=reason)
    else:
        outcome = await _complete(settings, uri, buffer, cursor, candidates)
    model = locate(settings.model).id if settings.engine == "auto" else settings.model
    return _as_json(outcome, model or STARTER_ID)


async def _complete(settings: Settings, uri: str, buffer: Buffer, cursor: Position, candidates: int) -> Outcome:
    engine = connect(settings, trust_folder=True)
    completer = Completer(engine, settings.max_tokens, time.perf_counter)
    attributor = _attributor(settings)
    window = window_at(buffer, cursor)
    try:
        outcome = await completer.complete(
            uri,
            window,
            invoked=True,
            candidates=candidates,
            surroundings=Surroundings(language=buffer.language),
        )
        return attributor.mark(outcome, window.prefix, local_path(uri) or "")
    finally:
        await completer.aclose()
        await engine.aclose()


async def stream_text(
    text: str, flags: Mapping[str, Any], *, raw: bool, max_tokens: int, show: Callable[[str], None]
) -> Outcome:
    """Continue `text`, or with `raw` fill its `<FILL_HERE>` in -> what was said, and where that stands verbatim.

    `show` gets every piece when it comes; the whole at the end if what stands elsewhere is to be withheld.
    """
    settings = load_settings(flags)
    prompt, hole, suffix = text.partition(FILL_HERE) if raw else (text, "", "")
    fields: dict[str, Any] = {"suffix": suffix} if hole else {}
    request = CompletionRequest(
        prompt=prompt, max_tokens=max_tokens, temperature=0, starfill=Extension(raw=raw), **fields
    )
    engine, attributor = connect(settings, trust_folder=True), _attributor(settings)
    said = []
    try:
        await engine.ready(invoked=True, progress=None)
        async with engine.complete(request) as chunks:
            async for chunk in chunks:
                said.append(chunk.text)
                if not attributor.withholds:
                    show(chunk.text)
    finally:
        await engine.aclose()
    outcome = attributor.mark(Outcome(items=(Item("".join(said), None),)), prompt, "")
    if attributor.withholds:
        for item in outcome.items:
            show(item.text)
    return outcome


def wanted_engine(flags: Mapping[str, Any]) -> Wanted:
    """The engine that a language server with these flags would use, for `starfill doctor`; StarfillError for a wrong flag."""
    from engine.doctor import Wanted

    given = read_flags(flags)
    try:
        settings = load_settings(flags)
    except StarfillError:
        settings = merged((given,))  # the file is broken, which is a finding of its own
    wanted = Wanted(
        settings.engine, settings.model, settings.device, settings.dtype, token=partial(read_token, settings)
    )
    return wanted if settings.kv_memory is None else replace(wanted, kv_memory=parse_size(settings.kv_memory))


def _attributor(settings: Settings) -> Attributor:
    attributor = Attributor(paths.attribution_index(), logging.getLogger(__name__).warning)
    attributor.configure(settings)
    return attributor


def _open(file: Path, at: str) -> tuple[Buffer, Position]:
    match = re.fullmatch(r"(\d+):(\d+)", at)
    if not match or not int(match[1]) or not int(match[2]):
        raise StarfillError(f"{at!r} is no cursor; write LINE:COLUMN, both from 1")
    try:
        text = file.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise StarfillError(f"{file}: {error.strerror}") from error
    buffer = Buffer(text, language=by_path(str(file)).id, encoding="utf-32")
    line, column = int(match[1]) - 1, int(match[2]) - 1
    if line >= len(buffer.lines):
        raise StarfillError(f"{file} has {len(buffer.lines)} lines, not {line + 1}")
    return buffer, buffer.position(line, column)


def _item(item: Item) -> dict[str, Any]:
    attribution = {"attribution": [origin.as_dict() for origin in item.origins]} if item.origins else {}
    return {"text": item.text, "logprob": item.logprob, **attribution}


def _as_json(outcome: Outcome, model: str) -> dict[str, Any]:
    items = [_item(item) for item in outcome.items]
    return {
        "text": items[0]["text"] if items else "",
        "items": items,
        "model": model,
        "layout": outcome.layout,
        "finish_reason": outcome.finish_reason,
        "reason": outcome.reason,
        "detail": outcome.detail,
        "usage": outcome.usage,
        "ms": {
            "first": None if outcome.first is None else round(outcome.first * 1000, 1),
            "total": round(outcome.total * 1000, 1),
        },
    }
