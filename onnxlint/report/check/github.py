"""Annotations of GitHub Actions: one workflow command a finding.

GitHub shows ten errors, ten warnings and ten notices a step (where there are more, the tenth says how many), and only on
files that the repository has: a finding is pinned to its line of PyTorch where that file is there, else to the model, else
to nothing.

Sources: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands, and the escaping of
https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
"""

from __future__ import annotations

from onnxlint.lint.finding import FileError, Finding, Severity
from onnxlint.report import Report
from onnxlint.report._common import Files, advice, anchor, described, shown
from onnxlint.text import counted

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


MOST = 10
"""Annotations of one kind that GitHub shows for a step; of all kinds, 50 for a job."""


def render(report: Report) -> str:
    """The report as workflow commands, one a line: the most severe of each kind, and the others as lines of the log."""
    files = Files(report.root)
    by_kind: dict[str, list[str]] = {command: [] for command in _COMMANDS.values()}  # the most severe first
    logged: dict[str, list[str]] = {command: [] for command in _COMMANDS.values()}
    for result in report.results:
        if result.error is not None:
            by_kind["error"].append(_error(result.error, files))
            logged["error"].append(f"error: {shown(result.error.message)}")
    for finding in (finding for result in report.results for finding in result.findings):
        by_kind[_COMMANDS[finding.severity]].append(_finding(finding, files))
        model = shown(finding.location.model)
        logged[_COMMANDS[finding.severity]].append(
            f"{finding.severity.value}: {finding.code} {model}: {described(finding)}"
        )
    lines: list[str] = []
    rest: list[str] = []
    for kind, commands in by_kind.items():
        if len(commands) <= MOST:
            lines += commands
            continue
        left = len(commands) - MOST + 1
        lines += commands[: MOST - 1]
        said = (
            f"{counted(left, 'more finding')} of this kind: GitHub shows {MOST} a step; all are in the log of this step"
        )
        lines.append(_command(kind, None, None, "onnxlint", said))
        rest += logged[kind][MOST - 1 :]
    if rest:
        rest = ["Findings without an annotation:", *(f"  {line}" for line in rest)]
    return "".join(line + "\n" for line in [*lines, *rest])


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
