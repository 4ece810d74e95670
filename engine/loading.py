"""From the user's choice of model and device to a loaded engine. Imports torch when called, not before."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.models import ModelSource
from engine.sizes import human_size

if TYPE_CHECKING:
    from engine.serve import Loaded

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What `serve` was asked for."""

    source: ModelSource
    device: str = "auto"
    dtype: str = "auto"
    window: int | None = None
    kv_memory: int = 512 * 2**20
    max_batch: int | None = None


def load(options: LoadOptions) -> Loaded:
    """Validate the checkpoint, bring it to the device, reserve KV memory; raises StarfillError with a remedy."""
    from engine import checkpoint, runner
    from engine.intake import HealingPolicy, Intake
    from engine.ops import TorchOps
    from engine.serve import Loaded
    from engine.tokenizer import Tokenizer

    directory = options.source.directory
    shape = checkpoint.read_shape(directory)
    tokenizer = Tokenizer(directory / "tokenizer.json")
    checkpoint.check_vocabulary(directory, shape, tokenizer)
    device = runner.choose_device(options.device)
    dtype = runner.choose_dtype(options.dtype, device, shape)
    window = min(options.window or shape.n_positions, shape.n_positions)
    slots = runner.slots_that_fit(shape, dtype, window, options.kv_memory)
    threads = runner.set_cpu_threads()
    model = checkpoint.load_model(directory, shape, TorchOps(), device, dtype)
    name = str(dtype).removeprefix("torch.")
    log.info(
        "%s: %d parameters in %s on %s; %d KV slots of %d tokens (%s each); %d threads",
        options.source.id, shape.parameters, name, device, slots, window,
        human_size(shape.kv_bytes(window, dtype)), threads,
    )  # fmt: skip
    intake = Intake(options.source.id, tokenizer, shape.vocab_size, window, HealingPolicy.for_model(shape.parameters))
    return Loaded(intake, runner.TorchRunner(model, slots, window), name, str(device), options.max_batch)
