"""`onnxlint heads`."""

from __future__ import annotations

import argparse

from onnxlint.cli import console


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("model", metavar="MODEL", help="a model whose heads 'onnxlint fix --concat-heads' joined")


def run(options: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    from onnxlint.fixes.session import joined_heads

    console.write(joined_heads(options.model))
    return 0
