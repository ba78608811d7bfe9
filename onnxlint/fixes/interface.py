"""How a fixed model's inputs and outputs differ from the original's, for the comparison of both.

What was renamed and bound is known from the request. What was joined stands in the result's metadata. Where a dropped
activation belongs is followed in the original, from the output back to the activation: through transposes, reshapes and
concatenations, so that it can be applied to the output.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.heads import ACTIVATIONS, Joined, read_heads
from onnxlint.model.metadata import DROPPED_KEY, metadata
from onnxlint.verification.interface import Dropped, Interface, Slice

if TYPE_CHECKING:
    import onnx

    from onnxlint.fixes.edits import Edited
    from onnxlint.graph.dims import Shape
    from onnxlint.graph.view import Graph, GraphView, Node

_SAME = frozenset(("Cast", "DequantizeLinear", "Identity", "QuantizeLinear"))
"""Operators that keep shape and order of their input."""

_RESHAPING = frozenset(("Flatten", "Reshape", "Squeeze", "Unsqueeze"))
_MAX_STEPS = 64

ONE_AXIS = 13
"""Operator set from which Softmax computes along one axis; before, along all from it on."""


class Untraceable(Exception):  # noqa: N818 - an answer, not an error
    """Where an activation belongs cannot be told in coordinates of the output."""


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
    names = sorted({old.get(output, output) for output in _dropped_outputs(result)} - _dropped_outputs(original.proto))
    dropped = {name: _dropped(original, name) for name in names}
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


def _dropped_outputs(proto: onnx.ModelProto) -> set[str]:
    try:
        record = json.loads(metadata(proto).get(DROPPED_KEY, "{}"))
    except (ValueError, RecursionError):
        return set()
    return set(record) if isinstance(record, dict) else set()


def _activations(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node if node.op_type in ACTIVATIONS)


@dataclass(frozen=True)
class _Way:
    """State of the trace back from an output.

    Attributes:
        value: A value that holds (a part of) the output's numbers.
        axes: Axis of the value → axis of the output; None for axes that were merged or split.
        part: (axis, start, stop) of the output that the value is; None: all of it.
    """

    value: str
    axes: tuple[int | None, ...]
    part: tuple[int, int, int] | None = None


def _dropped(view: GraphView, output: str) -> tuple[Dropped, ...]:
    """The activations behind an output, in its coordinates.

    Raises:
        Untraceable: One of them is ambiguous or missing.
    """
    graph = view.main
    shape = graph.shape(output)
    if shape is None:
        raise Untraceable
    found: list[Dropped] = []
    pending = [_Way(output, tuple(range(len(shape))))]
    for way in pending:
        node = graph.producer(way.value)
        if node is None or len(pending) > _MAX_STEPS:
            continue
        if node.op in ACTIVATIONS:
            found.append(Dropped(node.op, 0 if node.op == "Sigmoid" else _axis(view, node, way), way.part))
        elif node.op in _SAME:
            pending.append(_Way(node.input(0), way.axes, way.part))
        elif node.op == "Transpose":
            pending.append(_transposed(node, way))
        elif node.op in _RESHAPING:
            pending.append(
                _Way(node.input(0), _regrouped(graph.shape(node.input(0)), graph.shape(way.value), way.axes), way.part)
            )
        elif node.op == "Concat":
            pending += _parts(graph, node, way)
    if not found:
        raise Untraceable
    return tuple(found)


def _axis(view: GraphView, node: Node, way: _Way) -> int:
    """The axis of the output that a Softmax computes along."""
    rank = len(way.axes)
    default = -1 if view.opset >= ONE_AXIS else 1
    axis = int(node.attribute("axis", default))
    if not -rank <= axis < rank:
        raise Untraceable
    axis %= rank
    shape = node.shape(0) or (None,) * rank
    if view.opset < ONE_AXIS and any(size != 1 for size in shape[axis + 1 :]):
        raise Untraceable
    place = way.axes[axis]
    if place is None:
        raise Untraceable
    return place


def _transposed(node: Node, way: _Way) -> _Way:
    rank = len(way.axes)
    order: Sequence[int] = node.attribute("perm") or tuple(reversed(range(rank)))
    if sorted(order) != list(range(rank)):
        raise Untraceable
    axes: list[int | None] = [None] * rank
    for i, axis in enumerate(order):
        axes[axis] = way.axes[i]
    return _Way(node.input(0), tuple(axes), way.part)


def _regrouped(before: Shape | None, after: Shape | None, axes: Sequence[int | None]) -> tuple[int | None, ...]:
    """Where the axes of a Reshape's input are in the output: those of one size with equal products before or after them."""
    if before is None or after is None:
        raise Untraceable
    places: list[int | None] = []
    for i, size in enumerate(before):
        place = None
        for j, other in enumerate(after):
            is_same = size is not None and size == other
            if is_same and (_equal(before[:i], after[:j]) or _equal(before[i + 1 :], after[j + 1 :])):
                place = axes[j]
                break
        places.append(place)
    return tuple(places)


def _equal(one: Sequence[int | str | None], other: Sequence[int | str | None]) -> bool:
    """Whether the products of two lists of sizes are certainly equal."""
    if None in one or None in other:
        return False
    left = (prod(n for n in one if isinstance(n, int)), sorted(n for n in one if isinstance(n, str)))
    return left == (prod(n for n in other if isinstance(n, int)), sorted(n for n in other if isinstance(n, str)))


def _parts(graph: Graph, node: Node, way: _Way) -> list[_Way]:
    """The operands of a Concat, each a slice of the output."""
    axis = int(node.attribute("axis", 1)) % len(way.axes)
    place = way.axes[axis]
    sizes = [(graph.shape(name) or (None,) * len(way.axes))[axis] for name in node.inputs]
    if place is None or way.part is not None:
        return [] if not any(_leads_to_activation(graph, name) for name in node.inputs) else _refuse()
    ways, start = [], 0
    for name, size in zip(node.inputs, sizes, strict=True):
        if not isinstance(size, int):
            return _refuse()
        ways.append(_Way(name, way.axes, (place, start, start + size)))
        start += size
    return ways


def _leads_to_activation(graph: Graph, name: str) -> bool:
    for _ in range(_MAX_STEPS):
        node = graph.producer(name)
        if node is None or node.op in ACTIVATIONS:
            return node is not None
        if node.op not in _SAME | _RESHAPING | {"Transpose"}:
            return node.op == "Concat"
        name = node.input(0)
    return True


def _refuse() -> list[_Way]:
    raise Untraceable
