"""GitLab's code quality report: a JSON array that the merge request widget reads.

A fingerprint is made of the model, the rule and the finding's own (module, operator, ordinal), not of lines and numbers of
nodes: earlier findings are not new after a re-export.

Source: https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from onnxlint.lint.finding import FileError, Finding, Severity
from onnxlint.report import Report
from onnxlint.report._common import Files, anchor, described, dumps, identity, shown

_SEVERITIES = {Severity.ERROR: "major", Severity.WARNING: "minor", Severity.INFO: "info"}


def render(report: Report) -> str:
    """The report as a JSON array; a model that could not be checked is an entry too."""
    files = Files(report.root)
    seen: Counter[str] = Counter()
    entries = []
    for result in report.results:
        if result.error is not None:
            entries.append(_error(result.error, files, seen))
        entries += [_finding(finding, files, seen) for finding in result.findings]
    return dumps(entries)


def _finding(finding: Finding, files: Files, seen: Counter[str]) -> dict[str, Any]:
    path, line = anchor(files, finding.location)
    model = files.model(finding.location.model) or finding.location.model
    on_source = path is not None and files.source(finding.location) is not None
    help_ = f" ({shown(finding.help)})" if finding.help else ""
    return _entry(
        f"{described(finding, has_source=on_source)}{help_}",
        finding.code,
        _SEVERITIES[finding.severity],
        path or model,
        line,
        # Two models have findings with the same fingerprint, and so have two places that are alike.
        identity(seen, finding.code, model, finding.fingerprint or finding.location.place + finding.message),
    )


def _error(error: FileError, files: Files, seen: Counter[str]) -> dict[str, Any]:
    path = files.model(error.model) or error.model
    return _entry(shown(error.message), "onnxlint", "critical", path, 1, identity(seen, "error", path, error.message))


def _entry(description: str, check: str, severity: str, path: str, line: int, fingerprint: str) -> dict[str, Any]:
    return {
        "description": description,
        "check_name": check,
        "fingerprint": fingerprint,
        "severity": severity,
        "location": {"path": path, "lines": {"begin": line}},
    }
