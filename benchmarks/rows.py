"""One result, one JSON line: what was asked, of what, on what, by which command, and what came out."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch

if TYPE_CHECKING:
    from lsp_server.evaluation.scores import Estimate

Detail = Mapping[str, int | float | str | bool]


class Shared(TypedDict):
    """The fields that are the same in all rows of one run; see `Row`."""

    device: str
    command: str
    seed: int
    commit: str
    started: str
    python: str


@dataclass(frozen=True, slots=True)
class Run:
    """What all rows of one run share."""

    command: str
    device: str
    seed: int
    commit: str
    started: str
    torch: str = torch.__version__
    triton: str = ""
    transformers: str = ""
    python: str = platform.python_version()

    @classmethod
    def of(
        cls, arguments: Iterable[str], device: str, seed: int, commit: str = "", module: str = "benchmarks.gpu"
    ) -> Run:
        """Describe this process; `arguments` as given after `python -m MODULE`."""
        return cls(
            command=command_line(arguments, module),
            device=device,
            seed=seed,
            commit=commit or commit_id(),
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            triton=version_of("triton"),
            transformers=version_of("transformers"),
        )

    def shared(self) -> Shared:
        """Its part of every row, but for the versions of libraries: a row names those that take part in what it says."""
        return {
            "device": self.device,
            "command": self.command,
            "seed": self.seed,
            "commit": self.commit,
            "started": self.started,
            "python": self.python,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """One answer. `median`, `p10` and `p90` are in `unit`, over `n` repetitions; `value` is the median where timed.

    `measured` is false for a prediction. `passed` is set for correctness questions only, with the `limit` that `value`
    was held against. `value` is missing only where `error` or `skipped` says why.
    """

    question: str
    model: str
    dtype: str
    device: str
    measured: bool
    value: float | None
    unit: str
    command: str
    backend: str = ""
    detail: Detail = field(default_factory=dict)
    n: int = 1
    median: float | None = None
    p10: float | None = None
    p90: float | None = None
    passed: bool | None = None
    limit: float | None = None
    error: str = ""
    skipped: str = ""
    seed: int = 0
    commit: str = ""
    started: str = ""
    torch: str = ""
    triton: str = ""
    transformers: str = ""
    python: str = ""

    def __post_init__(self) -> None:
        for name in ("question", "model", "dtype", "device", "unit", "command"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"a row needs a {name}, not {value!r}")
        if not isinstance(self.measured, bool):
            raise ValueError(f"measured must be true or false, not {self.measured!r}")
        if self.value is None:
            if not self.error and not self.skipped:
                raise ValueError(f"{self.question}: no value, and neither error nor skipped says why")
            if self.passed:
                raise ValueError(f"{self.question}: passed without a value")
        for name in ("value", "median", "p10", "p90", "limit"):
            number = getattr(self, name)
            if number is not None and not (isinstance(number, int | float) and math.isfinite(number)):
                raise ValueError(f"{self.question}: {name} must be a finite number, not {number!r}")
        if self.n < 1:
            raise ValueError(f"{self.question}: n must be at least 1, not {self.n}")

    @property
    def failed(self) -> bool:
        """Whether this is a correctness question that was answered with no."""
        return self.passed is False

    def to_json(self) -> str:
        """One line, empty fields left out (the required ones never are)."""
        required = {f.name for f in dataclasses.fields(self) if f.default is f.default_factory is dataclasses.MISSING}
        full = dataclasses.asdict(self)
        return json.dumps({k: v for k, v in full.items() if k in required or v not in (None, "", {})})


class RowWriter:
    """Appends rows to `<part>.jsonl` in a folder, one write per row, so that a killed run keeps what it has."""

    def __init__(self, directory: Path, part: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{part}.jsonl"
        self.rows: list[Row] = []

    def write(self, row: Row) -> None:
        """Append one row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(row.to_json() + "\n")
        self.rows.append(row)


def read_rows(paths: Iterable[Path]) -> list[Row]:
    """Rows of JSON-lines files, in order; raises ValueError naming file and line where one is not a row."""
    rows = []
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                rows.append(Row(**json.loads(line)))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path.name}:{number}: not a row ({error})") from error
    return rows


def per_cent(found: Estimate, name: str = "") -> Detail:
    """A share as a row's detail: its mean, as `name`, and its bounds; these alone where the mean is the row's own value."""
    shares = {"low": found.low, "high": found.high}
    if name:
        shares = {name: found.mean} | {f"{name}_{end}": share for end, share in shares.items()}
    return {key: round(100 * share, 2) for key, share in shares.items()}


def command_line(arguments: Iterable[str], module: str = "benchmarks.gpu") -> str:
    """The command as it can be typed again; an absolute folder is cut to its name, which is all that another reader needs."""
    return " ".join(["python", "-m", module, *(without_folders(a) for a in arguments)])


def without_folders(text: str) -> str:
    """Absolute paths cut to their last part: rows travel, this machine's folders do not."""
    return re.sub(r"(?<![\w.:/])(?:/[\w.@+~-]+)+/([\w.@+~-]+)", r"\1", text)


def commit_id() -> str:
    """The checkout's commit, `+` appended where tracked files differ from it; empty without git."""
    try:
        return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def version_of(package: str) -> str:
    """The installed version, or nothing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _git(*words: str) -> str:
    command = ["git", *words]
    root = Path(__file__).parents[1]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
