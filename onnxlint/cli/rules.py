"""`onnxlint rules`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from onnxlint.cli import console
from onnxlint.cli.options import ConfigOptions, one_of, option, registry


@dataclass(frozen=True, kw_only=True)
class Options(ConfigOptions):
    """Arguments and options of the command."""

    format: Annotated[
        str, option("--format", metavar="FORMAT", parser=one_of("text", "json"), help="text (default) or json")
    ] = "text"


def run(options: Options) -> int:
    """Print the list of all rules; returns the exit code."""
    from onnxlint.lint import rule_docs as docs

    render = docs.catalogue_json if options.format == "json" else docs.catalogue
    console.write(render(registry(options)))
    return 0
