"""How a model would be loaded here, without loading it: for `starfill doctor`, which asks it of a child process.

`python -m engine.prospect DIRECTORY DEVICE DTYPE KV_BYTES` prints what was chosen, or why nothing can be, as one JSON object.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine.backends import choose_backend
from engine.errors import StarfillError

if TYPE_CHECKING:
    import torch


def foresee(directory: Path, device: str, dtype: str, kv_memory: int) -> dict[str, str]:
    """What `serve` would choose -> `backend`, `device`, `dtype` and `reason`; raises StarfillError as it would."""
    from engine import device as devices
    from engine import precision as precisions
    from engine.checkpoint.adapter import Adapter, is_adapter
    from engine.checkpoint.config import read_shape

    if is_adapter(directory):
        directory = Adapter.read(directory).base.directory
    backend = choose_backend("auto", directory)
    chosen = devices.choose_device(device)
    free = devices.free_memory(chosen)
    spare = None if free is None else max(0, free - kv_memory)
    if backend == "native":
        precision = precisions.choose(dtype, chosen, read_shape(directory), spare)
        name, reason = precision.name, precision.reason
    else:
        name, reason = _other(directory, chosen, dtype, spare)
    return {"backend": backend, "device": str(chosen), "dtype": name, "reason": reason}


def _other(directory: Path, device: torch.device, dtype: str, spare: int | None) -> tuple[str, str]:
    from engine.checkpoint.table import read_table
    from engine.transformers_backend import precision as precisions
    from engine.transformers_backend.families import read_native_config

    read_native_config(directory)
    counts = [math.prod(info.shape) for info in read_table(directory).values()]
    chosen = precisions.choose(dtype, device, sum(counts), max(counts, default=0), spare)
    return chosen.name, chosen.reason


def main(arguments: list[str]) -> None:
    """Print it."""
    directory, device, dtype, kv_memory = arguments
    try:
        found = foresee(Path(directory), device, dtype, int(kv_memory))
    except StarfillError as error:
        found = {"error": str(error)}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
