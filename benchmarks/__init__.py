"""Measurements, one command per question. Every result is one JSON line, and no number is quoted without its line.

    python -m benchmarks.gpu --part kernels --part models --part peers --out DIR      on a GPU, real shapes, random weights
    python -m benchmarks.gpu --part kernels --part models --part peers --toy --out DIR    a rehearsal, seconds on a CPU
    python -m benchmarks.report DIR/*.jsonl                                           the same lines as a Markdown table

Runs from a plain checkout with torch, triton, transformers, tokenizers, safetensors and numpy; needs no network and no
checkpoint. Units: seconds unless a row's `unit` says otherwise, bytes, FLOP; 1 GB is 10^9 bytes.
"""
