"""Muon for the matrices of the blocks, AdamW for the rest: both PyTorch's own (Jordan et al. 2024; torch.optim.Muon)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Rates:
    """Peak learning rates and decays."""

    matrices: float = 0.02
    """Muon's, times the square root of rows over columns where a matrix is tall (`adjust_lr_fn="original"`)."""

    rest: float = 0.003
    matrix_decay: float = 0.02
    """Decoupled, times the rate: Muon's updates are larger than AdamW's, so its decay is smaller."""

    momentum: float = 0.95
    clip: float = 1.0


class Optimiser:
    """Both optimisers behind one step."""

    def __init__(self, model: nn.Module, rates: Rates, *, muon: bool = True) -> None:
        matrices: list[nn.Parameter] = []
        embeddings: list[nn.Parameter] = []
        vectors: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            if muon and parameter.ndim == 2 and ".h." in name:
                matrices.append(parameter)
            else:
                (embeddings if parameter.ndim == 2 else vectors).append(parameter)
        self._clip = rates.clip
        self._parameters = matrices + embeddings + vectors
        fused = self._parameters[0].is_cuda
        self._parts: list[tuple[torch.optim.Optimizer, float]] = []
        if matrices:
            first = torch.optim.Muon(
                matrices, lr=rates.matrices, weight_decay=rates.matrix_decay, momentum=rates.momentum, nesterov=True
            )
            self._parts.append((first, rates.matrices))
        groups = [
            {"params": embeddings, "weight_decay": 0.01},
            {"params": vectors, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        if groups:
            adam = torch.optim.AdamW(groups, lr=rates.rest, betas=(0.9, 0.95), eps=1e-10, fused=fused)
            self._parts.append((adam, rates.rest))

    def step(self, factor: float) -> torch.Tensor:
        """Clip, step with `factor` times the peak rates, forget the gradients -> the gradient's norm."""
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip)
        for part, peak in self._parts:
            for group in part.param_groups:
                group["lr"] = peak * factor
            part.step()
            part.zero_grad(set_to_none=True)
        return norm
