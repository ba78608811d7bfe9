"""Reports of a comparison: the same numbers in each, names that anybody can make escaped, JSON as its schema says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxlint import text as numbers
from onnxlint.accuracy.results import (
    AccuracyReport,
    LayerAccuracy,
    Suggestion,
)
from onnxlint.report.compare import render
from tests.support.accuracy_reports import REPORT, output

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schema" / "compare.json").read_text(encoding="utf-8"))
TEXTS = ("text", "markdown")


@pytest.mark.parametrize("format", TEXTS)
def test_text_and_markdown_hold_every_number(format: str) -> None:
    text = render(format, REPORT).replace("\\", "").replace("**", "")
    for wanted in (
        "5 inputs from photos (--shape 640,640,3 --pixel BGR)",
        "detection, judged by the reference's detections",
        numbers.db(41.37),
        numbers.cosine(0.99987),
        numbers.magnitude(1.25e-3),
        numbers.share(0.012),
        numbers.size(853632),
        "14.2 ms ± 0.310 ms",
        "latency of net_int8.onnx not measured: other programs used the machine",
        "found: objects of the ground truth that were detected",
        "1×16800×4",
        "depth (1×4): the candidate has no output like it",
        "the SNR first falls at Conv 2 (net.py:7): from 60.00 dB to 20.00 dB".replace("the", "", 1),
        "99.0 %",
        "keep convdwrelu_0 in fp16: +4.96 dB for 28 bytes (--keep convdwrelu_0)",
        "out has no record of its heads",
        "a.jpg: left out: truncated",
        "net_int8.onnx: snr<50: snr is 41.37 dB",
        "0.8123",
        "50.0 %",
    ):
        assert wanted in text, wanted
    assert ("426,608" in text) == (format == "markdown")  # a column that would be a table of its own in a terminal
    assert "\x1b" not in text


def test_colors_change_nothing_but_colors() -> None:
    import re

    assert re.sub(r"\x1b\[[\d;]*m", "", render("text", REPORT, color=True)) == render("text", REPORT)
    assert "\x1b" in render("text", REPORT, color=True)


def test_columns_line_up() -> None:
    lines = render("text", REPORT).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("model") and "size" in line)
    ends = {
        lines[i].index(word) + len(word)
        for i, word in ((start, "size"), (start + 1, "853.6 KB"), (start + 2, "853.6 KB"))
    }
    assert len(ends) == 1


def test_a_latency_that_is_not_to_be_relied_on_is_not_shown_beside_good_ones() -> None:
    report = replace(REPORT, candidates=tuple(replace(one, worst=()) for one in REPORT.candidates))
    for format in ("text", "markdown", "html"):
        assert "17.5 ms" not in render(format, report)
        assert "14.2 ms" in render(format, report)


def bad_head() -> AccuracyReport:
    """One of three outputs is wrong: the mean hides it."""
    one = replace(
        REPORT.candidates[0],
        snr_db=82.0,
        outputs=(output("boxes", 122.0), output("scores", 1.36), output("landmarks", 122.64)),
        task=None,
        worst=(),
    )
    return replace(REPORT, reference=replace(REPORT.reference, task=None), candidates=(one,))


@pytest.mark.parametrize("format", ["text", "markdown", "html", "junit"])
def test_a_mean_does_not_hide_a_bad_output(format: str) -> None:
    shown = render(format, bad_head()).replace("\\", "")
    assert "82.00 dB" in shown
    assert "1.36 dB" in shown
    if format == "junit":
        assert "SNR mean 82.00 dB, worst output 1.36 dB" in shown
    else:
        assert "SNR mean" in shown
        assert "SNR worst" in shown
        assert "o candidate is close to net.onnx (at least 30 dB in the worst output)" in " ".join(shown.split())


@pytest.mark.parametrize("report", [REPORT, bad_head()], ids=["report", "bad head"])
def test_tables_keep_to_80_columns(report: AccuracyReport) -> None:
    long = replace(report, candidates=tuple(replace(one, name="n" * 90 + one.name) for one in report.candidates))
    for line in render("text", long).splitlines():
        is_table = "  " in line.strip() and not line.startswith(("note", "  note"))
        assert len(line) <= 80 or not is_table, line


def test_every_metric_of_a_task_has_an_explanation() -> None:
    import re

    from onnxlint.accuracy import tasks
    from onnxlint.report.compare.legend import explained

    sources = "".join(path.read_text(encoding="utf-8") for path in Path(str(tasks.__file__)).parent.glob("*.py"))
    names = set(re.findall(r'(?:metrics|out)\["(\w+)"\] =', sources))
    for table in re.findall(r"(?:metrics|out): dict\[str, float \| None\] = \{(.*?)\n    \s*\}", sources, re.DOTALL):
        names |= set(re.findall(r'"(\w+)":', table))
    assert {"found", "mean_iou", "top1", "broken", "accuracy_std", "threshold", "min_cosine"} <= names
    assert {name for name, _ in explained([*names, "psnr", "tar@far=0.001"])} == {*names, "psnr", "tar@far=0.001"}


def test_json_is_as_its_schema_says() -> None:
    document = json.loads(render("json", REPORT))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["reference"]["snr_db"] is None
    assert document["reference"]["exact"] is True
    int8, half = document["candidates"]
    assert (int8["snr_db"], int8["exact"]) == (41.37, False)
    assert (half["snr_db"], half["exact"]) == (None, False)
    assert int8["task"]["metrics"] == {"found": 22.0, "ap": 0.8123}
    assert document["reference"]["task"]["metrics"]["ap"] is None
    assert int8["layers"][2]["exact"] is True
    assert "pixels" not in int8["worst"][0]


def test_junit_fails_what_failed() -> None:
    root = ElementTree.fromstring(render("junit", REPORT))
    assert root.get("failures") == "1"
    first, second = root.findall("testsuite")
    (failure,) = first.findall(".//failure")
    assert failure.get("message") == "net_int8.onnx: snr<50: snr is 41.37 dB"
    assert first.find("testcase/skipped") is not None
    assert not second.findall(".//failure")
    assert first.get("tests") == str(len(first.findall("testcase")))


def test_junit_takes_failures_from_their_candidate() -> None:
    """Not by the names in their words: `a: b` begins like `a`, and two candidates may have one name."""
    said = "a: b: snr<50: snr is 41.37 dB"
    one, other = REPORT.candidates
    candidates = (replace(other, name="a"), replace(one, name="a: b", failures=(said,)), replace(other, name="a: b"))
    root = ElementTree.fromstring(render("junit", replace(REPORT, candidates=candidates, failures=(said,))))
    found = [[failure.get("message") for failure in suite.findall(".//failure")] for suite in root.findall("testsuite")]
    assert found == [[], [said], []]


HOSTILE = "a\x1b[31m|<script>&`]]>\n::error::"


def hostile(text: str) -> AccuracyReport:
    one = replace(
        REPORT.candidates[0],
        name=text,
        outputs=(replace(output("x"), name=text, candidate=text),),
        layers=(LayerAccuracy(text, text, text, 3.0, 0.5, text),),
        suggestions=(Suggestion(text, text, 1.0, 2),),
    )
    return replace(REPORT, reference=replace(REPORT.reference, name=text), candidates=(one,), source=text)


@pytest.mark.parametrize("format", ["text", "markdown", "junit", "json"])
def test_names_are_never_shown_raw(format: str) -> None:
    shown = render(format, hostile(HOSTILE))
    assert "\x1b" not in shown
    assert "\n::error" not in shown
    if format == "markdown":
        from markdown_it import MarkdownIt

        html = MarkdownIt("commonmark", {"html": True}).enable("table").render(shown)
        assert "<script" not in html
        assert "&lt;script&gt;" in html
    if format == "json":
        assert json.loads(shown)["candidates"][0]["name"] == HOSTILE


@given(st.text(min_size=1, max_size=20))
def test_any_name_can_be_reported(text: str) -> None:
    report = hostile(text)
    ElementTree.fromstring(render("junit", report))
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(render("json", report)))
    rows = [line.replace("\\|", "") for line in render("markdown", report).splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows[:4]}) == 1
