"""How a fixed model's inputs and outputs differ from the original's, for the comparison of both.

What was renamed and bound is known from the request. What was joined stands in the result's metadata. Where a dropped
activation belongs is followed in the original (see `trace`), so that it can be applied to the output.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.heads import ACTIVATIONS, Joined, read_dropped, read_heads
from onnxlint.fixes.trace import Untraceable, activations_behind
from onnxlint.model.metadata import metadata
from onnxlint.verification.interface import Interface, Slice

if TYPE_CHECKING:
    import onnx

    from onnxlint.fixes.edits import Edited
    from onnxlint.graph.view import GraphView


def interface_of(original: GraphView, result: onnx.ModelProto, edited: Edited) -> Interface:
    """How a result's inputs and outputs differ from the original's.

    Args:
        original: The model as it was read.
        result: The model with all that was asked for.
        edited: What the edits renamed and bound.

    Raises:
        Untraceable: An activation was dropped that cannot be applied to the output.
    """
    old = {new: name for name, new in edited.renamed.items()}
    known = {one.output for one in _recorded(original.proto)}
    joined = {}
    for one in _recorded(result):
        if one.output not in known or one.output not in original.main.outputs:
            for head in one.heads:
                joined[old.get(head.name, head.name)] = Slice(one.output, one.axis, head.start, head.stop)
    names = sorted({old.get(output, output) for output in _dropped(result)} - _dropped(original.proto))
    dropped = {name: activations_behind(original, name) for name in names}
    gone = _activations(original.proto) - _activations(result)
    if gone != Counter(one.op for each in dropped.values() for one in each):
        raise Untraceable  # others lie behind these outputs, which stay
    return Interface(dict(edited.renamed), joined, dropped, dict(edited.bound))


def _recorded(proto: onnx.ModelProto) -> list[Joined]:
    """Joined outputs as the metadata has them; none if it is damaged, which was so before, or nothing was joined."""
    try:
        return read_heads(proto)
    except OnnxlintError:
        return []


def _dropped(proto: onnx.ModelProto) -> set[str]:
    try:
        return set(read_dropped(metadata(proto)))
    except OnnxlintError:  # as above
        return set()


def _activations(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node if node.op_type in ACTIVATIONS)
