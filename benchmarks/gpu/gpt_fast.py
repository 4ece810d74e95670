"""A decode loop in the style of gpt-fast, over the same weights: static KV memory, one compiled step, greedy on the device.

Plain torch that torch.compile fuses; query heads are rows of the attention, as in our own path, so that the comparison is
about kernels and launching and not about expanding keys.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.weights import Tensors
from engine.gpt_bigcode import ModelShape

Step = Callable[[Tensor, Tensor], Tensor]


class Block(nn.Module):
    """One layer; weights are frozen parameters over memory that is already there."""

    keys: Tensor
    values: Tensor

    def __init__(self, shape: ModelShape, tensors: Tensors, name: str, window: int) -> None:
        super().__init__()
        self.shape = shape
        for part in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"):
            for kind in ("weight", "bias"):
                tensor = tensors[f"{name}.{part}.{kind}"]
                self.register_parameter(_key(part, kind), nn.Parameter(tensor, requires_grad=False))
        like = tensors[f"{name}.attn.c_attn.weight"]
        for buffer in ("keys", "values"):
            self.register_buffer(
                buffer, torch.zeros(1, 1, window, shape.head_dim, dtype=like.dtype, device=like.device)
            )

    def forward(self, x: Tensor, position: Tensor, mask: Tensor) -> Tensor:
        """x [1, d] -> [1, d]; the token's key and value are kept at `position` [1]; mask [1, 1, 1, window]."""
        d, head_dim = self.shape.n_embd, self.shape.head_dim
        fused = self._dense("attn.c_attn", self._norm("ln_1", x))
        q, key, value = fused[:, :d], fused[:, d : d + head_dim], fused[:, d + head_dim :]
        self.keys.index_copy_(2, position, key.reshape(1, 1, 1, head_dim))
        self.values.index_copy_(2, position, value.reshape(1, 1, 1, head_dim))
        rows = q.reshape(1, 1, self.shape.n_head, head_dim)
        y = F.scaled_dot_product_attention(rows, self.keys, self.values, attn_mask=mask)
        x = x + self._dense("attn.c_proj", y.reshape(1, d))
        inner = F.gelu(self._dense("mlp.c_fc", self._norm("ln_2", x)), approximate="tanh")
        return x + self._dense("mlp.c_proj", inner)

    def _norm(self, part: str, x: Tensor) -> Tensor:
        weight, bias = self.get_parameter(_key(part, "weight")), self.get_parameter(_key(part, "bias"))
        return F.layer_norm(x, (x.shape[-1],), weight, bias, self.shape.norm_eps)

    def _dense(self, part: str, x: Tensor) -> Tensor:
        return F.linear(x, self.get_parameter(_key(part, "weight")), self.get_parameter(_key(part, "bias")))


class FastModel(nn.Module):
    """The whole model, one token at a time."""

    def __init__(self, shape: ModelShape, tensors: Tensors, window: int) -> None:
        super().__init__()
        if not shape.multi_query:
            raise ValueError("this loop is written for multi-query attention")
        self.shape, self.window = shape, window
        for part in ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"):
            parameter = nn.Parameter(tensors[f"transformer.{part}"], requires_grad=False)
            self.register_parameter(part.replace(".", "_"), parameter)
        names = (f"transformer.h.{n}" for n in range(shape.n_layer))
        self.blocks = nn.ModuleList(Block(shape, tensors, name, window) for name in names)

    def forward(self, token: Tensor, position: Tensor) -> Tensor:
        """token, position int64 [1] -> the next token [1]."""
        wte = self.get_parameter("wte_weight")
        x = F.embedding(token, wte) + F.embedding(position, self.get_parameter("wpe_weight"))
        mask = (torch.arange(self.window, device=token.device) <= position).view(1, 1, 1, self.window)
        for block in self.blocks:
            x = block(x, position, mask)
        weight, bias = self.get_parameter("ln_f_weight"), self.get_parameter("ln_f_bias")
        logits = F.linear(F.layer_norm(x, (x.shape[-1],), weight, bias, self.shape.norm_eps), wte)
        return logits.argmax(dim=-1)


def compiled(model: FastModel, mode: str, device: torch.device) -> Step:
    """The step through torch.compile; on a CPU only traced, since a rehearsal must not wait for a compiler."""
    if device.type == "cpu":
        step: Step = torch.compile(model, backend="eager", fullgraph=True)
    else:
        step = torch.compile(model, mode=mode, fullgraph=True)
    return step


@torch.no_grad()
def generate(step: Step, prompt: Tensor, count: int) -> Tensor:
    """Feed a prompt token by token, then `count` greedy tokens."""
    out, token = [], prompt[:1]
    for index in range(int(prompt.numel()) + count - 1):
        token = prompt[index : index + 1] if index < prompt.numel() else token
        token = step(token.clone(), torch.tensor([index], device=prompt.device)).clone()
        if index >= prompt.numel() - 1:
            out.append(token)
    return torch.cat(out)


def _key(part: str, kind: str) -> str:
    return f"{part}.{kind}".replace(".", "_")
