"""From the user's choice of model and device to a loaded engine. Imports torch when called, not before."""

from __future__ import annotations

import logging
import os
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
    # Read by torch at its first allocation: a step reads all weights, and large pages miss the TLB less.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from engine import device as devices
    from engine import precision as precisions
    from engine import runner
    from engine.checkpoint.config import read_config
    from engine.checkpoint.loader import load_model
    from engine.checkpoint.vocabulary import check_fits
    from engine.intake import HealingPolicy, Intake
    from engine.serve import Loaded
    from engine.tokenizer import Tokenizer

    directory = options.source.directory
    config = read_config(directory)
    shape = config.shape()
    tokenizer = Tokenizer(directory / "tokenizer.json")
    check_fits(directory, tokenizer.size, shape.vocab_size)
    device = devices.choose_device(options.device)
    free = devices.free_memory(device)
    precision = precisions.choose(
        options.dtype, device, shape, None if free is None else max(0, free - options.kv_memory)
    )
    window = min(options.window or shape.n_positions, shape.n_positions)
    slots = runner.slots_that_fit(shape, precision.dtype, window, options.kv_memory)
    threads = devices.set_cpu_threads()
    model = load_model(directory, config, precision.ops, precision)
    log.info(
        "%s: %d parameters in %s (%s) on %s; %d KV slots of %d tokens (%s each); %d threads",
        options.source.id, shape.parameters, precision.name, precision.reason, device, slots, window,
        human_size(shape.kv_bytes(window, precision.dtype)), threads,
    )  # fmt: skip
    intake = Intake(options.source.id, tokenizer, shape.vocab_size, window, HealingPolicy.for_model(shape.parameters))
    return Loaded(
        intake,
        runner.TorchRunner(model, slots, window),
        precision.name,
        str(device),
        options.max_batch,
        precision.reason,
    )
