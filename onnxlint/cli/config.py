"""`onnxlint config`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from onnxlint.cli import console
from onnxlint.cli.options import ConfigOptions, argument, configs_of


@dataclass(frozen=True, kw_only=True)
class Options(ConfigOptions):
    """Arguments and options of the command."""

    model: Annotated[str, argument("MODEL", "model or folder (default: .)")] = "."


def run(options: Options) -> int:
    """Print what is configured for a model, and where; returns the exit code."""
    from onnxlint.lint.session import describe

    console.write(describe(configs_of(options), options.model))
    return 0
