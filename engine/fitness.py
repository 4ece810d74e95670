"""Whether a model's directory could be run: all that its files can say of that before a weight is read.

No torch until tensors are looked at.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.backends import Backend, library_serves, library_version

if TYPE_CHECKING:
    from engine.checkpoint.adapter import Adapter


def check_description(directory: Path) -> Backend:
    """`config.json` and `tokenizer.json` -> the backend that runs such a model; raises CheckpointError if none does.

    Whether the library that a backend needs is here is another question.
    """
    from engine.checkpoint.config import read_config
    from engine.checkpoint.vocabulary import check_fits
    from engine.tokenizer import Tokenizer
    from engine.transformers_backend.families import read_native_config
    from engine.transformers_backend.vocabulary import read_other_vocabulary

    path = directory / "tokenizer.json"
    backend = backend_of(directory)
    if backend == "native":
        size, tokenizer = read_config(directory).vocab_size, Tokenizer(path)
    else:
        size, tokenizer = read_native_config(directory).vocab_size, Tokenizer(path, read_other_vocabulary(directory))
    check_fits(directory, tokenizer.size, size)
    return backend


def check_tensors(directory: Path, adapter: Adapter | None = None) -> None:
    """Whether its tensors, and those of an adapter, are the ones that `config.json` calls for; raises CheckpointError."""
    from engine.checkpoint.config import read_config
    from engine.checkpoint.layouts import check_table, tensor_map
    from engine.checkpoint.table import read_table
    from engine.transformers_backend.families import read_native_config

    table = read_table(directory)
    if backend_of(directory) == "native":
        config = read_config(directory)
        wanted = check_table(
            directory, tensor_map(config.shape(), config.storage, tied=config.tie_word_embeddings), table
        )
        if adapter is not None:
            adapter.check(wanted)
    elif (version := library_version()) is not None and library_serves(version):  # which alone knows the names
        from engine.transformers_backend.loader import check_native_table

        check_native_table(directory, read_native_config(directory), table)


def backend_of(directory: Path) -> Backend:
    """Which backend is made for a directory's `model_type`; raises CheckpointError if none is."""
    from engine.checkpoint.config import NATIVE_TYPES
    from engine.transformers_backend.families import kind_of

    return "native" if kind_of(directory) in NATIVE_TYPES else "transformers"
