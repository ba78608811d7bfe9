"""`onnxlint rule`."""

from __future__ import annotations

import argparse

from onnxlint.cli import console
from onnxlint.cli.options import config_options, registry


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("rule", metavar="CODE", help="a code, name or alias")
    config_options(parser)


def run(options: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    from onnxlint.lint import rule_docs as docs

    console.write(docs.page(registry(options).find(options.rule)))
    return 0
