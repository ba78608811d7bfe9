"""Shared by the OUT rules: tracing a graph output back to its producer, and detection heads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import NamedTuple

from onnxlint import Graph, GraphView, Node, Shape, printable
from onnxlint.rulekit import Dim, is_invented
from onnxlint_rules._graph import FLOATS

LAYOUT = frozenset(
    (
        "Cast",
        "DequantizeLinear",
        "Flatten",
        "Identity",
        "QuantizeLinear",
        "Reshape",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    )
)
"""Operators after which a value holds the same numbers, perhaps in another shape or type."""

ACTIVATIONS = ("LogSoftmax", "Sigmoid", "Softmax")

_ARITHMETIC = ("Add", "Div", "Mul", "Sub")
_SAME_AXES = ("Cast", "DequantizeLinear", "Identity", "QuantizeLinear")
_MAX_STEPS = 64
_MAX_ANCESTORS = 200
_MAX_OUTPUTS = 64


class Heads(NamedTuple):
    """Graph outputs that are parts of one prediction, and can be concatenated.

    Attributes:
        names: The outputs, in the order of the graph.
        shapes: Their shapes.
        axis: The axis that tells them apart.
        levels: Feature maps that each head has outputs of its own for; 1 where the model has concatenated these.
    """

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    axis: int
    levels: int

    @property
    def sizes(self) -> list[int]:
        """Size of each head along the differing axis."""
        sizes = [int(shape[self.axis] or 0) for shape in self.shapes]
        return sizes if self.levels == 1 else list(dict.fromkeys(sizes))


def find_heads(view: GraphView) -> Heads | None:
    """The detection heads among the outputs of the main graph; None if there are none."""
    graph = view.main
    names = list(dict.fromkeys(name for name in graph.outputs if graph.producer(name) is not None))
    if len(names) < 2:
        return None
    joined = {name: node for name in names[:_MAX_OUTPUTS] if (node := _concat_behind(graph, name)) is not None}
    return _concatenated(graph, joined) or _by_level(graph, names)


class _Joined(NamedTuple):
    """The Concat that joins what a head says about each feature map, and its axis where the output still has it."""

    node: Node
    axis: int | None


def _concat_behind(graph: Graph, name: str) -> _Joined | None:
    node = graph.producer(name)
    moved = False
    for _ in range(_MAX_STEPS):
        if node is None or node.graph is not graph:
            return None
        if node.op == "Concat":
            before = _decoded_from(node)
            moved, node = moved or before is not None, before or node
            parts = [node.producer(i) for i in range(len(node.inputs))]
            if len(parts) < 2 or any(part is None or part.op == "Constant" for part in parts):
                return None
            shape = graph.shape(node.output())
            axis = node.attribute("axis", 0)
            return _Joined(node, None if moved or shape is None else axis % len(shape))
        if node.op in LAYOUT or node.op in ACTIVATIONS:
            moved = moved or (node.op in LAYOUT and node.op not in _SAME_AXES)
            node = node.producer(0)
        elif node.op in _ARITHMETIC:
            # Decoding by constants: boxes * variances + priors.
            data = [i for i, operand in enumerate(node.inputs) if not graph.is_constant(operand)]
            node = node.producer(data[0]) if len(data) == 1 else None
        else:
            return None
    return None


_DECODING = frozenset((*_ARITHMETIC, *_SAME_AXES, "Clip", "Exp", "Neg", "Sigmoid", "Slice", "Split"))
"""Elementwise operators that decode a head's values into corners of boxes."""


def _decoded_from(node: Node) -> Node | None:
    """The Concat over feature maps that a Concat of decoded parts (corners, centers) comes from; None if it is none.

    Both join along different axes, and everything between them works on single places.
    """
    graph, shape = node.graph, node.graph.shape(node.output())
    if shape is None:
        return None
    axis = node.attribute("axis", 0) % len(shape)
    found: dict[int, Node] = {}
    pending, seen = [node], {id(node)}
    for current in pending:
        for i, name in enumerate(current.inputs):
            if not name or graph.is_constant(name):
                continue
            producer = current.producer(i)
            if producer is None or producer.graph is not graph or len(pending) > _MAX_STEPS:
                return None
            same_axis = producer.op == "Concat" and producer.attribute("axis", 0) % len(shape) == axis
            if producer.op == "Concat" and not same_axis:
                found[id(producer)] = producer
            elif same_axis or producer.op in _DECODING:
                if id(producer) not in seen:
                    seen.add(id(producer))
                    pending.append(producer)
            elif not graph.is_constant(name):
                return None
    return next(iter(found.values())) if len(found) == 1 else None


def _concatenated(graph: Graph, joined: dict[str, _Joined]) -> Heads | None:
    """Heads that each end in a Concat over the same feature maps."""
    groups: dict[tuple[int, int], list[str]] = {}
    if len(joined) < 2:
        return None
    for name, concat in joined.items():
        shape = graph.shape(name)
        if shape is not None and graph.dtype(name) in FLOATS:
            groups.setdefault((len(concat.node.inputs), len(shape)), []).append(name)
    for names in groups.values():
        shapes = [graph.shape(name) or () for name in names]
        axis = only_difference(shapes)
        # Joined along the very axis that differs, they are features (dense blocks), not places of feature maps.
        if axis is None or any(joined[name].axis == axis for name in names):
            continue
        if _same_feature_maps([joined[name].node for name in names]):
            return Heads(tuple(names), tuple(shapes), axis, 1)
    return None


def only_difference(shapes: list[Shape]) -> int | None:
    """The one axis along which shapes of the same rank have different known sizes; None unless there is just one.

    Sizes that are expressions are taken for equal: the heads read the same feature maps, as is asked elsewhere, and
    where one of them mixes up its batch (SHP003) its expression is another.
    """
    if len(shapes) < 2:
        return None
    different = []
    for axis, sizes in enumerate(zip(*shapes, strict=True)):
        numbers = {size for size in sizes if isinstance(size, int)}
        if len(numbers) > 1:
            if not all(isinstance(size, int) for size in sizes):
                return None
            different.append(axis)
    return different[0] if len(different) == 1 else None


def _same_feature_maps(concats: list[Node]) -> bool:
    """Whether the parts of all Concats come, one by one, from something that they have in common."""
    computed: dict[str, list[str]] = {}
    return all(_meet(concats, i, computed) for i in range(len(concats[0].inputs)))


def _meet(concats: list[Node], i: int, computed: dict[str, list[str]]) -> bool:
    """Whether inputs `i` of all nodes depend on something that they have in common."""
    first, *others = concats
    common = set(_ancestors(first, i, computed))
    # Nearly always the first thing that two of them share is shared by all.
    shared = next((name for name in _ancestors(others[0], i, computed) if name in common), "") if others else ""
    if shared and all(shared in _ancestors(other, i, computed) for other in others[1:]):
        return True
    for other in others:
        common.intersection_update(_ancestors(other, i, computed))
    return bool(common)


def _ancestors(node: Node, i: int, computed: dict[str, list[str]]) -> Iterator[str]:
    """Computed values that input `i` of a node depends on, the nearest ones first.

    Args:
        computed: Value → computed operands of the node that makes it; filled as they are asked for.
    """
    graph = node.graph
    found = {node.input(i)}
    queue = [node.input(i)]
    yield queue[0]
    for name in queue:
        if len(found) > _MAX_ANCESTORS:
            return
        operands = computed.get(name)
        if operands is None:
            producer = graph.producer(name)
            inputs = producer.inputs if producer is not None else ()
            operands = computed[name] = [one for one in inputs if one and not graph.is_constant(one)]
        for operand in operands:
            if operand not in found:
                found.add(operand)
                queue.append(operand)
                yield operand


def _by_level(graph: Graph, names: list[str]) -> Heads | None:
    """Heads with an output for each feature map: the same sizes on one axis, again and again for each level."""
    if not 4 <= len(names) <= _MAX_OUTPUTS:
        return None
    shapes: list[Shape] = []
    for name in names:
        shape = graph.shape(name)
        # The batch apart, sizes must be known: an unknown one could be anything.
        if shape is None or len(shape) < 3 or graph.dtype(name) not in FLOATS:
            return None
        if not all(isinstance(size, int) for size in shape[1:]):
            return None
        shapes.append(shape)
    if len({len(shape) for shape in shapes}) > 1:
        return None
    best: Heads | None = None
    most = 0
    for axis in range(1, len(shapes[0])):
        levels: dict[tuple[Dim, ...], list[Dim]] = {}
        for shape in shapes:
            levels.setdefault((*shape[:axis], *shape[axis + 1 :]), []).append(shape[axis])
        per_level = list(levels.values())
        heads = len(set(per_level[0]))
        if len(levels) < 2 or not 1 < heads == len(per_level[0]):
            continue
        places = sorted((prod(int(size or 1) for size in rest[1:]) for rest in levels), reverse=True)
        same_heads = all(Counter(sizes) == Counter(per_level[0]) for sizes in per_level)
        # [1, 7600, 10] and [1, 7600, 32] are heads of 10 and 32 values, not of 7600: there are more places than values.
        if same_heads and _is_pyramid(places) and places[0] > most:
            best, most = Heads(tuple(names), tuple(shapes), axis, len(levels)), places[0]
    return best


def _is_pyramid(places: list[int]) -> bool:
    """Whether each level has about a quarter of the places of the one before (stride 8, 16, 32, …)."""
    return all(3 <= a / b <= 6 for a, b in pairwise(places))


def show_shape(shape: Shape | None) -> str:
    """`[b, ?, 4]`; symbols that inference invented, and sizes that are long expressions, come as `?`."""
    if shape is None:
        return "[…]"
    return "[" + ", ".join("?" if is_invented(dim) else _short(printable(str(dim))) for dim in shape) + "]"


def _short(dim: str) -> str:
    return "?" if "?" in dim or len(dim) > 16 else dim
