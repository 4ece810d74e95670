"""Random checkpoints that behave like trained ones in the ways tests care about, and transformers as the oracle.

A random model's greedy text tends to repeat one token, whatever the prompt; such a model cannot tell a right cache from
a wrong one. These weights are scaled so that every step depends on position and on all earlier tokens.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.harness.bpe import END_OF_TEXT, Family, control_ids, tokenizer_json

Activation = Literal["gelu_pytorch_tanh", "gelu"]

_MUTE = 12.0  # how far below the others the logits of muted tokens are, in units of the final norm's bias


def make_checkpoint(
    directory: Path,
    *,
    n_layer: int = 2,
    n_head: int = 4,
    n_embd: int | None = None,
    head_dim: int | None = None,
    vocab_size: int | None = None,
    tokenizer_size: int = 768,
    n_positions: int = 512,
    multi_query: bool = True,
    activation_function: Activation = "gelu_pytorch_tanh",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    family: Family = "starcoder",
    shards: int = 1,
    scale: float = 1.0,
    mute_control: bool = True,
    config: Mapping[str, object] | None = None,
) -> Path:
    """Write config.json, safetensors and tokenizer.json of a random GPTBigCode model; -> the directory.

    n_embd = n_head * head_dim; either may be given (default head_dim 16). `vocab_size` defaults to the tokenizer's and
    may exceed it; ids past the tokenizer are then predicted like others. With `mute_control` greedy decoding never
    picks a control token, so that texts have the length asked for. `scale` multiplies every projection: larger means
    texts that vary more and logits further apart. `shards` > 1 adds an index. `config` overrides keys of config.json
    as written, after the weights are made. The same arguments give the same files.
    """
    head_dim = head_dim if head_dim is not None else 16 if n_embd is None else n_embd // n_head
    n_embd = n_head * head_dim if n_embd is None else n_embd
    vocab_size = tokenizer_size if vocab_size is None else vocab_size
    if n_embd != n_head * head_dim:
        raise ValueError(f"n_embd {n_embd} is not n_head {n_head} * head_dim {head_dim}")
    if vocab_size < tokenizer_size:
        raise ValueError(f"vocab_size {vocab_size} does not hold the tokenizer's {tokenizer_size} tokens")
    control = control_ids(family, tokenizer_size)
    end = control[END_OF_TEXT]
    written: dict[str, object] = {
        "architectures": ["GPTBigCodeForCausalLM"],
        "model_type": "gpt_bigcode",
        "activation_function": activation_function,
        "attn_pdrop": 0.0,
        "bos_token_id": end,
        "embd_pdrop": 0.0,
        "eos_token_id": end,
        "layer_norm_epsilon": 1e-05,
        "multi_query": multi_query,
        "n_embd": n_embd,
        "n_head": n_head,
        "n_inner": 4 * n_embd,
        "n_layer": n_layer,
        "n_positions": n_positions,
        "resid_pdrop": 0.0,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "vocab_size": vocab_size,
    }
    tensors = _random_tensors(
        n_layer, n_embd, (1 if multi_query else n_head) * head_dim, vocab_size, n_positions, scale, seed
    )
    if mute_control:
        _mute(tensors, list(control.values()))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(written | dict(config or {}), indent=2), "utf-8")
    (directory / "tokenizer.json").write_text(tokenizer_json(family, tokenizer_size), "utf-8")
    _save({name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}, directory, shards)
    return directory


def encode(directory: Path, text: str) -> list[int]:
    """The ids of a text under a checkpoint's tokenizer; control tokens written in it act as such."""
    ids: list[int] = _tokenizer(directory).encode(text, add_special_tokens=False).ids
    return ids


def decode(directory: Path, ids: Sequence[int]) -> str:
    """The text of ids; control tokens are left out."""
    text: str = _tokenizer(directory).decode(list(ids))
    return text


def oracle_logits(directory: Path, ids: Sequence[int]) -> Tensor:
    """float32 [T, V]: what transformers predicts after each of the ids, computed in float32, all at once."""
    model = _oracle(directory, (directory / "config.json").stat().st_mtime_ns)
    with torch.inference_mode(), _one_thread():
        logits: Tensor = model(torch.tensor([list(ids)]), use_cache=False).logits[0]
    return logits.float()


def oracle_greedy(directory: Path, ids: Sequence[int], n: int) -> tuple[list[int], list[float]]:
    """`n` greedy tokens after `ids`, without any cache, and at each step how far the best logit leads the second.

    Nothing stops it, neither end-of-text nor a control token; equal logits go to the lowest id.
    """
    sequence, gaps = list(ids), []
    for _ in range(n):
        best = torch.topk(oracle_logits(directory, sequence)[-1], 2)
        gaps.append(float(best.values[0] - best.values[1]))
        sequence.append(int(best.indices[0]))
    return sequence[len(ids) :], gaps


def assert_same_greedy(
    ours: Sequence[int], directory: Path, prompt_ids: Sequence[int], *, tolerance: float = 1e-4
) -> None:
    """Each of our tokens must be the oracle's best after the prompt and our own tokens so far.

    Where the oracle's best logits are closer than `tolerance`, any of them will do, and what follows is judged after
    our choice.
    """
    assert prompt_ids, "greedy text needs a prompt of at least one token"
    logits = oracle_logits(directory, [*prompt_ids, *ours])[len(prompt_ids) - 1 : -1]
    for step, token in enumerate(ours):
        lead = float(logits[step].max() - logits[step, token])
        assert lead <= tolerance, (
            f"token {step} of {len(ours)} is {token}, the oracle says {int(logits[step].argmax())} by {lead:.3g};"
            f" ours {list(ours)}, the oracle's {oracle_greedy(directory, prompt_ids, len(ours))[0]}"
        )


def _random_tensors(
    n_layer: int, width: int, kv_width: int, vocab_size: int, n_positions: int, scale: float, seed: int
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float) -> Tensor:
        return torch.randn(*shape, generator=generator) * std

    def dense(out: int, inner: int, gain: float) -> dict[str, Tensor]:
        return {
            "weight": normal(out, inner, std=gain * scale / math.sqrt(inner)),
            "bias": normal(out, std=0.1 * scale),
        }

    def norm() -> dict[str, Tensor]:
        return {"weight": 1 + normal(width, std=0.1), "bias": normal(width, std=0.1)}

    spread = 3 / math.sqrt(width)  # logits then have a standard deviation of about 3, whatever the width
    parts: dict[str, dict[str, Tensor]] = {
        "wte": {"weight": normal(vocab_size, width, std=spread)},
        "wpe": {"weight": normal(n_positions, width, std=spread)},
        "ln_f": norm(),
    }
    # A tied head favours the token just read, which random signs in between undo.
    parts["ln_f"]["weight"] *= torch.where(normal(width, std=1.0) < 0, -1.0, 1.0)
    for i in range(n_layer):
        parts[f"h.{i}.ln_1"] = norm()
        parts[f"h.{i}.attn.c_attn"] = dense(width + 2 * kv_width, width, 1.5)
        parts[f"h.{i}.attn.c_proj"] = dense(width, width, 1.5)
        parts[f"h.{i}.ln_2"] = norm()
        parts[f"h.{i}.mlp.c_fc"] = dense(4 * width, width, 1.5)
        parts[f"h.{i}.mlp.c_proj"] = dense(width, 4 * width, 1.5)
    return {f"transformer.{part}.{name}": tensor for part, of in parts.items() for name, tensor in of.items()}


def _mute(tensors: dict[str, Tensor], ids: list[int]) -> None:
    """Lower the logits of `ids`: the head has no bias, but the final norm's bias times a direction of `wte` is one."""
    wte, bias, weight = (tensors[f"transformer.{name}"] for name in ("wte.weight", "ln_f.bias", "ln_f.weight"))
    wte[:, 0] = 0.0
    wte[ids, 0] = -_MUTE
    weight[0], bias[0] = 0.0, _MUTE


def _save(tensors: dict[str, Tensor], directory: Path, shards: int) -> None:
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", {"format": "pt"})
        return
    names = sorted(tensors)
    where: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, directory / file, {"format": "pt"})
        where |= dict.fromkeys(part, file)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), "utf-8")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small products gain nothing from more threads, and lose much when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.lru_cache(maxsize=4)
def _oracle(directory: Path, written_ns: int) -> Any:
    from transformers import GPTBigCodeForCausalLM

    model = GPTBigCodeForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def _tokenizer(directory: Path) -> Any:
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
