"""The benchmark of attribution on a toy corpus: a row for each question, with what the docs quote in it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from benchmarks.attribution import GUARANTEES, main
from benchmarks.curves import draw
from benchmarks.rows import read_rows
from tests.harness.corpora import program, write


def test_rows_and_curve(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {f"p{n:02}/m{m}.py": program(10 * n + m, 150) for n in range(12) for m in range(2)})
    picture = tmp_path / "curve.svg"
    out = tmp_path / "out"
    asked = ["--out", str(out), "--svg", str(picture), "--samples", "60", "--part-bytes", "30000", str(folder)]
    assert main(asked) == 0
    rows = read_rows([out / "attribution.jsonl"])
    by_question = {row.question: row for row in rows}
    assert {question.split(",")[0] for question in by_question} == {
        "attribution: build", "attribution: look-up", "attribution: false alarms", "attribution: recall of 50 tokens",
        "attribution: recall of 80 tokens",
    }  # fmt: skip
    assert by_question["attribution: false alarms"].value == 0
    assert by_question["attribution: recall of 50 tokens, whole corpus"].value == 100
    curve = [row for row in rows if "of_30_tokens" in row.detail]
    assert len([row for row in curve if row.detail["gram"] == 20]) == len(GUARANTEES)
    sizes = [row.detail["index_percent"] for row in curve if row.detail["gram"] == 20]
    assert sizes == sorted(sizes, reverse=True)  # the fewer passages are sure, the smaller
    assert all(row.n > 1 for row in rows if row.question not in by_question or "recall" in row.question)
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")  # noqa: S314 (our own)


def test_a_drawing_keeps_its_points_inside() -> None:
    made = draw("a < b", "x", "y", {"one": [(1, 50), (9, 120)], "two": [(4, 0)]}, (0, 100))
    tree = ElementTree.fromstring(made)  # noqa: S314 (our own)
    spots = [
        (float(each.get("cx", "nan")), float(each.get("cy", "nan"))) for each in tree.iter() if "cx" in each.attrib
    ]
    assert len(spots) == 3
    assert all(0 < x < 760 and 0 < y < 400 for x, y in spots)
    assert "a < b" in [each.text for each in tree.iter()]
