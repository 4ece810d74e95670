"""`starfill lsp` whose shared engine is the scripted one of `faulty.py`: real servers, launcher and wire, no model."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from engine.launcher import SharedEngine
from engine.liveness import Patience
from lsp_server import engines
from lsp_server.__main__ import main
from tests.harness.faulty import faulty_command

if __name__ == "__main__":
    command = faulty_command(Path(os.environ["STARFILL_HOME"]), "--delay", "0.01")
    patience = Patience(ask=0.5, give_up=2.0, loading=5.0)
    setattr(engines, "SharedEngine", partial(SharedEngine, command=command, patience=patience))  # noqa: B010
    sys.argv[1:1] = ["lsp"]
    main()
