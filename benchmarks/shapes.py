"""The family's shapes, and what a step of each must read and compute. Bytes and FLOP, counted, never measured."""

from __future__ import annotations

from engine.gpt_bigcode import ModelShape


def _shape(
    layers: int, width: int, heads: int, *, positions: int = 8192, vocab: int = 49_152, multi_query: bool = True
) -> ModelShape:
    return ModelShape(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        n_inner=4 * width,
        n_positions=positions,
        vocab_size=vocab,
        multi_query=multi_query,
        exact_gelu=False,
        scale_attention=True,
        norm_eps=1e-5,
    )


FAMILY: dict[str, ModelShape] = {
    "speck": _shape(1, 16, 1, positions=64, vocab=64),
    "toy": _shape(2, 64, 4, positions=256, vocab=512),
    "toy-mha": _shape(2, 48, 3, positions=256, vocab=500, multi_query=False),
    "tiny": _shape(20, 768, 12),
    "santacoder": _shape(24, 2048, 16, positions=2048, vocab=49_280),
    "1b": _shape(24, 2048, 16),
    "3b": _shape(36, 2816, 22),
    "7b": _shape(42, 4096, 32),
    "15.5b": _shape(40, 6144, 48),
}
"""StarCoderBase 1B, 3B, 7B, StarCoder 15.5B, SantaCoder, tiny_starcoder_py; two to rehearse with, one to interpret."""

REAL = ("santacoder", "1b", "3b", "7b", "15.5b")
TOYS = ("toy", "toy-mha")

_ITEM = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
_GROUP = 128  # weights that share a scale and a zero point in int4


def matrix_weights(shape: ModelShape) -> int:
    """Weights in the matrices of all blocks; the vocabulary's is not among them."""
    d, kv = shape.n_embd, 2 * shape.kv_heads * shape.head_dim
    return shape.n_layer * (d * (d + kv) + d * d + 2 * d * shape.n_inner)


def decode_bytes(shape: ModelShape, weights: str, context: int = 0) -> int:
    """Bytes that one decode step at batch 1 must read: matrices, vocabulary, vectors, and keys and values of `context`.

    `weights` is a dtype's name, or int8 (a bfloat16 scale a row) or int4 (groups of 128 with bfloat16 scale and zero;
    the vocabulary in int8). Vectors are bfloat16 then. The rows of the two embeddings are left out.
    """
    matrices, head = matrix_weights(shape), shape.vocab_size * shape.n_embd
    vectors = shape.parameters - matrices - head - shape.n_positions * shape.n_embd
    kv_item = _ITEM.get(weights, 2.0)
    kv = context * kv_bytes_per_token(shape, kv_item)
    if weights in _ITEM:
        return round(_ITEM[weights] * (matrices + head + vectors) + kv)
    head_int8 = head + 2 * shape.vocab_size
    if weights == "int8":
        d = shape.n_embd
        rows = shape.n_layer * (3 * d + 2 * shape.kv_heads * shape.head_dim + shape.n_inner)
        return round(matrices + 2 * rows + head_int8 + 2 * vectors + kv)
    if weights == "int4":
        return round(matrices * (0.5 + 4 / _GROUP) + head_int8 + 2 * vectors + kv)
    raise ValueError(f"{weights!r} is none of {', '.join(_ITEM)}, int8, int4")


def kv_bytes_per_token(shape: ModelShape, item: float = 2.0) -> float:
    """Bytes of keys and values that one position takes, `item` bytes a number."""
    return shape.n_layer * 2 * shape.kv_heads * shape.head_dim * item


def prefill_flops(shape: ModelShape, tokens: int, context: int = 0) -> int:
    """FLOP of `tokens` new tokens after `context`: products, causal attention, and the vocabulary for one row."""
    linear = 2 * matrix_weights(shape) * tokens
    pairs = tokens * context + tokens * (tokens + 1) // 2
    return linear + 4 * shape.n_layer * shape.n_embd * pairs + 2 * shape.vocab_size * shape.n_embd


def floor_seconds(shape: ModelShape, weights: str, tokens: int, context: int, read: float, rate: float) -> float:
    """No step runs faster: the larger of bytes over bandwidth `read` (B/s) and FLOP over matrix rate `rate` (FLOP/s)."""
    return max(decode_bytes(shape, weights, context) / read, prefill_flops(shape, tokens, context) / rate)
