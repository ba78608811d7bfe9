"""Where an activation behind an output belongs, followed back through transposes, reshapes and concatenations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from onnxlint.fixes.heads import ACTIVATIONS
from onnxlint.verification.interface import Dropped

if TYPE_CHECKING:
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


def activations_behind(view: GraphView, output: str) -> tuple[Dropped, ...]:
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
    axis: int = node.attribute("axis", default)
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
    axis = node.attribute("axis", 1) % len(way.axes)
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
