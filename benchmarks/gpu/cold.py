"""A cold start in a process of its own: `python -m benchmarks.gpu.cold --model 1b`; prints seconds as one line of JSON.

Random weights on the device, then what the engine does when it loads a model, and a first token after a short prompt.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

PROMPT = 500
"""Tokens, or half of what the window holds: as many as the kernel for prompts of an editor's size needs to be chosen."""


def main(arguments: Sequence[str]) -> int:
    """`imports` apart, `first token` is all that a user waits for: `choosing` (compiling and trying) and one answer."""
    began = time.perf_counter()
    import torch

    from benchmarks.gpu.subject import Subject
    from benchmarks.shapes import FAMILY
    from engine.cuda.choosing import Chosen, choose
    from engine.ops import TorchOps
    from engine.runner import TorchRunner
    from engine.step import Span, Step

    seconds = {"imports": time.perf_counter() - began}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.cold", description=__doc__)
    parser.add_argument("--model", choices=list(FAMILY), required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    began = time.perf_counter()
    subject = Subject.random(options.model, FAMILY[options.model], torch.bfloat16, device, seed=0)
    model = subject.ours(TorchOps())
    seconds["weights"] = time.perf_counter() - began
    began = time.perf_counter()
    window = min(2048, subject.shape.n_positions)
    chosen = (
        choose(model, 1, window) if device.type == "cuda" else Chosen(TorchRunner(model, 1, window), "no CUDA here")
    )
    seconds["choosing"] = time.perf_counter() - began
    length = min(PROMPT, window // 2)
    chosen.runner.run(Step.of(Span(0, 0, length), subject.prompt(length, 0).tolist()))
    seconds["first token"] = time.perf_counter() - began
    sys.stdout.write(json.dumps({**seconds, "note": chosen.note}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
