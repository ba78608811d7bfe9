"""Reports of a comparison: a module each, `compare_<format>`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxlint.accuracy.results import AccuracyReport

FORMATS = ("text", "json", "markdown", "html", "junit")


def render(format: str, report: AccuracyReport, color: bool = False) -> str:
    """A comparison in one of `FORMATS`; `color` is for text on terminals."""
    module = importlib.import_module(f"onnxlint.report.compare.{format}")
    text: str = module.render(report, color) if format == "text" else module.render(report)
    return text
