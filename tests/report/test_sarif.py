"""What the SARIF format promises: the official schema, places, limits."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

from onnxlint import Severity
from onnxlint.graph.location import SourceLine
from onnxlint.lint.finding import CheckResult
from onnxlint.lint.registry import load_registry
from onnxlint.report import Report, render
from tests.support.report_samples import detector, finding, fixes, on_file, rules, sarif_run


def test_sarif_keeps_the_official_schema(tmp_path: Path) -> None:
    for report in (detector(tmp_path), fixes(), Report(()), replace(fixes(), rules=tuple(load_registry()))):
        sarif_run(report)


def test_sarif_points_at_the_line_of_python_in_the_repository(tmp_path: Path) -> None:
    run = sarif_run(on_file(tmp_path))
    (result,) = run["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "nets/my%20net.py", "uriBaseId": "%SRCROOT%"}
    assert place["region"] == {"startLine": 7, "snippet": {"text": "x = layer(x)"}}
    related = [location["physicalLocation"]["artifactLocation"]["uri"] for location in result["relatedLocations"]]
    assert related == ["timm/layers.py", "a%20model%231.onnx"]
    assert unquote(run["originalUriBaseIds"]["%SRCROOT%"]["uri"]) == f"file://{tmp_path}/"
    assert result["partialFingerprints"]["onnxlint/v1"] == "SHP001|graph|fpn|Resize|1"
    assert result["message"]["text"].endswith("\nsee [layers.py:99](1), [a model#1.onnx](2)")
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "SHP001"


def line_hashes(report: Report) -> list[str]:
    return [result["partialFingerprints"]["primaryLocationLineHash"] for result in sarif_run(report)["results"]]


def test_sarif_tracks_findings_by_what_survives_an_export(tmp_path: Path) -> None:
    before = fixes()
    (first, *others) = before.results
    moved = tuple(
        replace(
            one,
            location=replace(
                one.location,
                index=None if one.location.index is None else one.location.index + 7,
                source=tuple(replace(line, line=line.line + 3) for line in one.location.source),
            ),
        )
        for one in first.findings
    )
    hashes = line_hashes(before)
    assert len(set(hashes)) == len(hashes)
    assert line_hashes(replace(before, results=(replace(first, findings=moved), *others))) == hashes
    elsewhere = tuple(replace(one, location=replace(one.location, model="other.onnx")) for one in first.findings)
    assert not set(line_hashes(Report((replace(first, findings=elsewhere),), before.rules))) & set(hashes)


def test_sarif_stays_within_the_limits_of_github(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxlint.report.check import sarif

    found = tuple(
        finding(severity=(Severity.ERROR, Severity.WARNING, Severity.INFO)[i % 3], fingerprint=f"SHP001|{i}")
        for i in range(300)
    )
    report = Report((CheckResult("m.onnx", found),), rules("SHP001"))
    assert len(sarif_run(report)["results"]) == 300
    monkeypatch.setattr(sarif, "MOST_RESULTS", 150)
    run = sarif_run(report)
    assert Counter(result["level"] for result in run["results"]) == {"error": 100, "warning": 50}
    (note,) = run["invocations"][0]["toolExecutionNotifications"]
    assert note["message"]["text"].startswith("150 findings of 300 left out, the least severe")
    monkeypatch.setattr(sarif, "MOST_BYTES", 3_000)
    small = render("sarif", report)
    assert len(gzip.compress(small.encode(), 6)) <= 3_000
    left = json.loads(small)["runs"][0]["results"]
    assert left
    assert {result["level"] for result in left} == {"error"}


def test_sarif_rates_the_security_of_security_rules_only() -> None:
    run = sarif_run(replace(fixes(), rules=tuple(load_registry())))
    for rule in run["tool"]["driver"]["rules"]:
        assert ("security-severity" in rule["properties"]) == rule["id"].startswith("SEC")
        assert ("security" in rule["properties"]["tags"]) == rule["id"].startswith("SEC")
        assert len(rule["properties"]["tags"]) <= 20


def test_sarif_points_at_the_model_where_there_is_no_line_of_python(tmp_path: Path) -> None:
    (result,) = sarif_run(on_file(tmp_path, source=(), scope="fpn"))["results"]
    (location,) = result["locations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "a%20model%231.onnx"
    logical = [(entry["kind"], entry["fullyQualifiedName"]) for entry in location["logicalLocations"]]
    assert logical == [("node", "graph/n"), ("graph", "graph"), ("module", "fpn")]


def test_sarif_points_at_the_innermost_line_where_none_is_in_the_repository(tmp_path: Path) -> None:
    frames = (SourceLine("nowhere/a.py", 1), SourceLine("/opt/b.py", 2))
    (result,) = sarif_run(on_file(tmp_path, source=frames))["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "file:///opt/b.py"}


def test_sarif_tells_of_models_that_could_not_be_checked(tmp_path: Path) -> None:
    (invocation,) = sarif_run(detector(tmp_path))["invocations"]
    assert not invocation["executionSuccessful"]
    assert [note["message"]["text"] for note in invocation["toolExecutionNotifications"]] == [
        "missing.onnx: no such file; check the path"
    ]
    assert sarif_run(fixes())["invocations"][0]["executionSuccessful"]


def test_sarif_describes_the_rules() -> None:
    described = sarif_run(Report((), tuple(load_registry())))["tool"]["driver"]["rules"]
    for rule, entry in zip(load_registry(), described, strict=True):
        assert (entry["id"], entry["name"]) == (rule.code, rule.name)
        assert "## Fix safety" in entry["help"]["markdown"]
        assert entry["properties"]["fixSafety"] == rule.sections()["Fix safety"]
        assert entry["defaultConfiguration"]["enabled"] == (rule.default and rule.status.value == "stable")
