"""What the command lines of several commands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxlint.rule import Registry


class UsageError(Exception):
    """The command line is wrong; the message is one line."""


def config_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that say where the configuration comes from."""
    parser.add_argument("--config", metavar="FILE", help="read this configuration, not the nearest one")
    parser.add_argument("--isolated", action="store_true", help="read no configuration file")


def number(least: int) -> Callable[[str], int]:
    """The type of an option whose value is a whole number from `least`."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
        return value

    return convert


def split(values: Sequence[str] | None) -> tuple[str, ...]:
    """`["SHP,OUT001", "GRF"]` → `("SHP", "OUT001", "GRF")`."""
    return tuple(part.strip() for value in values or () for part in value.split(",") if part.strip())


def registry(options: argparse.Namespace) -> Registry:
    """The rules that the working directory's configuration knows."""
    from onnxlint.config import Configs, Settings
    from onnxlint.rule import load_registry

    return load_registry(Configs(Settings(), options.config, options.isolated).of_folder(".").rule_paths)
