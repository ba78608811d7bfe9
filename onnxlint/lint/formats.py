"""Names of the formats of `onnxlint check`: configuration and command line check them, `report.check` has them."""

from __future__ import annotations

from onnxlint.errors import OnnxlintError
from onnxlint.text import choices, did_you_mean, printable

FORMATS: tuple[str, ...] = ("text", "json", "jsonl", "sarif", "github", "gitlab", "rdjson", "junit", "markdown", "html")
"""Each is the name of a module in `onnxlint.report.check`."""


def unknown_format(format: str) -> OnnxlintError:
    """The error for a format that does not exist; it names the nearest."""
    hint = did_you_mean(format, FORMATS, choices(FORMATS))
    return OnnxlintError(f"no report format is called {printable(format)!r}{hint}")
