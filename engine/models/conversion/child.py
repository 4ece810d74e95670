"""The process in which a pickle is read: `python -I -m engine.models.conversion.child IN OUT MEMORY SECONDS`.

IN and OUT are numbers of files that its parent has opened. It gives up everything else before it reads a byte of IN, writes
safetensors to OUT, and one line of JSON to standard output: `{"names": […]}` or `{"refused": "…"}`.
"""

from __future__ import annotations

# Two encodings that zipfile and pickle would look for later, when nothing can be imported any more.
import encodings.ascii
import encodings.cp437  # noqa: F401
import json
import mmap
import os
import sys

from engine.models.conversion.archive import read_checkpoint
from engine.models.conversion.lockdown import LockdownError, lock_down
from engine.models.conversion.unpickler import Refused
from engine.models.conversion.writing import write


def main() -> None:
    """Convert, and say how it went. Ends with 0 for any answer."""
    source, target, memory, seconds = (int(word) for word in sys.argv[1:5])
    size = os.fstat(source).st_size
    said: dict[str, object]
    with os.fdopen(source, "rb") as file, os.fdopen(target, "wb", buffering=2**20) as output:
        pages = mmap.mmap(source, 0, access=mmap.ACCESS_READ) if size else None
        try:
            lock_down(memory=memory, seconds=seconds, file_size=2 * size + 2**24)
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
            said = {"refused": f"could not be converted ({error.strerror or error})"}
    line = json.dumps(said, ensure_ascii=True)
    os.write(1, line.encode() + b"\n")
    os._exit(0)  # nothing that the pickle made is asked to clean up after itself


if __name__ == "__main__":
    main()
