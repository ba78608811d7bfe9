"""How a model was made, in its metadata: for people, and for whoever has to make it again."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from onnxlint.images.noted import note_recipe
from onnxlint.model.metadata import EXPORT_KEY
from onnxlint.version import __version__

if TYPE_CHECKING:
    import onnx

    from onnxlint.exporting.options import ExportOptions
    from onnxlint.exporting.spec import Spec
    from onnxlint.exporting.worker import Attempt, Made


def origin(spec: Spec | None, options: ExportOptions, made: Made, attempt: Attempt) -> dict[str, Any]:
    """What the file says of its origin. No date and no folder: the same export gives the same bytes."""
    found: dict[str, Any] = {
        "network": made.network,
        "exporter": attempt.exporter,
        "torch": made.torch,
        "onnxlint": __version__,
    }
    if spec is not None:
        found["factory"] = os.path.basename(spec.text) if spec.kind == "saved" else _place(spec)
    if options.arguments:
        found["arguments"] = {name: repr(value) for name, value in options.arguments.items()}
    if made.weights is not None:
        found["weights"] = {"file": os.path.basename(made.weights.file), "sha256": made.weights.sha256}
    if made.source:
        found["sha256"] = made.source
    return found


def _place(spec: Spec) -> str:
    place = os.path.basename(spec.place) if os.path.isabs(spec.place) else spec.place.replace(os.sep, "/")
    return f"{place}:{spec.factory}"


def write_origin(proto: onnx.ModelProto, entry: dict[str, Any], options: ExportOptions) -> None:
    """Put it into a model's metadata, in place, with the recipe where there is one."""
    proto.metadata_props.add(key=EXPORT_KEY, value=json.dumps(entry, sort_keys=True))
    if options.recipe is not None:
        note_recipe(proto, options.recipe)
