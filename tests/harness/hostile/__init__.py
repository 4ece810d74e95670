"""Broken and hostile model directories: each is a good one, spoilt in one way, and what its refusal has to say."""

from __future__ import annotations

from tests.harness.hostile import configs, files, headers, indexes, vocabularies, weights
from tests.harness.hostile.spoiling import Spoilt

SPOILT: tuple[Spoilt, ...] = (
    *configs.CASES,
    *headers.CASES,
    *weights.CASES,
    *indexes.CASES,
    *vocabularies.CASES,
    *files.CASES,
)
