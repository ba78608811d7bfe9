"""reviewdog's own format: its reporters bring findings to GitHub, GitLab, Gerrit, Bitbucket and others.

A finding that is pinned to a line of PyTorch has a suggestion where its rule knows the replacement of that line.

Source: https://github.com/reviewdog/reviewdog/blob/master/proto/rdf/jsonschema/DiagnosticResult.jsonschema
"""

from __future__ import annotations

from typing import Any

from onnxlint.lint.finding import FileError, Finding, Severity
from onnxlint.report import Report
from onnxlint.report._common import Files, advice, anchor, described, dumps, replacement, shown

_SEVERITIES = {Severity.ERROR: "ERROR", Severity.WARNING: "WARNING", Severity.INFO: "INFO"}


def render(report: Report) -> str:
    """The report as a DiagnosticResult; a model that could not be checked is a diagnostic too."""
    files = Files(report.root)
    diagnostics = []
    for result in report.results:
        if result.error is not None:
            diagnostics.append(_error(result.error, files))
        diagnostics += [_finding(finding, files) for finding in result.findings]
    return dumps({"source": {"name": "onnxlint"}, "diagnostics": diagnostics})


def _finding(finding: Finding, files: Files) -> dict[str, Any]:
    path, line = anchor(files, finding.location)
    model = files.model(finding.location.model) or shown(finding.location.model)
    on_source = path is not None and files.source(finding.location) is not None
    message = [described(finding, has_source=on_source), *advice(finding)]
    if on_source:
        message.append(f"model: {shown(finding.location.model)}")
    place: dict[str, Any] = {"path": path or model}
    if on_source:
        place["range"] = {"start": {"line": line}}
    entry: dict[str, Any] = {
        "message": "\n".join(message),
        "location": place,
        "severity": _SEVERITIES[finding.severity],
        "code": {"value": finding.code},
    }
    if found := replacement(files, finding):
        before, text = found
        # Without columns, a range is of whole lines, and their ends are not part of it.
        at = {"line": before.line}
        entry["suggestions"] = [{"range": {"start": at, "end": at}, "text": text}]
    return entry


def _error(error: FileError, files: Files) -> dict[str, Any]:
    return {
        "message": shown(error.message),
        "location": {"path": files.model(error.model) or shown(error.model)},
        "severity": "ERROR",
        "code": {"value": "onnxlint"},
    }
