"""Results as Python programs use them: rows, plain values, one line, notebooks; the mean never stands alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

from onnxlint.accuracy.conditions import parse_conditions
from onnxlint.accuracy.results import Latency
from onnxlint.api import compare
from onnxlint.report.compare.json import parse
from tests.support.accuracy_models import detector, images, rough
from tests.support.accuracy_reports import REPORT
from tests.support.recipes import RECIPE


def test_a_report_in_one_line_rows_and_plain_values(tmp_path: Path) -> None:
    models = [detector(tmp_path / f"{i}.onnx", changed=rough("scores_w", 10**i)) for i in (1, 2)]
    report = compare(models[0], models, images=images(tmp_path / "p.npy"), recipe=RECIPE, time=False)
    assert len(report) == 2
    assert [one.name for one in report] == ["1.onnx (2)", "2.onnx"]
    assert "\n" not in repr(report)
    assert repr(report).startswith("<AccuracyReport of '1.onnx' on 5 inputs: 1.onnx (2) exact in the mean")
    rows = report.rows()
    assert [row["model"] for row in rows] == ["1.onnx", "1.onnx (2)", "2.onnx"]
    assert rows[2]["snr_db"] >= rows[2]["worst_snr_db"] == report.candidates[1].worst_snr_db
    assert rows[2]["worst_output"] == "scores"
    plain = report.to_dict()
    assert parse(json.loads(json.dumps(plain))).rows()[2]["worst_snr_db"] == rows[2]["worst_snr_db"]
    assert plain["verdict"]["sentence"] == report.verdict.sentence if report.verdict else False
    assert "<td>2.onnx</td>" in report._repr_html_()


def test_a_notebook_shows_no_markup_of_a_file_name() -> None:
    (one, *rest) = REPORT.candidates
    evil = replace(REPORT, candidates=(replace(one, name="<img onerror=x>"), *rest))
    assert "<img" not in evil._repr_html_()
    assert "\x1b" not in repr(replace(REPORT, candidates=(replace(one, name="\x1b[31m"), *rest)))


def test_a_condition_on_the_snr_is_one_on_the_worst_output() -> None:
    one = REPORT.candidates[0]
    good, bad = (replace(one.outputs[0], name=name, snr_db=snr) for name, snr in (("a", 120.0), ("b", 1.36)))
    report = replace(one, snr_db=(120 + 1.36) / 2, outputs=(good, bad))
    worst, mean = parse_conditions(["snr<20", "mean-snr<20"])
    assert "snr is 1.36 dB" in worst.failure(report)
    assert mean.failure(report) == ""
    lost = replace(report, outputs=(good, replace(bad, snr_db=math.nan)))
    assert "cannot be evaluated" in worst.failure(lost)


def test_a_latency_that_was_disturbed_is_no_number() -> None:
    one = replace(REPORT.candidates[0], latency=Latency(365.0, 5.0, 50, 2, busy=True))
    assert one.row()["latency_ms"] is None
    (condition,) = parse_conditions(["latency>1"])
    assert "latency was not measured" in condition.failure(one)
