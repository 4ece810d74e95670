"""Low-rank adapters (Hu et al. 2021) trained beside frozen weights, and written in PEFT's layout.

W' = W + (alpha / r) B A        A [r, in], B [out, r]

`engine.checkpoint.adapter` merges them into their base model at load.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

TARGETS = ("c_attn", "c_proj", "c_fc")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."


class LowRank(nn.Module):
    """A frozen linear map with a trained low-rank part; it starts as the frozen map alone."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / rank
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        low = nn.functional.linear(nn.functional.linear(x.to(self.lora_A.dtype), self.lora_A), self.lora_B)
        out: Tensor = self.base(x) + (low * self.scale).to(x.dtype)
        return out


def attach(model: nn.Module, rank: int, alpha: float) -> int:
    """Freeze `model` and put adapters beside its blocks' matrices -> how many numbers will be learned."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name in TARGETS and isinstance(child, nn.Linear):
                setattr(parent, name, LowRank(child, rank, alpha))
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def write(model: nn.Module, folder: Path, rank: int, alpha: float, base: str, revision: str | None = None) -> int:
    """Write the adapters of `model` -> their size in bytes. `base` is the model's id or its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    state: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, LowRank):
            state[f"{_PREFIX}{name}.lora_A.weight"] = module.lora_A.detach().to("cpu", torch.float32).contiguous()
            state[f"{_PREFIX}{name}.lora_B.weight"] = module.lora_B.detach().to("cpu", torch.float32).contiguous()
    save_file(state, str(folder / WEIGHTS), metadata={"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "revision": revision,
        "r": rank, "lora_alpha": alpha,
        "target_modules": list(TARGETS), "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
    }  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return (folder / WEIGHTS).stat().st_size
