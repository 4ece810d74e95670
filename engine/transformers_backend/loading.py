"""From a checked directory to a loaded engine that runs one of the library's own models."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from engine import device as devices
from engine import runner
from engine.checkpoint.table import read_table
from engine.checkpoint.vocabulary import check_fits
from engine.fim import Layout
from engine.intake import HealingPolicy, Intake
from engine.overflow import try_out
from engine.serve import Loaded
from engine.sizes import human_size
from engine.tokenizer import Tokenizer
from engine.transformers_backend import precision as precisions
from engine.transformers_backend.families import Starcoder2, read_native_config
from engine.transformers_backend.vocabulary import read_other_vocabulary

if TYPE_CHECKING:
    from engine.loading import LoadOptions

log = logging.getLogger(__name__)

_SLOTS, _USEFUL, _LEAST = 4, 2_048, 512

NOTE = "the transformers backend: slower than the native one, requests are computed one after the other"


def window_that_fits(longest: int, position_bytes: int, memory: int) -> int:
    """Positions of a KV slot where nobody says how many: these families have long contexts and keep many heads.

    All of them, or a half, a quarter and so on, so that `_SLOTS` slots fit; but not fewer than `_USEFUL` while one fits.
    """
    window = longest
    while window > _USEFUL and _SLOTS * window * position_bytes > memory:
        window //= 2
    while window > _LEAST and window * position_bytes > memory:
        window //= 2
    return window


def load_other(options: LoadOptions) -> Loaded:
    """Validate the checkpoint, bring it to the device, reserve KV memory; raises StarfillError with a remedy."""
    directory = options.source.directory
    config = read_native_config(directory)
    tokenizer = Tokenizer(directory / "tokenizer.json", read_other_vocabulary(directory))
    check_fits(directory, tokenizer.size, config.vocab_size)
    counts = [math.prod(info.shape) for info in read_table(directory).values()]
    device = devices.choose_device(options.device)
    free = devices.free_memory(device)
    spare = None if free is None else max(0, free - options.kv_memory)
    precision = precisions.choose(options.dtype, device, sum(counts), max(counts, default=0), spare)
    longest = config.max_position_embeddings
    one = config.kv_bytes(1, precision.dtype)
    window = min(options.window or window_that_fits(longest, one, options.kv_memory), longest)
    slots = runner.slots_that_fit(config, precision.dtype, window, options.kv_memory)
    threads = devices.set_cpu_threads()
    # The library takes seconds to import: only once nothing is left to be refused.
    from engine.transformers_backend.loader import load_native_model

    with devices.all_threads():
        model = load_native_model(directory, config, precision)
    try_out(model)
    log.info(
        "%s: %s, %d parameters in %s (%s) on %s by transformers; %d KV slots of %d tokens (%s each); %d threads",
        options.source.id, config.model_type, sum(counts), precision.name, precision.reason, device, slots, window,
        human_size(config.kv_bytes(window, precision.dtype)), threads,
    )  # fmt: skip
    # Only StarCoder2 is known to have seen text after the middle marker that it was to continue.
    layout = Layout.ANCHORED if isinstance(config, Starcoder2) else Layout.PSM
    healing = HealingPolicy.for_model(sum(counts))
    return Loaded(
        Intake(options.source.id, tokenizer, config.vocab_size, window, healing, layout=layout),
        runner.TorchRunner(model, slots, window),
        precision.name,
        str(device),
        options.max_batch,
        precision.reason,
        backend="transformers",
        note=NOTE,
    )
