"""The model card, written from the run's own record: data, figures, limits, nothing from memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.training import packed
from engine.training.packed import Source
from engine.training.record import Record

_BARS = "▁▂▃▄▅▆▇█"


def write(folder: Path, record: Record) -> None:
    """Write README.md for the model in `folder`."""
    (folder / "README.md").write_text(render(record), encoding="utf-8")


def render(record: Record) -> str:
    """The card as Markdown."""
    run = record.last("run")
    parts = [
        _FRONT,
        "# starfill starter model\n",
        _model(run),
        "## Training\n",
        _training(record),
        _curve(record.all("step")),
        _heldout(record),
        "## Scores\n",
        _scores(record),
        "## Data\n",
        _data(run),
        "## Limits\n",
        _LIMITS,
        "## Licences of the data\n",
        packed.licence_table([Source(**source) for source in run["sources"]]),
        "",
    ]
    return "\n".join(part for part in parts if part)


def _model(run: dict[str, Any]) -> str:
    shape = run["plan"]["shape"]
    return (
        f"A code model of {run['parameters'] / 1e6:.1f} million parameters for fill-in-the-middle completion, in the "
        f"published `gpt_bigcode` layout: {shape['layers']} layers, width {shape['width']}, {shape['heads']} heads of "
        f"{shape['width'] // shape['heads']} with one key/value head, {shape['positions']:,} learned positions, tanh GELU, "
        f"tied head, bfloat16; byte-level BPE of {shape['vocabulary']:,} tokens with single digits and StarCoder's control "
        "tokens.\n"
    )


def _training(record: Record) -> str:
    run, state, calls = record.last("run"), record.last("state"), record.all("run")
    plan = run["plan"]
    mix, rates, seen, unique = plan["mix"], plan["rates"], state.get("tokens", 0), max(1, run.get("tokens_unique") or 1)
    how = "one call" if len(calls) == 1 else f"{len(calls)} calls, each resumed from the weights of the one before"
    shares = " : ".join(f"{share:.2f}" for share in mix["layouts"])
    return (
        f"{seen / 1e6:.0f} million tokens in {state.get('step', 0):,} steps on {run['device']} (PyTorch {run['torch']}), "
        f"{how}. The corpus has {unique / 1e6:.1f} million unique tokens: {seen / unique:.1f} epochs, with new holes each "
        f"time.\n\nSequences of {plan['length']:,} tokens, {plan['batch']} a step; Muon {rates['matrices']} for the "
        f"matrices, AdamW {rates['rest']} for the rest; warm-up, stable, then linear decay over the last "
        f"{plan['schedule']['decay']:.0%}. {mix['plain']:.0%} plain text; else holes in the layouts psm, spm (second "
        f"variant) and anchored with shares {shares}, each segment tokenised alone, {mix['healed']:.0%} cut at the "
        f"pre-token boundary and the rest inside a token. Tokens of the middle weigh {plan['middle_weight']:g}, context 1.\n"
    )


_FRONT = "---\nlicense: apache-2.0\npipeline_tag: text-generation\ntags: [code, fill-in-the-middle, gpt_bigcode]\n---\n"

_LIMITS = """- It completes lines and short blocks. It does not follow instructions and knows little beyond its context.
- It may repeat training text word for word, most likely short idioms and licence headers.
- What it writes may be wrong or insecure; nothing was done to prevent that.
- Python is best covered; the other languages share what is left. Comments are in English for the most part.
- Secrets and e-mail addresses were masked by patterns; some may have been missed.
"""


def _curve(steps: list[dict[str, Any]]) -> str:
    if not steps:
        return ""
    rows = ["| tokens (M) | loss | seconds |", "|---|---|---|"]
    picks = sorted({round(i * (len(steps) - 1) / 11) for i in range(12)})
    rows += [f"| {steps[i]['tokens'] / 1e6:.1f} | {steps[i]['loss']:.3f} | {steps[i]['seconds']:.0f} |" for i in picks]
    return f"Loss (nats a weighted token): `{sparkline([s['loss'] for s in steps])}`\n\n" + "\n".join(rows) + "\n"


def sparkline(values: list[float], width: int = 60) -> str:
    """A curve in one line of text, at most `width` characters: means of equal parts, low to high."""
    size = max(1, -(-len(values) // width))
    means = [sum(part) / len(part) for part in (values[i : i + size] for i in range(0, len(values), size))]
    low, high = min(means), max(means)
    return "".join(_BARS[round((v - low) / (high - low or 1.0) * (len(_BARS) - 1))] for v in means)


def _heldout(record: Record) -> str:
    last = record.last("heldout")
    if not last:
        return ""
    return f"On held-out packages: {last['text']:.3f} nats a token of context, {last['middle']:.3f} of middle.\n"


def _scores(record: Record) -> str:
    last = record.last("score")
    if not last:
        return "Not measured yet: `python -m engine.training score`.\n"
    rows = [
        "Rest-of-line exact match in per cent with 95 % intervals (bootstrap over files), greedy and healed, cursor uniform "
        f"over characters that are not blank, window {last['window']:,} tokens; held-out packages: "
        f"{', '.join(last['packages'])}.\n",
        "| model | layout | language | holes | exact match | similarity |",
        "|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {r['model']} | `{r['layout']}` | {r['language']} | {r['holes']} | {r['exact']['value']:.1f} "
        f"({r['exact']['low']:.1f} to {r['exact']['high']:.1f}) | {r['similarity']:.1f} |"
        for r in last["rows"]
    ]
    return "\n".join(rows) + "\n"


def _data(run: dict[str, Any]) -> str:
    corpus = run.get("corpus", {})
    mix = corpus.get("characters", {}).get("training", {})
    text = "Held out by package; near-duplicates, vendored, generated and minified files removed; secrets and e-mail "
    text += f"addresses masked ({corpus.get('masked', 0):,} places).\n\n"
    if mix:
        text += "| language | MB of text |\n|---|---|\n"
        text += "".join(f"| {language} | {size / 1e6:.1f} |\n" for language, size in mix.items())
    added = run.get("installed", {})
    if added:
        total = sum(added.values()) / 1e6
        text += f"\nAdded from what is installed on the training machine: {total:.1f} MB of Python, {len(added)} packages.\n"
    return text


def curve_svg(record: Record) -> str:
    """The loss curve over tokens as an SVG picture."""
    steps = record.all("step")
    if not steps:
        return ""
    width, height, margin = 640, 320, 44
    most = steps[-1]["tokens"] or 1
    losses = [s["loss"] for s in steps]
    low, high = min(losses), min(max(losses), min(losses) + 5)
    points = " ".join(
        f"{margin + s['tokens'] / most * (width - 2 * margin):.1f},"
        f"{height - margin - (min(s['loss'], high) - low) / (high - low or 1) * (height - 2 * margin):.1f}"
        for s in steps
    )
    label = '<text x="{x}" y="{y}" font-size="12" font-family="sans-serif" fill="#444">{t}</text>'
    words = [
        label.format(x=4, y=margin, t=f"{high:.2f}"),
        label.format(x=4, y=height - margin, t=f"{low:.2f}"),
        label.format(x=margin, y=height - 16, t="0"),
        label.format(x=width - margin - 70, y=height - 16, t=f"{most / 1e6:.0f} M tokens"),
        label.format(x=margin, y=24, t="loss, nats a weighted token"),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
        '<rect width="100%" height="100%" fill="#fff"/>'
        f'<polyline fill="none" stroke="#2a6fdb" stroke-width="1.5" points="{points}"/>{"".join(words)}</svg>\n'
    )
