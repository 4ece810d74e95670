"""The same generations, shaped by our rules, by none, and by two peers' published ones, on held-out repositories.

`python -m benchmarks.shaping --out DIR [--holes N] [--recording FILE] WHEEL_OR_FOLDER ...` asks the engine for each hole
once, takes the generation to its end, and shapes it in each way. `--tokens` shapes shorter beginnings of the same
generations, as a smaller token limit would have left them. The first folder of a path is its repository. Differences
are paired by hole; intervals are 95 %, by bootstrap over files.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks import peer_rules
from benchmarks.report import text_table
from benchmarks.rows import Detail, Row, RowWriter, Run, per_cent
from engine.models import STARTER_ID
from lsp_server.engines import connect
from lsp_server.evaluation.command import Options, cut_holes
from lsp_server.evaluation.holes import Hole
from lsp_server.evaluation.report import MEASURES, SHARES, differences, measures
from lsp_server.evaluation.runner import Result, judge, reshape, window_of
from lsp_server.evaluation.tape import Recording, Tape
from lsp_server.settings import load_settings
from lsp_server.shaping import ALL_RULES
from lsp_server.state.ask import Surroundings
from lsp_server.state.call import Call, Purpose
from lsp_server.window import Window
from lsp_server.wire import Wire

MAX_TOKENS = 64
ASKED = ("exact", "similarity", "chrf", "shown", "quiet", "overrun", "broken", "repeated")
PEERS: dict[str, Callable[[str, Window], str]] = {
    "none": peer_rules.none,
    "llama.vim": peer_rules.llama_vim,
    "tabby": peer_rules.tabby,
}


async def generations(holes: Sequence[Hole], recording: Path | None, *, ask: bool) -> list[Recording | None]:
    """What the model says at each hole; None where it was not recorded and may not be asked."""
    engine = connect(load_settings({}), trust_folder=True) if ask else None
    tape, wire, found = Tape(engine, whole=True, file=recording), Wire(MAX_TOKENS), []
    try:
        await tape.ready(invoked=True, progress=None)
        for hole in track(holes, console=Console(stderr=True), transient=True):
            call = Call(hole.key, window_of(hole), Purpose.COMPLETE, Surroundings(language=hole.language.id))
            found.append(await tape.whole_generation(wire.encode(call)))
    finally:
        await tape.aclose()
    return found


def shortened(recording: Recording, tokens: int) -> Recording:
    """A generation as it would have been with fewer tokens: greedy decoding says the same up to there."""
    pieces: list[tuple[str, list[float]]] = []
    count = 0
    for text, logprobs in recording.pieces:
        if count >= tokens:
            return replace(recording, pieces=pieces, finish="length")
        pieces.append((text, logprobs))
        count += len(logprobs)
    return recording


def shaped(holes: Sequence[Hole], said: Sequence[Recording]) -> dict[str, list[Result]]:
    """Every way of shaping, hole by hole, and ours without each rule."""
    results: dict[str, list[Result]] = {"ours": [], **{name: [] for name in PEERS}}
    results |= {f"without {rule}": [] for rule in sorted(ALL_RULES)}
    for hole, recording in zip(holes, said, strict=True):
        window = window_of(hole)
        results["ours"].append(reshape(hole, recording, ALL_RULES, window))
        for rule in sorted(ALL_RULES):
            results[f"without {rule}"].append(reshape(hole, recording, ALL_RULES - {rule}, window))
        for name, peer in PEERS.items():
            text = peer(recording.text, window)
            results[name].append(judge(hole, text, None, tokens=len(recording.pieces)))
    return results


def main(arguments: Sequence[str]) -> int:
    """Generate or read, shape, write rows, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shaping", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for shaping.jsonl; rows are appended")
    parser.add_argument("--holes", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--recording", type=Path, help="keep generations in this file, and use those kept")
    parser.add_argument("--replay", action="store_true", help="only holes that are in the recording; starts no engine")
    parser.add_argument("--tokens", type=int, default=MAX_TOKENS, help="tokens of each generation that are shaped")
    parser.add_argument("--language", default="python")
    parser.add_argument("paths", nargs="+", type=Path, help="folders or wheels, a repository each")
    options = parser.parse_args(arguments)
    run = Run.of(arguments, "cpu", options.seed, module="benchmarks.shaping")
    wanted = Options(tuple(options.paths), options.holes, options.seed, languages=(options.language,))
    holes = cut_holes(wanted)
    found = asyncio.run(generations(holes, options.recording, ask=not options.replay))
    pairs = [(hole, said) for hole, said in zip(holes, found, strict=True) if said is not None]
    holes, said = [hole for hole, _ in pairs], [shortened(recording, options.tokens) for _, recording in pairs]
    results = shaped(holes, said)
    about: Detail = {
        "holes": len(holes),
        "repositories": len({hole.path.split("/")[0] for hole in holes}),
        "max_tokens": options.tokens,
        "language": options.language,
    }
    writer = RowWriter(options.out, "shaping")
    for name, each in results.items():
        for measure, value in measures(each).items():
            if measure not in ASKED:
                continue
            gain = differences(results["ours"], each).get(measure) if name != "ours" else None
            compared = {} if gain is None else per_cent(gain, "ours_minus_this")
            assert measure in SHARES
            writer.write(
                Row(
                    question=f"shaping: {MEASURES[measure]}",
                    model=STARTER_ID,
                    dtype="float32",
                    measured=True,
                    value=round(100 * value.mean, 2),
                    unit="%",
                    backend=name,
                    detail={**about, **per_cent(value), **compared},
                    n=value.n,
                    torch=run.torch,
                    **run.shared(),
                )
            )
    print(text_table(writer.rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
