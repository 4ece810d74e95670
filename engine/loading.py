"""From the user's choice of model and device to a loaded engine. Imports torch when called, not before."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.backends import choose_backend
from engine.errors import CheckpointError
from engine.instruct import following_of
from engine.models import ModelSource
from engine.sizes import human_size

if TYPE_CHECKING:
    from engine.cuda.choosing import Chosen
    from engine.gpt_bigcode import GPTBigCode
    from engine.serve import Loaded

log = logging.getLogger(__name__)

_NO_FIM = "@no-fim"
"""SantaCoder's branch of that name was trained without fill-in-the-middle."""

LEFT_TO_RIGHT = "left to right only: the model was not made for fill-in-the-middle, what follows the cursor is not read"

NOT_COMPILED = "decoding operation by operation, slower than by compiled code; the log says why"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What `serve` was asked for."""

    source: ModelSource
    device: str = "auto"
    dtype: str = "auto"
    window: int | None = None
    kv_memory: int = 512 * 2**20
    max_batch: int | None = None
    backend: str = "auto"


def load(options: LoadOptions) -> Loaded:
    """Validate the checkpoint, bring it to the device, reserve KV memory; raises StarfillError with a remedy."""
    # Read by torch at its first allocation: a step reads all weights, and large pages miss the TLB less.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from engine import device as devices
    from engine import pages, runner
    from engine import precision as precisions
    from engine.checkpoint.adapter import Adapter, is_adapter
    from engine.checkpoint.config import read_config
    from engine.checkpoint.loader import load_model
    from engine.checkpoint.vocabulary import check_fits
    from engine.fim import Layout
    from engine.intake import HealingPolicy, Intake
    from engine.overflow import try_out
    from engine.serve import Loaded
    from engine.tokenizer import Tokenizer

    directory = options.source.directory
    adapter = Adapter.read(directory) if is_adapter(directory) else None
    if adapter is not None:
        directory = adapter.base.directory
    if choose_backend(options.backend, directory) == "transformers":
        from engine.transformers_backend.loading import load_other

        if adapter is not None:
            raise CheckpointError(f"{options.source.directory}: adapters of {adapter.base.id} are not merged by the "
                                  "transformers backend")  # fmt: skip
        return replace(load_other(options), following=following_of(options.source))
    config = read_config(directory)
    shape = config.shape()
    device = devices.choose_device(options.device)
    free = devices.free_memory(device)
    precision = precisions.choose(
        options.dtype, device, shape, None if free is None else max(0, free - options.kv_memory)
    )
    window = min(options.window or shape.n_positions, shape.n_positions)
    slots = runner.slots_that_fit(shape, precision.dtype, window, options.kv_memory)
    threads = devices.set_cpu_threads()
    tokenizers: list[Tokenizer] = []

    def read_tokenizer() -> None:
        tokenizers.append(Tokenizer(directory / "tokenizer.json"))
        check_fits(directory, tokenizers[0].size, shape.vocab_size)

    with devices.all_threads():
        model = load_model(directory, config, precision.ops, precision, adapter, read_tokenizer)
    if model.few_rows is None:  # which were tried with the model itself
        try_out(model)
    if device.type == "cpu":
        pages.gather(model.weights.memories())
    log.info(
        "%s: %d parameters in %s (%s) on %s; %d KV slots of %d tokens (%s each); %d threads",
        options.source.id, shape.parameters, precision.name, precision.reason, device, slots, window,
        human_size(shape.kv_bytes(window, precision.dtype)), threads,
    )  # fmt: skip
    chosen = _choose(options.source.id, model, slots, window)
    slower = NOT_COMPILED if device.type == "cpu" and model.few_rows is None else chosen.note
    log.info(
        "%s: %s", options.source.id, slower or f"short spans by {model.few_rows or 'the operations of ' + device.type}"
    )
    if adapter is not None:
        log.info("%s: an adapter of %d layers, merged into %s", options.source.id, len(adapter.pairs), adapter.base.id)
    # Its tokenizer is that of its sister branches, tokens for the middle and all, but it was never taught what they mean.
    taught = not options.source.id.endswith(_NO_FIM)
    intake = Intake(
        options.source.id,
        tokenizers[0],
        shape.vocab_size,
        window,
        HealingPolicy.for_model(shape.parameters),
        layout=Layout.ANCHORED if taught else Layout.NONE,
    )
    return Loaded(
        intake,
        chosen.runner,
        precision.name,
        str(device),
        options.max_batch,
        precision.reason,
        note="; ".join(said for said in ("" if intake.fills else LEFT_TO_RIGHT, slower) if said),
        following=following_of(options.source),
        idle=chosen.idle,
    )


def _choose(name: str, model: GPTBigCode, slots: int, window: int) -> Chosen:
    """What the model of that name runs with: only on a CUDA device is there a choice."""
    from engine.cuda.choosing import Chosen, choose
    from engine.paths import trials_dir
    from engine.runner import TorchRunner

    if model.device.type == "cuda":
        return choose(model, slots, window, trials_dir() / f"kernels-{hashlib.sha256(name.encode()).hexdigest()[:16]}")
    return Chosen(TorchRunner(model, slots, window))
