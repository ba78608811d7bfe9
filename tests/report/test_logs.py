"""Text reports in the logs of CI services: no name of a file or a model becomes a command of GitHub or Azure."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from onnxlint.backends import Artifact, Decision
from onnxlint.conversion.session import Conversion
from onnxlint.graph.location import Location, SourceLine
from onnxlint.lint.finding import Applicability, CheckResult, FileError, Finding, Fix, Severity
from onnxlint.lint.neighbourhood import Box, Neighbourhood
from onnxlint.report import FORMATS, Report
from onnxlint.report import render as render_check
from onnxlint.report._common import disarmed
from onnxlint.report.compare import render
from onnxlint.report.compare.text import brief
from onnxlint.report.convert import render_conversion, render_json
from tests.report.test_compare_reports import hostile
from tests.support.command import onnxlint, save
from tests.support.report_samples import rules

COMMAND = "::error file=a.py,line=1::forged"


def commands(text: str) -> list[str]:
    """Lines that GitHub (which trims them) or Azure takes for commands."""
    return [line for line in text.splitlines() if line.lstrip().startswith("::") or "##[" in line or "##vso[" in line]


@pytest.mark.parametrize(
    "text", [COMMAND, f"  {COMMAND}", f"a\n{COMMAND}", "##[error]x", "##vso[task.complete]", "\t::x"]
)
def test_commands_are_text(text: str) -> None:
    assert commands(text)
    assert not commands(disarmed(text))
    assert "forged" in disarmed(text) or "forged" not in text


def test_other_text_stays() -> None:
    for text in ("a::b", "std::vector", "domain::Op", "# heading", "## heading"):
        assert disarmed(text) == text


def test_comparison() -> None:
    for name in (COMMAND, "##vso[task.complete result=Failed]"):
        report = hostile(name)
        assert commands(name)
        assert not commands(render("text", report))
        assert not commands(brief(report))


def test_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "::error::x").write_bytes(b"x")
    artifact = Artifact(COMMAND, ("::error::x",), (Decision("l", "Conv", COMMAND, ""),), (COMMAND,), {})
    text = render_conversion(Conversion("m.onnx", (artifact,), (), COMMAND, (COMMAND,)))
    assert text.count("forged") >= 4
    assert not commands(text)


@pytest.mark.parametrize("name", ["##vso[task.complete]", "##[error]x"])
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_of_check(format: str, name: str) -> None:
    boxes = (Box("node", name, name),) * 3
    drawn = Neighbourhood(boxes, ((0, 1, name), (1, 2, name)), 1)
    place = Location(name, name, name, name, 1, name, name, (SourceLine(name, 1, name, name),), name)
    fix = Fix(Applicability.ASSUMES, name, name)
    finding = Finding(
        code="SHP001", name=name, severity=Severity.ERROR, message=name, location=place, help=name,
        evidence=((name, name),), fix=fix, fingerprint=name, neighbourhood=drawn, after=drawn,
    )  # fmt: skip
    result = CheckResult(name, (finding,), FileError(name, name))
    text = render_check(format, Report((result,), rules("SHP001")))
    assert "task" in text or "error" in text
    assert not [line for line in commands(text) if not line.startswith("::error title=")]  # of the format for GitHub
    assert not re.search(r"##(\[|vso\[)", text)


def test_json_says_the_same() -> None:
    name = "##vso[task.complete] ##[error] é \x1b"
    line = render_check("jsonl", Report((CheckResult(name, error=FileError(name, name)),)))
    assert not commands(line)
    assert json.loads(line)["path"] == name
    artifact = Artifact(name, (name,), (Decision("l", "Conv", name, ""),), (name,), {})
    done = Conversion(name, (artifact,), (), name, (name,))
    assert not commands(render_json(done))
    assert json.loads(render_json(done)) == json.loads(json.dumps(asdict(done)))


def test_check_and_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "::error::m.onnx")
    for words in (["check", "::error::m.onnx"], ["fix", "::error::m.onnx", "-o", "::warning::fixed.onnx"]):
        done = onnxlint(*words, "--isolated")
        assert "m.onnx" in done.out
        assert not commands(done.out + done.err)
