"""One JSON document for all models; docs/schema/onnxlint-check.schema.json describes it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from onnxlint.graph.location import Location
from onnxlint.lint.finding import CheckResult, Finding, Fix, Severity
from onnxlint.report import Report
from onnxlint.report._common import dumps, totals
from onnxlint.version import __version__

VERSION = 1
"""Of the document's form; it changes when a program that reads the document could break."""


def render(report: Report) -> str:
    """The report as JSON. Names are exact; all but printable ASCII is written as `\\u` escapes."""
    return dumps(
        {
            "version": VERSION,
            "tool": {"name": "onnxlint", "version": __version__},
            "rules": [rule.code for rule in report.rules],
            "files": [_file(result) for result in report.results],
            "findings": [finding_fields(finding) for result in report.results for finding in result.findings],
            "errors": [
                {"model": result.error.model, "message": result.error.message}
                for result in report.results
                if result.error is not None
            ],
            "summary": _summary(report),
        }
    )


def _file(result: CheckResult) -> dict[str, Any]:
    return {
        "path": result.model,
        "findings": len(result.findings),
        "suppressed": result.suppressed,
        "failed": result.error is not None,
    }


def finding_fields(finding: Finding) -> dict[str, Any]:
    """A finding as the document has it."""
    return {
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity.value,
        "message": finding.message,
        "help": finding.help,
        "location": _location(finding.location),
        "evidence": dict(finding.evidence),
        "fix": _fix(finding.fix) if finding.fix else None,
        "actionable": finding.actionable,
        "group": finding.group,
        "fingerprint": finding.fingerprint,
    }


def _location(place: Location) -> dict[str, Any]:
    return {
        "model": place.model,
        "graph": place.graph,
        "node": place.node,
        "op_type": place.op_type,
        "index": place.index,
        "value": place.value,
        "scope": place.scope,
        "source": [
            {"path": line.path, "line": line.line, "code": line.code, "function": line.function}
            for line in place.source
        ],
        "near": place.near,
    }


def _fix(fix: Fix) -> dict[str, Any]:
    return {
        "applicability": fix.applicability.value,
        "condition": fix.condition,
        "flag": fix.flag,
        "shortens": fix.shortens,
    }


def _summary(report: Report) -> dict[str, Any]:
    total = totals(report)
    findings = [finding for result in report.results for finding in result.findings]
    return {
        "models": len(report.results),
        "failed": total.failed,
        "findings": total.findings,
        "by_severity": {severity.value: total.severities[severity] for severity in Severity},
        "by_rule": dict(sorted(Counter(finding.code for finding in findings).items())),
        "fixable": total.fixable,
        "suppressed": total.suppressed,
    }
