"""`onnxlint rule`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from onnxlint.cli import completion, console
from onnxlint.cli.options import ConfigOptions, argument, registry


@dataclass(frozen=True, kw_only=True)
class Options(ConfigOptions):
    """Arguments and options of the command."""

    rule: Annotated[str, argument("CODE", "code, name or alias of a rule", completion.rules)]


def run(options: Options) -> int:
    """Print the page of a rule; returns the exit code."""
    from onnxlint.lint import rule_docs as docs

    console.write(docs.page(registry(options).find(options.rule)))
    return 0
