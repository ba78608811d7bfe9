"""A deployment that begins with a PyTorch network: it is exported into the folder first."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.exporting.options import ExportOptions, Wanted
from onnxlint.exporting.spec import SAVED, parse_spec
from onnxlint.model.output import MODEL_SUFFIXES
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.backends import Progress
    from onnxlint.deployment.options import Options
    from onnxlint.exporting.results import ExportReport

EXPORTED = "exported"
"""Name of the folder of the model as it was exported."""


@dataclass(frozen=True)
class FromNetwork:
    """What was exported.

    Attributes:
        report: The export.
        started: When it began, on the monotonic clock.
    """

    report: ExportReport
    started: float


def is_network(given: Any) -> bool:
    """Whether this is a PyTorch network (a module, `package.module:factory`, a file that torch wrote), not a model file."""
    if not isinstance(given, str | os.PathLike):
        return True
    text = os.fspath(given)
    if text.lower().endswith(MODEL_SUFFIXES):
        return False
    if os.path.isfile(text):
        return text.lower().endswith(SAVED)
    place, colon, factory = text.rpartition(":")
    return bool(colon and place) and all(part.isidentifier() for part in factory.split("."))


def name_of(network: Any) -> str:
    """A name for the files: that of the factory, of the saved file, or of the module's class.

    Raises:
        OnnxlintError: It names no network.
    """
    if not isinstance(network, str | os.PathLike):
        name = type(network).__name__
    else:
        spec = parse_spec(os.fspath(network))
        name = spec.factory.rpartition(".")[2] if spec.factory else os.path.basename(spec.place).partition(".")[0]
    return re.sub(r"\W+", "_", name).lower() or "network"


def export_first(
    network: Any, folder: str, options: Options, exporting: ExportOptions, progress: Progress
) -> FromNetwork:
    """Export a network to `exported/NAME.onnx` in the folder.

    Raises:
        OnnxlintError: The size of its input is not known, or it cannot be exported.
    """
    from onnxlint.exporting.preflight import require_network, require_usable
    from onnxlint.exporting.session import export_network

    started = time.monotonic()
    given = os.fspath(network) if isinstance(network, str | os.PathLike) else network
    spec = parse_spec(given) if isinstance(given, str) else None
    if spec is not None:
        require_network(spec)
    wanted = _with_inputs(given, options, exporting)
    require_usable(wanted, spec, None)
    path = os.path.join(folder, EXPORTED, f"{name_of(network)}.onnx")
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except OSError as error:
        raise OnnxlintError(f"{printable(folder)}: cannot be written to: {error.strerror or error}") from None
    report = export_network(given, path, wanted, options.configs(), progress=lambda text: progress(text, 0, None))
    return FromNetwork(report, started)


def _with_inputs(given: Any, options: Options, exporting: ExportOptions) -> ExportOptions:
    """The export with the input's size, and the recipe where one was given."""
    recipe = options.recipe
    if recipe.mean or recipe.norm:
        exporting = replace(exporting, recipe=recipe)
    if exporting.inputs or exporting.values is not None:
        return exporting
    if options.shapes:
        return replace(exporting, inputs=tuple(Wanted(name, tuple(sizes)) for name, sizes in options.shapes.items()))
    if recipe.size is not None:
        width, height = recipe.size
        return replace(exporting, inputs=(Wanted("", (1, recipe.channels, height, width)),))
    if isinstance(given, str) and given.lower().endswith(".pt2"):  # it knows its own
        return exporting
    shown = printable(given) if isinstance(given, str) else type(given).__name__
    raise OnnxlintError(f"{shown}: the size of its input is not known: give --shape W,H,C, such as --shape 224,224,3")
