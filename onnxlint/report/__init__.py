"""Reports: one module a format, each with one function `render(report) -> str`.

A reporter gets findings and writes them down; it never looks at a graph. Names and messages come out of untrusted
files, so every reporter escapes them for its own format.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxlint.lint.finding import CheckResult, Severity
from onnxlint.lint.formats import FORMATS as FORMATS
from onnxlint.lint.formats import unknown_format

if TYPE_CHECKING:
    from onnxlint.lint.rule import Rule

NEEDS_NEIGHBOURHOODS: frozenset[str] = frozenset({"markdown", "html"})
"""Formats that draw the graph around a finding: `Plan(neighbourhoods=True)` makes the engine add it."""

NEEDS_FIXES: frozenset[str] = frozenset({"html"})
"""Formats that also draw the graph after a fix: `Plan(fixes=True)`."""


@dataclass(frozen=True)
class Report:
    """Input of a reporter.

    Attributes:
        results: One for each model, in the order in which they are shown.
        rules: Those that ran on any of the models.
        statistics: Whether to count findings by rule in place of listing them (`text` only).
        fail_on: Findings of this severity and above make `check` fail; None if none does.
        root: Folder of the repository: source lines are relative to it, and so are the paths of models in formats that
            other tools read.
        verbose: Whether `text` shows every finding separately, including those that are not actionable.
        color: Whether `text` may use terminal colors.
        width: Columns that `text` may use; None does not wrap, as is right for pipes and files.
    """

    results: tuple[CheckResult, ...]
    rules: tuple[type[Rule], ...] = ()
    statistics: bool = False
    fail_on: Severity | None = Severity.WARNING
    root: Path = Path()
    verbose: bool = False
    color: bool = False
    width: int | None = None

    def fails(self, severity: Severity) -> bool:
        """Whether a finding of this severity makes `check` fail."""
        return self.fail_on is not None and severity.rank >= self.fail_on.rank


def render(format: str, report: Report) -> str:
    """A report in one of `FORMATS`, ending in a newline unless it is empty.

    Raises:
        OnnxlintError: The format does not exist; the message names the nearest.
    """
    import importlib

    if format not in FORMATS:
        raise unknown_format(format)
    text: str = importlib.import_module(f"onnxlint.report.check.{format}").render(report)
    return text
