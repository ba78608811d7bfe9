"""`onnxlint rules`."""

from __future__ import annotations

import argparse

from onnxlint.cli import console
from onnxlint.cli.options import config_options, registry


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--format", choices=("text", "json"), default="text", help="(default: text)")
    config_options(parser)


def run(options: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    from onnxlint.lint import rule_docs as docs

    render = docs.catalogue_json if options.format == "json" else docs.catalogue
    console.write(render(registry(options)))
    return 0
