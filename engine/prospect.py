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
from engine.errors import CheckpointError, StarfillError

if TYPE_CHECKING:
    import torch

    from engine.precision import Precision


def foresee(directory: Path, device: str, dtype: str, kv_memory: int) -> dict[str, str]:
    """What `serve` would choose -> `backend`, `device`, `dtype` and `reason`; raises StarfillError as it would.

    All is looked at that does not take reading the weights.
    """
    from engine import device as devices
    from engine.checkpoint.adapter import Adapter, is_adapter
    from engine.fitness import check_description, check_tensors

    given = directory
    adapter = Adapter.read(directory) if is_adapter(directory) else None
    if adapter is not None:
        directory = adapter.base.directory
    backend = choose_backend("auto", directory)
    if adapter is not None and backend != "native":
        raise CheckpointError(f"{given}: adapters of {adapter.base.id} are not merged by the {backend} backend")
    chosen = devices.choose_device(device)
    free = devices.free_memory(chosen)
    spare = None if free is None else max(0, free - kv_memory)
    choose = _native if backend == "native" else _other
    precision = choose(directory, chosen, dtype, spare, kv_memory)
    check_description(directory)
    check_tensors(directory, adapter)
    return {"backend": backend, "device": str(chosen), "dtype": precision.name, "reason": precision.reason}


def _native(directory: Path, device: torch.device, dtype: str, spare: int | None, kv_memory: int) -> Precision:
    from engine import precision as precisions
    from engine.checkpoint.config import read_shape
    from engine.runner import slots_that_fit

    shape = read_shape(directory)
    chosen = precisions.choose(dtype, device, shape, spare)
    slots_that_fit(shape, chosen.dtype, shape.n_positions, kv_memory)
    return chosen


def _other(directory: Path, device: torch.device, dtype: str, spare: int | None, kv_memory: int) -> Precision:
    from engine.checkpoint.table import read_table
    from engine.runner import slots_that_fit
    from engine.transformers_backend import precision as precisions
    from engine.transformers_backend.families import read_native_config
    from engine.transformers_backend.loading import window_that_fits

    config = read_native_config(directory)
    counts = [math.prod(info.shape) for info in read_table(directory).values()]
    chosen = precisions.choose(dtype, device, sum(counts), max(counts, default=0), spare)
    window = window_that_fits(config.max_position_embeddings, config.kv_bytes(1, chosen.dtype), kv_memory)
    slots_that_fit(config, chosen.dtype, window, kv_memory)
    return chosen


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
