"""Low-rank adapters to test with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.checkpoint.adapter import CONFIG, WEIGHTS

RANK, ALPHA = 4, 6.0


def make_adapter(folder: Path, base: Path, *, seed: int = 1, dtype: torch.dtype = torch.float32, **config: Any) -> Path:
    """An adapter of `base` in PEFT's layout, large enough to change what the model says."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, tensor in load_file(base / "model.safetensors").items():
        if tensor.dim() == 2 and (".h." in name or ".layers." in name):
            a = torch.randn(RANK, tensor.shape[1], generator=generator) / tensor.shape[1] ** 0.5
            b = torch.randn(tensor.shape[0], RANK, generator=generator) * 0.3
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            state |= {f"{stem}.lora_A.weight": a.to(dtype), f"{stem}.lora_B.weight": b.to(dtype)}
    folder.mkdir()
    save_file(state, folder / WEIGHTS)
    written = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": RANK, "lora_alpha": ALPHA} | config
    (folder / CONFIG).write_text(json.dumps(written))
    return folder
