"""`onnxlint config`."""

from __future__ import annotations

import argparse

from onnxlint.cli import console
from onnxlint.cli.options import config_options


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("model", metavar="MODEL", nargs="?", default=".", help="model or folder (default: .)")
    config_options(parser)


def run(options: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    from onnxlint.lint.configuration import Configs, Settings
    from onnxlint.lint.session import describe

    console.write(describe(Configs(Settings(), options.config, options.isolated), options.model))
    return 0
