"""Memory of weights that becomes large pages after it was filled: the same bytes, at any time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from engine import pages
from engine.loading import LoadOptions, load
from engine.models import ModelSource
from tests.harness.checkpoints import make_checkpoint
from tests.harness.inprocess import InProcessEngine

MIB = 2**20


def _large() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("AnonHugePages:"))


def test_small_and_large_memory_is_zero() -> None:
    for size in (0, 1, 4096, 4 * MIB - 1, 4 * MIB, 9 * MIB + 5):
        room = pages.room(size)
        assert (room.dtype, room.shape) == (torch.uint8, (size,))
        assert not room.any()


@pytest.mark.skipif(
    sys.platform != "linux" or not pages._collapses(), reason="no large pages when asked on this kernel"
)
def test_gathered_memory_holds_what_it_held_and_is_in_large_pages() -> None:
    rooms = [pages.room(size) for size in (16 * MIB, 21 * MIB + 4096, 100)]
    for number, room in enumerate(rooms):
        room.copy_(torch.arange(len(room), dtype=torch.int32).mul_(number + 3).to(torch.uint8))
    before = _large()
    expected = [room.clone() for room in rooms]
    pages.gather(rooms)
    while pages._gathering and pages._gathering[0].is_alive():
        assert torch.equal(rooms[0], expected[0])
    pages.wait()
    assert all(map(torch.equal, rooms, expected))
    assert _large() - before >= 28 * MIB, "whole large pages of both large ones, at least"
    assert not pages._gathering


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_an_engine_answers_the_same_while_its_pages_are_gathered_and_afterwards(tmp_path: Path, dtype: str) -> None:
    directory = make_checkpoint(tmp_path / "m", n_head=8, n_embd=1024, n_positions=128, n_layer=3)
    engine = InProcessEngine(load(LoadOptions(ModelSource("m", directory), device="cpu", dtype=dtype, kv_memory=2**26)))
    prompt = list(range(30, 60))
    during = engine.complete(prompt=prompt, max_tokens=12).ids
    pages.wait()
    assert engine.complete(prompt=prompt, max_tokens=12).ids == during


def test_where_the_kernel_does_not_memory_is_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_collapses", lambda: False)
    room = pages.room(8 * MIB)
    assert len(room) == 8 * MIB and not room.any()
    pages.gather([room])
    assert not pages._gathering
