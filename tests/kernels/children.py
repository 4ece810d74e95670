"""Child processes: Triton decides when it is imported whether it interprets or compiles."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
CASES = sorted((ROOT / "tests" / "kernels" / "cases").glob("*_cases.py"))


def run(*arguments: str, environment: Mapping[str, str], timeout: float) -> str:
    """`python *arguments` in the repository; -> its output, which a failure shows."""
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"python {' '.join(arguments)} exited with {done.returncode}\n{done.stdout}"
    return done.stdout


def run_cases(path: Path, marker: str, *, interpreted: bool, timeout: float) -> None:
    """The cases of one file that carry `marker`, in the interpreter or on the GPU."""
    run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"),
        *("--timeout", str(timeout), "-m", marker, str(path)),
        environment={"TRITON_INTERPRET": "1", "TRITON_DEFAULT_FP_FUSION": "1"} if interpreted else {},
        timeout=timeout,
    )
