"""The GPU kit: `python -m benchmarks.gpu --part kernels|models|runner|peers --out DIR`, rehearsed on a CPU with `--toy`.

`kernels` holds each operation against float64; `models` holds whole models against transformers and times them;
`runner` holds graphs, draws and guesses against what they stand for; `peers` puts transformers' generate and a compiled
decode loop beside ours, in the same run. Bandwidth and matrix rate come first.
"""
