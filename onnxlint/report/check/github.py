"""Annotations of GitHub Actions: one workflow command a finding.

GitHub shows ten errors, ten warnings and ten notices a step, and only on files that the repository has: a finding is
pinned to its line of PyTorch where that file is there, else to the model, else to nothing.

Sources: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands, and the escaping of
https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
"""

from __future__ import annotations

from onnxlint.lint.finding import FileError, Finding, Severity
from onnxlint.report import Report
from onnxlint.report._common import Files, advice, anchor, described, shown

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render(report: Report) -> str:
    """The report as workflow commands, one a line."""
    files = Files(report.root)
    lines = [_error(result.error, files) for result in report.results if result.error is not None]
    lines += [_finding(finding, files) for result in report.results for finding in result.findings]
    return "".join(line + "\n" for line in lines)


def _finding(finding: Finding, files: Files) -> str:
    path, line = anchor(files, finding.location)
    on_source = path is not None and files.source(finding.location) is not None
    message = "\n".join([described(finding, has_source=on_source), *advice(finding)])
    if on_source:
        message += f"\nmodel: {shown(finding.location.model)}"
    elif path is None:
        message = f"{shown(finding.location.model)}: {message}"
    title = f"{finding.code} {shown(finding.name)}"
    return _command(_COMMANDS[finding.severity], path, line if on_source else None, title, message)


def _error(error: FileError, files: Files) -> str:
    return _command("error", files.model(error.model), None, "onnxlint", shown(error.message))


def _command(command: str, path: str | None, line: int | None, title: str, message: str) -> str:
    if path is not None and shown(path) != path:
        path, line = None, None  # a name that cannot be printed; the message has it in escaped form
    properties = {"file": path, "line": None if line is None else str(line), "title": title}
    listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items() if value is not None)
    return f"::{command} {listed}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
