"""What loading takes: beside the model itself at most one shard in memory, whatever the precision, and nothing afterwards.

Measured in a child as the rise of its peak resident set (VmHWM), which counts anonymous memory and mapped file pages alike:
both are what a machine must have at hand, and a loader that mapped or read whole shards would show here.
"""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.loading import in_a_child, write_checkpoint
from benchmarks.shapes import FAMILY
from engine import blocked, packed
from engine.checkpoint.config import read_config
from engine.checkpoint.loader import load_model
from engine.checkpoint.reading import TensorReader
from engine.checkpoint.table import read_table
from engine.device import zeroed
from engine.ops import TorchOps
from engine.precision import DENSE, NAMES, Precision, weight_bytes
from tests.harness.checkpoints import make_checkpoint
from tests.harness.process import ROOT, isolated_env, temporary_home

SLACK = 32 * 2**20
"""Bytes for what the first calls of torch's kernels allocate once."""

_CHILD = """
import json, sys
from pathlib import Path
import torch
from engine import blocked, packed
from engine.checkpoint.config import read_config
from engine.checkpoint.loader import load_model
from engine.models import STARTER
from engine.ops import TorchOps
from engine.precision import DENSE, Precision

def bytes_of(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

torch.set_num_threads(1)
name = sys.argv[2]
precision = Precision(name, torch.device("cpu"), DENSE.get(name, torch.bfloat16), "")
load_model(STARTER, read_config(STARTER), TorchOps(), precision)  # kernels are loaded and tried on a small model
directory = Path(sys.argv[1])
before = bytes_of("VmRSS")
model = load_model(directory, read_config(directory), TorchOps(), precision)
peak, after = bytes_of("VmHWM") - before, bytes_of("VmRSS") - before
mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if ".safetensors" in line]
print(json.dumps({"peak": peak, "after": after, "mapped": mapped}))
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 million float32 weights in five shards of about 50 MiB: tensors are up to 16 MiB."""
    return make_checkpoint(
        tmp_path_factory.mktemp("large") / "m", n_layer=6, n_head=8, n_embd=1024, n_positions=64, shards=5
    )


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("name", ["float32", "bfloat16", "int8", pytest.param("int4", marks=pytest.mark.slow)])
def test_beside_the_model_at_most_one_shard_is_in_memory(directory: Path, name: str) -> None:
    with temporary_home() as home:
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, str(directory), name],
            cwd=ROOT, env=isolated_env(home), capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
    assert child.returncode == 0, child.stderr
    said = json.loads(child.stdout)
    model = weight_bytes(read_config(directory).shape(), name, torch.device("cpu"))
    shard = max(file.stat().st_size for file in directory.glob("*.safetensors"))
    assert model * 0.7 <= said["after"] <= model + SLACK, said  # some of it lies in what was free before
    assert said["peak"] <= model + shard + SLACK, said
    assert said["mapped"] == []


@pytest.mark.skipif(sys.platform != "linux", reason="mappings are read from /proc")
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_no_weight_stays_in_the_pages_of_a_file(tmp_path: Path, stored: torch.dtype, name: str) -> None:
    """It would change, or fault, with the file."""
    directory = make_checkpoint(tmp_path / "m", dtype=stored)
    precision = Precision(name, torch.device("cpu"), DENSE.get(name, torch.bfloat16), "the test's")
    model = load_model(directory, read_config(directory), TorchOps(), precision)
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert mapped == []
    assert model.shape.n_layer == 2


@pytest.mark.parametrize("name", ["bfloat16", "int8", "int4"])
def test_each_byte_is_read_once_and_only_the_first_layer_is_whole_before_it_is_packed(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_checkpoint(tmp_path / "m", n_layer=4, n_head=4, n_embd=256, n_positions=64, dtype=torch.bfloat16)
    read: list[int] = []
    whole: list[str] = []
    real_read, real_whole = TensorReader._read, TensorReader._whole

    def count_read(self: TensorReader, info: Any, at: int, into: memoryview, where: str) -> None:
        read.append(len(into))
        real_read(self, info, at, into, where)

    def note_whole(self: TensorReader, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        whole.append(name)
        return real_whole(self, name, dtype)

    monkeypatch.setattr(TensorReader, "_read", count_read)
    monkeypatch.setattr(TensorReader, "_whole", note_whole)
    precision = Precision(name, torch.device("cpu"), DENSE.get(name, torch.bfloat16), "the test's")
    if name in DENSE and (not packed.works(torch.bfloat16) or not blocked.describable()):
        pytest.skip("this processor has no packed form for bfloat16, or torch none that is written here")
    load_model(directory, read_config(directory), TorchOps(), precision)
    tensors = read_table(directory)
    assert sum(read) == sum(info.end - info.begin for info in tensors.values())
    large = {name for name in whole if len(tensors[name].shape) > 1 and name.startswith("transformer.h.")}
    assert large == {name for name in tensors if name.startswith("transformer.h.0.") and len(tensors[name].shape) > 1}


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_kv_memory_is_taken_as_it_is_used() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    before = resident()
    kv = zeroed((8, 4, 2, 1, 4096, 128), torch.float32, torch.device("cpu"))
    assert kv.nbytes == 2**27
    assert resident() - before < 2**24
    kv[3].fill_(1.0)
    assert resident() - before < 2**26


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("stored", ["bfloat16", "float32"])
def test_a_model_of_a_billion_weights_takes_itself_and_a_shard_at_most(tmp_path: Path, stored: str) -> None:
    write_checkpoint(tmp_path, FAMILY["1b"], stored)
    found = in_a_child(tmp_path, rounds=1)
    assert found["dtype"] == "bfloat16"
    assert found["peak"] <= found["model"] + found["shard"]
