"""What `starfill doctor` looks at. Imports torch in a child only, so that a broken one is a finding and not a crash."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from engine import __version__, paths, registry
from engine.errors import StarfillError
from engine.launcher import describe
from engine.models import STARTER
from engine.sizes import human_size

_PROBE = """
import json, torch
cuda = torch.cuda.is_available()
print(json.dumps({"torch": torch.__version__, "cuda": cuda,
    "devices": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if cuda else []}))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was seen, and what to do when it is not well."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def examine() -> list[Finding]:
    """Every check, in the order in which things are needed."""
    checks: list[Callable[[], Finding]] = [_python, _torch, _starter, _folders, _memory, _engines]
    return [check() for check in checks]


def _python() -> Finding:
    version = platform.python_version()
    ok = sys.version_info >= (3, 11)
    return Finding("python", ok, f"{version}, starfill {__version__}", "install Python 3.11 or newer")


def _torch() -> Finding:
    child = subprocess.run(
        [sys.executable, "-P", "-c", _PROBE], capture_output=True, text=True, timeout=120, check=False
    )
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or ["no reason given"])[-1]
        return Finding("torch", False, reason, "reinstall starfill, or torch for your platform")
    found = json.loads(child.stdout)
    device = ", ".join(found["devices"]) if found["cuda"] else "no GPU: completions run on the CPU"
    return Finding("torch", True, f"{found['torch']}; {device}")


def _starter() -> Finding:
    weights = list(STARTER.glob("*.safetensors"))
    size = human_size(sum(file.stat().st_size for file in weights))
    ok = bool(weights) and (STARTER / "config.json").is_file() and (STARTER / "tokenizer.json").is_file()
    return Finding("starter model", ok, f"{size} in {len(weights)} file(s)", "reinstall starfill: its model is missing")


def _folders() -> Finding:
    try:
        runtime = paths.runtime_dir()
        paths.private_dir(paths.log_dir())
    except StarfillError as error:
        return Finding("folders", False, str(error), "set STARFILL_HOME to a folder that you may write to")
    return Finding("folders", True, f"sockets in {runtime}, logs in {paths.log_dir()}")


def _memory() -> Finding:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Finding("memory", free > 2**29, f"{human_size(free)} free", "close something: the starter needs 512 MiB")


def _engines() -> Finding:
    try:
        records = registry.running_engines()
    except StarfillError as error:
        return Finding("engines", False, str(error), "see folders")
    states = [asyncio.run(describe(record)) for record in records]
    bad = [state for state in states if state["state"] not in ("ready", "loading")]
    detail = ", ".join(f"{s['model']} is {s['state']} (pid {s['pid']})" for s in states) or "none running"
    return Finding("engines", not bad, detail, "starfill stop, then try again; the log tells more")
