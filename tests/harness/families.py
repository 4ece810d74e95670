"""Random checkpoints of other families, as `transformers` writes them, with tokenizers in the form of each family's."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from tests.harness.bpe import corpus

_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_RARE = "õ÷ÁýÀÿ"
"""Letters of the byte alphabet that DeepSeek-Coder's vocabulary lacks and adds as ordinary tokens."""


@dataclass(frozen=True, slots=True)
class Family:
    """One family: what it calls its control tokens, and what its model is made of."""

    kind: str
    module: str
    name: str
    prefix: str
    middle: str
    suffix: str
    end: str
    begin: str = ""
    others: tuple[str, ...] = ()
    config: tuple[tuple[str, Any], ...] = ()

    @property
    def control(self) -> tuple[str, ...]:
        named = (self.end, self.begin, self.prefix, self.middle, self.suffix, *self.others)
        return tuple(text for text in named if text)


FAMILIES = {
    family.kind: family
    for family in (
        Family(
            "starcoder2", "starcoder2", "Starcoder2",
            "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<|endoftext|>",
            others=("<fim_pad>", "<repo_name>", "<file_sep>", "<issue_start>"),
        ),
        Family(
            "qwen2", "qwen2", "Qwen2",
            "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|endoftext|>",
            others=("<|im_start|>", "<|im_end|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_call>"),
        ),
        Family(
            "deepseek", "llama", "Llama",
            "<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜fim▁hole｜>", "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>",
            others=("<|EOT|>", "<pad>"),
            config=(("rope_parameters", {"rope_type": "linear", "factor": 4.0, "rope_theta": 100_000.0}),),
        ),
        Family(
            "gemma", "gemma", "Gemma",
            "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<eos>", "<bos>",
            others=("<pad>", "<unk>", "<mask>", "<|file_separator|>", "<start_of_turn>"),
            config=(("head_dim", 24),),
        ),
    )
}  # fmt: skip


def make_family_checkpoint(
    directory: Path,
    kind: str,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shard: str = "50GB",
    **config: Any,
) -> Path:
    """Write a checkpoint of a family with random weights, saved by transformers itself; -> the directory.

    Its greedy texts vary and never hold a control token.
    """
    family = FAMILIES[kind]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(family_tokenizer(kind), "utf-8")
    size = 1 + max(_ids(directory).values())
    sizes = {
        "vocab_size": size + 5, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.25,
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    }  # fmt: skip
    module = __import__(f"transformers.models.{family.module}", fromlist=["*"])
    settings = getattr(module, f"{family.name}Config")(**sizes | dict(family.config) | config)
    torch.manual_seed(seed)
    model = getattr(module, f"{family.name}ForCausalLM")(settings)
    control = [token for text, token in _ids(directory).items() if text in family.control]
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name:
                tensor.add_(torch.randn_like(tensor) * 0.1)
        # Random signs undo what a tied head makes of the token just read; short rows are never the likeliest.
        head = model.lm_head.weight
        model.model.norm.weight.mul_(torch.where(torch.randn_like(model.model.norm.weight) < 0, -1.0, 1.0))
        head[control] *= 0.05
    model.to(dtype).save_pretrained(directory, max_shard_size=shard)
    return directory


def family_oracle(directory: Path) -> Any:
    """transformers' own model of a directory, in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True).eval()


def family_greedy(oracle: Any, ids: Sequence[int], n: int) -> list[int]:
    """`n` tokens of the library's own `generate`, which nothing stops."""
    generated = oracle.generate(
        torch.tensor([list(ids)]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=n,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    found: list[int] = generated[0, len(ids) :].tolist()
    return found


def family_ids(directory: Path, text: str) -> list[int]:
    """The ids of a text under the tokenizer file, read by the library; control tokens act as such."""
    ids: list[int] = _file(directory).encode(text, add_special_tokens=False).ids
    return ids


def id_of(directory: Path, text: str) -> int:
    """The id of one token."""
    return _ids(directory)[text]


def rewrite_tensors(directory: Path, change: Any) -> Path:
    """Apply `change` to the dictionary of all tensors of a checkpoint in one file."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})
    return directory


@functools.cache
def family_tokenizer(kind: str) -> str:
    """`tokenizer.json` of a family, trained here: about 700 tokens."""
    family = FAMILIES[kind]
    if kind == "gemma":
        return _gemma(family)
    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - (set(_RARE) if kind == "deepseek" else set()))
    tokenizer: Any = tokenizers.Tokenizer(models.BPE())
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_steps(kind))
    first = kind == "starcoder2"
    tokenizer.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=700,
            special_tokens=list(family.control) if first else [],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    if kind == "deepseek":
        tokenizer.add_tokens([tokenizers.AddedToken(letter, normalized=True) for letter in _RARE])
    if not first:  # most of them are not marked as special, as these families have it
        tokenizer.add_special_tokens(list(family.control[:1]))
        tokenizer.add_tokens([tokenizers.AddedToken(text, normalized=False) for text in family.control[1:]])
    text: str = tokenizer.to_str()
    return text


def _steps(kind: str) -> list[Any]:
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    digits = pre_tokenizers.Digits(individual_digits=True)

    def split(pattern: str) -> Any:
        return pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")

    if kind == "starcoder2":
        return [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    if kind == "qwen2":
        return [split(_QWEN), bytes_only]
    patterns = ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")
    return [*map(split, patterns), digits, bytes_only]


def _gemma(family: Family) -> str:
    """Characters with bytes to fall back to, blanks written as U+2581; runs of line ends and HTML's tags are tokens."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    texts = ["\n\n", "\n\n\n", "<div>", "</div>"]
    tokenizer: Any = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    first = [*family.control, *texts, *bytes_]
    trainer = trainers.BpeTrainer(vocab_size=700 + len(bytes_), special_tokens=first, show_progress=False)
    # Words of their own, as SentencePiece cuts them: a blank only ever begins a token.
    tokenizer.train_from_iterator([f" {word}" for text in corpus() for word in text.split()], trainer)
    file = json.loads(tokenizer.to_str())
    kept = {*family.control, *texts}
    file["added_tokens"] = [
        token | {"special": token["content"] in ("<pad>", "<eos>", "<bos>", "<start_of_turn>")}
        for token in file["added_tokens"]
        if token["content"] in kept
    ]
    file["pre_tokenizer"] = {
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
    }  # fmt: skip
    return json.dumps(file)


def _ids(directory: Path) -> dict[str, int]:
    found: dict[str, int] = _file(directory).get_vocab(with_added_tokens=True)
    return found


def _file(directory: Path) -> Any:
    return tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
