"""A hub on loopback with one small model, and a home that pulls from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.hub import FakeHub, serving
from tests.harness.pulls import ID, nobodys_environment, published


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as it is published."""
    return published(tmp_path_factory.mktemp("source") / "m")


@pytest.fixture
def hub(model: Path) -> Iterator[FakeHub]:
    """A hub that has it."""
    with serving(FakeHub()) as served:
        served.add(ID, model, licence="bigcode-openrail-m")
        yield served


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: FakeHub) -> Path:
    """A home in which nothing is yet, and no other hub than that one."""
    return nobodys_environment(tmp_path, hub, monkeypatch)
