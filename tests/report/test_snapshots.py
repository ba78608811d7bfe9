"""The words and shapes that users see, held in tests/report/snapshots/.

After a wanted change: `ONNXLINT_UPDATE_SNAPSHOTS=1 pytest tests/report/test_snapshots.py`, and read the diff.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from onnxlint.report import FORMATS, Report, render
from onnxlint.version import __version__
from tests.support.report_samples import detector, fixes

SNAPSHOTS = Path(__file__).parent / "snapshots"
SUFFIXES = {
    "json": "json",
    "jsonl": "jsonl",
    "sarif": "json",
    "gitlab": "json",
    "rdjson": "json",
    "junit": "xml",
    "markdown": "md",
    "html": "html",
}


def matches(name: str, text: str) -> None:
    path = SNAPSHOTS / name
    if os.environ.get("ONNXLINT_UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def steady(format: str, text: str, root: Path) -> str:
    """A report without what differs between machines, versions and changes of the rules' pages."""
    text = text.replace(str(root), "ROOT").replace(str(Path.cwd()), "/HERE").replace(__version__, "VERSION")
    if format == "html":
        return re.sub(r"(?s)(<(style|script)>).*?(?=</\2>)", r"\1", text)
    if format != "sarif":
        return text
    log = json.loads(text)
    for rule in log["runs"][0]["tool"]["driver"]["rules"]:
        for key in ("shortDescription", "fullDescription", "help", "properties"):
            assert rule.pop(key)
    return json.dumps(log, indent=2) + "\n"


@pytest.mark.parametrize("format", FORMATS)
def test_findings_of_a_model(format: str, tmp_path: Path) -> None:
    text = render(format, detector(tmp_path))
    matches(f"detector.{format}.{SUFFIXES.get(format, 'txt')}", steady(format, text, tmp_path))


@pytest.mark.parametrize("format", FORMATS)
def test_every_kind_of_finding(format: str, tmp_path: Path) -> None:
    text = render(format, replace(fixes(), root=tmp_path))
    there = str(Path.cwd())  # where the model that is no file would be
    matches(f"fixes.{format}.{SUFFIXES.get(format, 'txt')}", steady(format, text, tmp_path).replace(there, "CWD"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("wide", {"width": 100}),
        ("narrow", {"width": 60}),
        ("color", {"width": 100, "color": True}),
        ("statistics", {"statistics": True}),
    ],
)
def test_text_on_a_terminal(name: str, options: dict[str, object], tmp_path: Path) -> None:
    for sample, report in (("detector", detector(tmp_path)), ("fixes", fixes())):
        text = render("text", replace(report, **options))  # type: ignore[arg-type]
        matches(f"{sample}.text.{name}.txt", text.replace(str(tmp_path), "ROOT"))


def test_statistics_as_markdown(tmp_path: Path) -> None:
    matches("fixes.markdown.statistics.md", render("markdown", replace(fixes(), statistics=True)))


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_to_report(format: str) -> None:
    assert "findings" not in render(format, Report(())).replace('"findings"', "").replace("No findings", "")
