"""Our attention for transformers: after `register()`, `from_pretrained(..., attn_implementation="starfill")` uses it.

For any model of transformers whose attention is causal over plain keys and values; made for GPTBigCode, where the query
heads share one key head that `sdpa` would read once for each of them. What the kernel does not do (padding inside a batch,
static caches, windows, dropout, gradients) goes to transformers' own `sdpa`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from triton_kernels.attend import MAX_HEAD_DIM, Workspace, attend_apart
from triton_kernels.configs import Target
from triton_kernels.operands import DTYPES
from triton_kernels.spans import HostSpan, SpanTable

NAME = "starfill"

_workspaces: dict[tuple[torch.device, int], Workspace] = {}
_targets: dict[torch.device, Target] = {}
_last: dict[torch.device, tuple[tuple[HostSpan, ...], SpanTable]] = {}


def register(name: str = NAME) -> None:
    """Make the attention known to transformers under `name`. May be called again."""
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, mask)


def mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    mask_function: Any = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    **more: Any,
) -> Tensor | None:
    """None where new tokens simply follow all earlier ones, which the kernel needs no mask for; else `sdpa`'s mask.

    attention_mask: bool or int [batch, tokens], 0 for padding.
    """
    follows = not isinstance(q_offset, Tensor) and q_offset + q_length == kv_length
    plain = mask_function is causal_mask_function and local_size is None
    if follows and plain and (attention_mask is None or bool(attention_mask.all())):
        return None
    more.pop("allow_is_causal_skip", None)
    made: Tensor | None = sdpa_mask(
        batch_size, q_length, kv_length, q_offset, mask_function=mask_function, attention_mask=attention_mask,
        local_size=local_size, allow_is_causal_skip=False, **more,
    )  # fmt: skip
    return made


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """-> (mixed values [batch, new, heads, D], None). See transformers' `AttentionInterface`.

    query: [batch, heads, new, D]; key, value: [batch, G, tokens, D], the new tokens last; the mask None means causal.
    """
    if attention_mask is not None or dropout or not _fits(module, query, key, value, more):
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return found
    batch, heads, new, head_dim = query.shape
    if key.stride() != value.stride() or key.stride(3) != 1:
        key, value = key.contiguous(), value.contiguous()
    rows = query.transpose(1, 2).reshape(batch * new, heads * head_dim)
    spans = tuple(HostSpan(number, key.shape[2] - new, new) for number in range(batch))
    scale = head_dim**-0.5 if scaling is None else scaling
    device = query.device
    mixed = attend_apart(
        rows, key, value, _table(spans, device), scale, _workspace(device), _target(device)
    )  # fmt: skip
    return mixed.view(batch, new, heads, head_dim), None


def _fits(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, more: dict[str, Any]) -> bool:
    causal = more.get("is_causal")
    return (
        getattr(module, "is_causal", True) is not False
        and causal is not False
        and not any(
            more.get(name) is not None for name in ("softcap", "position_bias", "cache", "sliding_window", "s_aux")
        )
        and not (torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad))
        and query.dtype == key.dtype == value.dtype
        and query.dtype in DTYPES
        and key.shape[3] == value.shape[3] == query.shape[3]
        and query.shape[3] % 8 == 0
        and query.shape[3] <= MAX_HEAD_DIM
        and query.shape[1] % key.shape[1] == 0
        and 0 < query.shape[2] <= key.shape[2]
    )


def _workspace(device: torch.device) -> Workspace:
    """Scratch memory is one stream's."""
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    if (device, stream) not in _workspaces:
        _workspaces[device, stream] = Workspace.on(device)
    return _workspaces[device, stream]


def _table(spans: tuple[HostSpan, ...], device: torch.device) -> SpanTable:
    """Every layer of a pass asks for the same."""
    known = _last.get(device)
    if known is None or known[0] != spans:
        known = _last[device] = spans, SpanTable.of(spans, device)
    return known[1]


def _target(device: torch.device) -> Target:
    if device not in _targets:
        _targets[device] = Target.of(device)
    return _targets[device]
