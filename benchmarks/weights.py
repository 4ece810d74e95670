"""Random weights of a real shape, made on the device; our model and transformers' share the very same memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.cuda.quantised import quantised
from engine.gpt_bigcode import GPTBigCode, Layer, ModelShape, Weights
from engine.ops import Linear, Norm, Ops

Tensors = dict[str, Tensor]


def random_tensors(shape: ModelShape, dtype: torch.dtype, device: torch.device, seed: int) -> Tensors:
    """A checkpoint's tensors by name, scaled so that logits have a spread of about 3 and depend on every earlier token.

    Residual branches shrink with depth, as in GPT-2's initialisation, so that rounding does not grow from layer to layer.
    """
    generator = torch.Generator(device).manual_seed(seed)
    d, inner, kv = shape.n_embd, shape.n_inner, 2 * shape.kv_heads * shape.head_dim

    def normal(*size: int, std: float, mean: float = 0.0) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device).normal_(mean, std, generator=generator)

    tensors: Tensors = {}

    def dense(name: str, rows: int, columns: int, gain: float) -> None:
        tensors[f"{name}.weight"] = normal(rows, columns, std=gain / math.sqrt(columns))
        tensors[f"{name}.bias"] = normal(rows, std=0.1 * gain)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = normal(d, std=0.1, mean=1.0)
        tensors[f"{name}.bias"] = normal(d, std=0.1)

    branch = 1.5 / math.sqrt(2 * shape.n_layer)
    tensors["transformer.wte.weight"] = normal(shape.vocab_size, d, std=3 / math.sqrt(d))
    tensors["transformer.wpe.weight"] = normal(shape.n_positions, d, std=3 / math.sqrt(d))
    for block in (f"transformer.h.{n}" for n in range(shape.n_layer)):
        norm(f"{block}.ln_1")
        dense(f"{block}.attn.c_attn", d + kv, d, 1.5)
        dense(f"{block}.attn.c_proj", d, d, branch)
        norm(f"{block}.ln_2")
        dense(f"{block}.mlp.c_fc", inner, d, 1.5)
        dense(f"{block}.mlp.c_proj", d, inner, branch)
    norm("transformer.ln_f")
    # A tied head favours the token just read, which random signs in between undo.
    tensors["transformer.ln_f.weight"] *= torch.where(normal(d, std=1.0) < 0, -1.0, 1.0).to(dtype)
    return tensors


def our_model(shape: ModelShape, tensors: Tensors, ops: Ops) -> GPTBigCode:
    """Our model over these tensors; multi-head projections alone are copied, into our order of rows."""

    def norm(name: str) -> Norm:
        return Norm(tensors[f"{name}.weight"], tensors[f"{name}.bias"], shape.norm_eps)

    def linear(name: str) -> Linear:
        return Linear(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def qkv(name: str) -> Linear:
        fused = linear(name)
        return fused if shape.multi_query else Linear(_ordered(fused.weight, shape), _ordered(fused.bias, shape))

    blocks = (f"transformer.h.{n}" for n in range(shape.n_layer))
    layers = tuple(
        Layer(
            ln_1=norm(f"{block}.ln_1"),
            qkv=qkv(f"{block}.attn.c_attn"),
            attn_proj=linear(f"{block}.attn.c_proj"),
            ln_2=norm(f"{block}.ln_2"),
            fc=linear(f"{block}.mlp.c_fc"),
            mlp_proj=linear(f"{block}.mlp.c_proj"),
        )
        for block in blocks
    )
    wte, wpe = tensors["transformer.wte.weight"], tensors["transformer.wpe.weight"]
    return GPTBigCode(shape, Weights(wte, wpe, layers, norm("transformer.ln_f"), wte), ops)


def in_fewer_bits(model: GPTBigCode, form: str) -> GPTBigCode:
    """Another model whose layers are those of `model` in "int8" or "int4", as the engine stores them on a GPU."""

    def other(layer: Linear) -> Linear:
        return quantised(form, layer.weight, layer.bias)

    weights = model.weights
    layers = tuple(
        replace(one, qkv=other(one.qkv), attn_proj=other(one.attn_proj), fc=other(one.fc), mlp_proj=other(one.mlp_proj))
        for one in weights.layers
    )
    assert isinstance(weights.wte, Tensor)
    vocabulary = quantised("int8", weights.wte, weights.wte.new_zeros(len(weights.wte)))
    return GPTBigCode(model.shape, replace(weights, layers=layers, vocabulary=vocabulary), model.ops)


def their_config(shape: ModelShape) -> Any:
    """The same shape as transformers' configuration."""
    from transformers import GPTBigCodeConfig

    return GPTBigCodeConfig(
        vocab_size=shape.vocab_size,
        n_positions=shape.n_positions,
        n_embd=shape.n_embd,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        n_inner=shape.n_inner,
        activation_function="gelu" if shape.exact_gelu else "gelu_pytorch_tanh",
        layer_norm_epsilon=shape.norm_eps,
        scale_attn_weights=shape.scale_attention,
        multi_query=shape.multi_query,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )


def their_model(shape: ModelShape, tensors: Tensors, attention: str = "sdpa") -> Any:
    """transformers' model over the same tensors, nothing copied."""
    from transformers import GPTBigCodeForCausalLM

    with torch.device("meta"):
        model = GPTBigCodeForCausalLM(their_config(shape))
    missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
    assert not unexpected, unexpected
    assert set(missing) <= {"lm_head.weight", "transformer.bias"}, missing
    model.lm_head.weight = model.transformer.wte.weight
    if "bias" in dict(model.transformer.named_buffers()):  # an old causal mask, read by nothing; left behind on `meta`
        model.transformer.bias = torch.zeros(1, 1, dtype=torch.bool, device=model.transformer.wte.weight.device)
    model.set_attn_implementation(attention)
    model.eval().requires_grad_(False)
    return model


def upcast(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    """The same numbers in a wider type."""
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def tensor_bytes(tensors: Tensors) -> int:
    """Bytes that the tensors take."""
    return sum(tensor.nbytes for tensor in tensors.values())


def _ordered(interleaved: Tensor, shape: ModelShape) -> Tensor:
    """[q k v of head 0 | of head 1 | ...] -> [all q | all k | all v]."""
    split = interleaved.view(shape.n_head, 3, shape.head_dim, -1).transpose(0, 1)
    return split.reshape(interleaved.shape).contiguous()
