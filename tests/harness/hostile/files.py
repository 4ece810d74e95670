"""Something else where a file should be."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path

from tests.harness.hostile.spoiling import CONFIG, TOKENIZER, WEIGHTS, Spoil, Spoilt

_NAMES = (CONFIG, TOKENIZER, WEIGHTS)


def _in_place(make: Callable[[Path], None], name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return spoil


def _socket(path: Path) -> None:
    # Their names may be short only, so it is bound from within the folder.
    number = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{number}/{path.name}")
    finally:
        os.close(number)


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _outside(path: Path) -> None:
    outside = path.parent.parent / f"{path.parent.name}-{path.name}"
    outside.write_bytes(b"{}")
    path.symlink_to(outside)


_MAKERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "is missing": (lambda _: None, "no such file"),
    "is a pipe": (os.mkfifo, "is a pipe"),
    "is a directory": (Path.mkdir, "is a directory"),
    "is a socket": (_socket, "is a socket"),
    "is a link to nothing": (_link("nowhere"), "no such file"),
    "is a link to itself": (lambda path: path.symlink_to(path.name), "cannot be opened"),
    "is a link to a device": (_link("/dev/zero"), "leads out"),
    "is a link out of the directory": (_outside, "leads out"),
}


def _pickle_instead(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"transformer.wte.weight": [1.0]}))


CASES = (
    *(
        Spoilt(f"files: {name} {what}", name, says, _in_place(make, name))
        for name in _NAMES
        for what, (make, says) in _MAKERS.items()
    ),
    Spoilt("files: a pickle instead of safetensors", WEIGHTS, "'pytorch_model.bin' is never opened", _pickle_instead),
)
