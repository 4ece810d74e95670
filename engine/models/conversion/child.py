"""The process in which a pickle is read: `main` with the arguments IN OUT MEMORY SECONDS.

IN and OUT are numbers of files that its parent has opened. It gives up everything else before it reads a byte of IN, writes
safetensors to OUT, and lines of JSON to standard output: `{}` once it is locked down, then `{"names": […]}`, for a fault of
IN `{"refused": "…"}`, for one of the system `{"failed": "…"}`.
"""

from __future__ import annotations

# Two encodings that zipfile and pickle would look for later, when nothing can be imported any more.
import encodings.ascii
import encodings.cp437  # noqa: F401
import errno
import json
import mmap
import os
import sys

from engine.models.conversion.archive import read_checkpoint
from engine.models.conversion.lockdown import LockdownError, lock_down
from engine.models.conversion.unpickler import Refused
from engine.models.conversion.writing import write

_OF_THE_SYSTEM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
"""What a disk says of itself; other refusals come of what the file asked for."""


def main() -> None:
    """Convert, and say how it went. Ends with 0 for any answer."""
    source, target, memory, seconds = (int(word) for word in sys.argv[1:5])
    size = os.fstat(source).st_size
    said: dict[str, object]
    with os.fdopen(source, "rb") as file, os.fdopen(target, "wb", buffering=2**20) as output:
        pages = mmap.mmap(source, 0, access=mmap.ACCESS_READ) if size else None
        try:
            lock_down(memory=memory, seconds=seconds, file_size=2 * size + 2**24)
            os.write(1, b"{}\n")
            if pages is None:
                raise Refused("is empty; download it again")
            checkpoint = read_checkpoint(file, pages)
            names = write(checkpoint, memoryview(pages), output.write)
            output.flush()
            os.fsync(target)
            said = {"names": names, "dropped": sorted(checkpoint.tensors.keys() - set(names))}
        except Refused as error:
            said = {"refused": str(error)}
        except LockdownError as error:
            said = {"locked": str(error)}
        except MemoryError:
            said = {"refused": "needs more memory than its tensors do"}
        except OSError as error:
            kind = "failed" if error.errno in _OF_THE_SYSTEM else "refused"
            said = {kind: f"could not be converted ({error.strerror or error})"}
    line = json.dumps(said, ensure_ascii=True)
    os.write(1, line.encode() + b"\n")
    os._exit(0)  # nothing that the pickle made is asked to clean up after itself
