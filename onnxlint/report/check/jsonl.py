"""One JSON object for each model, on a line of its own: written as models are checked, however many there are."""

from __future__ import annotations

from typing import Any

from onnxlint.lint.finding import CheckResult
from onnxlint.report import Report
from onnxlint.report._common import dumps
from onnxlint.report.check.json import finding_fields


def render(report: Report) -> str:
    """The report as lines. Names are exact; all but printable ASCII is written as `\\u` escapes."""
    return "".join(map(render_one, report.results))


def render_one(result: CheckResult) -> str:
    """The line of a model: `path`, `error` (null where it was checked), `suppressed` and `findings`, as in `json`."""
    fields: dict[str, Any] = {
        "path": result.model,
        "error": result.error.message if result.error is not None else None,
        "suppressed": result.suppressed,
        "findings": [finding_fields(finding) for finding in result.findings],
    }
    return dumps(fields, indent=None)
