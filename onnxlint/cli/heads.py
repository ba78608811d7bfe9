"""`onnxlint heads`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from onnxlint.cli import console
from onnxlint.cli.options import argument


@dataclass(frozen=True, kw_only=True)
class Options:
    """Arguments and options of the command."""

    model: Annotated[str, argument("MODEL", "model whose outputs 'onnxlint fix --concat-heads' concatenated")]


def run(options: Options) -> int:
    """Print the slices of a concatenated output, and code that takes them; returns the exit code."""
    from onnxlint.fixes.session import joined_heads

    console.write(joined_heads(options.model))
    return 0
