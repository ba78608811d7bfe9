"""Reports of a comparison of two models' structures: a module a format."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.text import did_you_mean, printable

if TYPE_CHECKING:
    from onnxlint.diff.result import ModelDiff

FORMATS = ("text", "json", "markdown", "html")


def render(format: str, diff: ModelDiff, everything: bool = False) -> str:
    """The report in one of `FORMATS`.

    Args:
        format: Its name.
        diff: The comparison.
        everything: Whether the text lists every node and finding (`--verbose`); other formats always do what they can.

    Raises:
        OnnxlintError: There is no such format.
    """
    if format not in FORMATS:
        hint = did_you_mean(format, FORMATS)
        raise OnnxlintError(f"--format {printable(format)}: not a format{hint}; choose from {', '.join(FORMATS)}")
    module = importlib.import_module(f"onnxlint.report.diff.{format}")
    text: str = module.render(diff, everything) if format == "text" else module.render(diff)
    return text
