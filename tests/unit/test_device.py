"""What the machine is asked before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from engine import device
from engine.errors import DeviceError

GIB = 2**30


def _group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(text)


def test_the_tightest_control_group_counts_and_cache_can_be_had_back(tmp_path: Path) -> None:
    root, own = tmp_path / "groups", tmp_path / "own"
    own.write_text("0::/user/editor\n")
    _group(root, max="max\n")
    _group(root / "user", max=f"{4 * GIB}\n", current=f"{3 * GIB}\n", stat=f"anon 5\ninactive_file {GIB}\n")
    _group(root / "user/editor", max=f"{8 * GIB}\n", current=f"{1 * GIB}\n", stat="inactive_file 0\n")
    assert device._left_in_cgroup(root, own=own) == 2 * GIB
    assert device._left_in_cgroup(tmp_path / "none", own=own) is None


def test_a_group_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/\n")
    _group(tmp_path / "groups", max="1000\n", current="2000\n", stat="inactive_file 10\n")
    assert device._left_in_cgroup(tmp_path / "groups", own=own) == 0


def test_available_memory_is_the_kernels_estimate(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:  100 kB\nMemFree: 3 kB\nMemAvailable:   42 kB\n")
    assert device._available_in_meminfo(path) == 42 * 1024
    assert device._available_in_meminfo(tmp_path / "none") is None


@pytest.mark.parametrize("inside", [True, False], ids=["in a container", "in a service"])
def test_limits_of_the_first_version_count_too(tmp_path: Path, inside: bool) -> None:
    """A container sees its own group at the root, and the name that it has outside."""
    root, own = tmp_path / "groups", tmp_path / "own"
    own.write_text("11:cpu,cpuacct:/else\n9:memory:/docker/abc\n0::/\n")
    group = root if inside else root / "docker" / "abc"
    _group(root, limit_in_bytes=f"{2**63 - 4096}\n", usage_in_bytes=f"{GIB}\n")
    _group(
        group, limit_in_bytes=f"{4 * GIB}\n", usage_in_bytes=f"{3 * GIB}\n",
        stat=f"inactive_file 7\ntotal_inactive_file {GIB}\n",
    )  # fmt: skip
    assert device._left_in_cgroup(root, device._FIRST, own) == 2 * GIB
    assert device._left_in_cgroup(root, device._SECOND, own) is None


def test_a_system_without_proc_says_what_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_lines", lambda path: ())
    free = device.free_memory(torch.device("cpu"))
    assert free is not None
    assert 0 < free <= psutil.virtual_memory().total


def test_a_limit_of_nothing_is_not_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_available_in_meminfo", lambda path: GIB)
    monkeypatch.setattr(device, "_left_in_cgroup", lambda *_: 0)
    assert device.free_memory(torch.device("cpu")) == 0


def test_threads_are_what_the_user_says_or_all_cores_but_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    device.set_cpu_threads()
    assert given == []
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(device, "_physical_cores", lambda logical: 8)
    device.set_cpu_threads()
    monkeypatch.setattr(device, "_physical_cores", lambda logical: 1)
    device.set_cpu_threads()
    assert given == [7, 1]


def test_a_device_that_is_not_there_is_refused_with_a_remedy() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="use --device cpu or install a CUDA build"):
            device.choose_device("cuda")
    with pytest.raises(DeviceError, match="--device nonsense: not usable"):
        device.choose_device("nonsense")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3, 5), (2, 2, 1024, 1024)], ids=["small", "large"])
def test_zeroed_memory_is_zero_and_can_be_written(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    made = device.zeroed(shape, dtype, torch.device("cpu"))
    assert (tuple(made.shape), made.dtype, made.is_contiguous()) == (shape, dtype, True)
    assert not made.count_nonzero()
    made[1, 1] = 2
    assert made[1, 1].float().mean() == 2


def test_all_threads_are_there_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    with device.all_threads():
        assert torch.get_num_threads() == device.default_threads() + 1
    assert torch.get_num_threads() == before
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with device.all_threads():
        assert torch.get_num_threads() == before
