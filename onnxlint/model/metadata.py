"""What onnxlint itself keeps in a model's `metadata_props`: all keys, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

IGNORE_KEY = "onnxlint.ignore"
"""Of the model or of one node: rules to keep silent there."""

ASSUMES_KEY = "onnxlint.assumes"
"""Conditions that the fixes depend on: `H % 32 == 0 and …`."""

SYMBOLS_KEY = "onnxlint.symbols"
"""Symbol of those conditions → [input, axis] pairs where it stood, as JSON."""

MIN_SIZE_KEY = "onnxlint.min_size"
"""Smallest size of every free axis of the inputs that the fixes are exact for: `1`; absent where they are for 0, too."""

HEADS_KEY = "onnxlint.heads"
"""Which heads a joined output holds, and where, as JSON."""

DROPPED_KEY = "onnxlint.dropped_activations"
"""Output → the activation that a fix removed from it, as JSON."""

EXPORT_KEY = "onnxlint.export"
"""How `onnxlint export` made the model: factory, weights, exporter and versions, as JSON."""

RECIPE_KEY = "onnxlint.recipe"
"""How images become the input: mean, norm, pixel order and the way to resize, as JSON."""


def metadata(proto: onnx.ModelProto) -> dict[str, str]:
    """Key → value of the model's `metadata_props`; of a key that stands twice, the last value."""
    return {entry.key: entry.value for entry in proto.metadata_props}
