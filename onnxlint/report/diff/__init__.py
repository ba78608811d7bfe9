"""Reports of a comparison of two models' structures: a module a format."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.text import choices, did_you_mean, printable

if TYPE_CHECKING:
    from onnxlint.difference.result import ModelDiff

FORMATS = ("text", "json", "markdown", "html")


def check_format(format: str) -> None:
    """Raise OnnxlintError if there is no such format."""
    if format not in FORMATS:
        raise OnnxlintError(
            f"--format: no such format: {printable(format)!r}{did_you_mean(format, FORMATS, choices(FORMATS))}"
        )


def render(format: str, diff: ModelDiff, everything: bool = False) -> str:
    """The report in one of `FORMATS`.

    Args:
        format: Its name.
        diff: The comparison.
        everything: Whether the text lists every node and finding (`--verbose`); other formats always do what they can.

    Raises:
        OnnxlintError: There is no such format.
    """
    check_format(format)
    module = importlib.import_module(f"onnxlint.report.diff.{format}")
    text: str = module.render(diff, everything) if format == "text" else module.render(diff)
    return text
