"""`onnxlint show`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from onnxlint.cli import console
from onnxlint.cli.options import WORK, argument, option


@dataclass(frozen=True, kw_only=True)
class Options:
    """Arguments and options of the command."""

    model: Annotated[str, argument("MODEL", "model, or - for stdin")]
    no_hashes: Annotated[bool, option("--no-hashes", help="do not read the weights (prints no hash)", panel=WORK)] = (
        False
    )


def run(options: Options) -> int:
    """Print a model in a stable text form, for `git diff`; returns the exit code."""
    from onnxlint.difference.show import show
    from onnxlint.model.skeleton import open_model
    from onnxlint.symbolic.view import make_view

    view = make_view(open_model(options.model))
    console.write("".join(f"{line}\n" for line in show(view, not options.no_hashes)))
    return 0
