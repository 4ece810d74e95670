from __future__ import annotations

import os

import pytest

from tests.training.training_world import World, make_world

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()
