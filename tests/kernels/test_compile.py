"""Every shipped launch compiles for every capability, without spills, and costs what `compiled.json` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels.children import run

pytest.importorskip("triton")


def check(tmp_path: Path, *options: str, timeout: float) -> None:
    cache = {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    run("-m", "triton_kernels.check", *options, environment=cache, timeout=timeout)


def test_the_table_is_current_and_a_sample_compiles_to_what_it_says(tmp_path: Path) -> None:
    check(tmp_path, "--sample", "12", timeout=280)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_everything_compiles_to_what_the_table_says(tmp_path: Path) -> None:
    check(tmp_path, "--sample", "100000", timeout=7000)
