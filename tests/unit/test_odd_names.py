"""Paths that are no UTF-8, as Unix allows: a model in such a folder is served like any other."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from starlette.requests import Request

from engine import registry
from engine.metrics import Metrics
from engine.models import ModelSource, locate
from engine.service import EngineState, Service

ODD = os.fsdecode(b"m\xff")
NOBODY = cast("Request", None)


@pytest.fixture
def service() -> Iterator[Service]:
    state = EngineState(ODD, facts={"model": ODD}, failure=f"/models/{ODD}/config.json: broken")
    service = Service(state, Metrics())
    yield service
    service.close()


def test_engines_of_models_in_such_folders_have_keys_of_their_own() -> None:
    names = ("m", ODD, os.fsdecode(b"m\xfe"), "\ud800")
    keys = {registry.engine_key(ModelSource("m?", Path("/models") / name)) for name in names}
    assert len(keys) == len(names)
    known = hashlib.sha256("é\0/models/é".encode()).hexdigest()[:16]
    assert registry.engine_key(ModelSource("é", Path("/models/é"))) == known, "the others keep theirs"


def test_a_model_in_such_a_folder_has_a_name_that_can_be_shown(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    source = locate(str(folder))
    assert (source.id, source.directory) == ("m?", folder.resolve())


def test_what_the_engine_says_of_itself_can_be_sent(service: Service) -> None:
    async def ask() -> tuple[bytes, bytes]:
        return bytes((await service._health(NOBODY)).body), bytes((await service._models(NOBODY)).body)

    health, models = asyncio.run(ask())
    assert json.loads(health)["error"] == "/models/m?/config.json: broken"
    assert json.loads(models)["data"][0]["id"] == "m?"


def test_a_refusal_that_names_such_a_path_can_be_sent(service: Service) -> None:
    async def ask() -> list[bytes]:
        sent: list[bytes] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b'{"prompt": "x"}', "more_body": False}

        async def send(message: object) -> None:
            sent.append(cast("dict[str, bytes]", message).get("body", b""))

        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], "query_string": b""}
        await service.app(scope, receive, send)
        return sent

    said = json.loads(b"".join(asyncio.run(ask())))
    assert said["error"]["message"] == "/models/m?/config.json: broken"
