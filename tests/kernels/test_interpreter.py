"""The cases under `cases/`, natively where there is a GPU, and in Triton's interpreter everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels.children import CASES, run_cases

pytest.importorskip("triton")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_in_the_interpreter(path: Path) -> None:
    run_cases(path, "not slow", interpreted=True, timeout=280)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", [path for path in CASES if path.stem != "bf16_cases"], ids=lambda path: path.stem)
def test_more_in_the_interpreter(path: Path) -> None:
    run_cases(path, "slow", interpreted=True, timeout=3500)


@pytest.mark.gpu
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_on_the_gpu(path: Path) -> None:
    run_cases(path, "slow or not slow", interpreted=False, timeout=3500)
