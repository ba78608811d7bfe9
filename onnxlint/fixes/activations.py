"""The activation at an output goes, and callers apply it themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.heads import read_dropped
from onnxlint.fixes.trace import Untraceable, activations_behind
from onnxlint.model.metadata import DROPPED_KEY, metadata

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from onnxlint.surgery.surgeon import Surgeon


def drop_activation(surgeon: Surgeon, node: gs.Node, outputs: Sequence[str]) -> None:
    """Let an activation go; what it made, its input's maker makes."""
    take_over(surgeon, node)
    dropped = _recorded(surgeon)
    for output in outputs:
        dropped[output] = (node.op, _axis(surgeon, node, output))
    surgeon.metadata[DROPPED_KEY] = json.dumps(
        {name: {"op": op, **({} if axis is None else {"axis": axis})} for name, (op, axis) in dropped.items()}
    )


def _recorded(surgeon: Surgeon) -> dict[str, tuple[str, int | None]]:
    """What was dropped before; a record that is damaged is replaced."""
    try:
        return read_dropped({**metadata(surgeon.view.proto), **surgeon.metadata})
    except OnnxlintError:
        return {}


def _axis(surgeon: Surgeon, node: gs.Node, output: str) -> int | None:
    """The axis of the output that an activation computes along; that of its own output where it cannot be followed."""
    if node.op == "Sigmoid":
        return None
    try:
        axes = {one.axis for one in activations_behind(surgeon.view, output) if one.op == node.op}
    except Untraceable:
        axes = set()
    own: int | None = node.attrs.get("axis")
    if len(axes) != 1:
        return own
    rank = len(surgeon.view.main.shape(output) or ())
    return axes.pop() - (rank if own is not None and own < 0 else 0)


def take_over(surgeon: Surgeon, node: gs.Node) -> None:
    """Replace a node's first output with its first input, and remove the node; names of graph outputs stay."""
    from onnxlint.surgery.wiring import bypass, detach, replace

    before, after = node.inputs[0], node.outputs[0]
    maker = before.inputs[0] if before.inputs else None
    if not surgeon.is_returned(after):
        bypass(node)
    elif maker is None or surgeon.is_returned(before):
        node.op = "Identity"  # an output that is an input, a constant or another output needs a node of its own
        node.attrs.clear()
        node.inputs = node.inputs[:1]
    else:
        detach(node)
        replace(before, after)
        maker.outputs = [after if tensor is before else tensor for tensor in maker.outputs]
