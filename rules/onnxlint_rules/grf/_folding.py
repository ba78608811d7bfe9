"""Which nodes compute the same value at every run, because all that they read is constant, or a fixed size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from onnxlint import Graph, GraphView, Node
from onnxlint.rulekit import exact_sizes, tensor_bytes
from onnxlint_rules._graph import hides, overridable
from onnxlint_rules.shp._operands import computed_operands

_NEVER = frozenset(
    """Bernoulli DequantizeLinear DynamicQuantizeLinear If Loop Multinomial Optional OptionalGetElement
    OptionalHasElement QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Scan
    SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap
    SplitToSequence ConcatFromSequence""".split()
)
"""Random, control flow, sequences, and the quantized form of weights: computed at run time on purpose."""

_COMPACT = frozenset(("Identity", "ConstantOfShape"))
"""Operators that only name a constant or abbreviate it: folding these alone gains nothing."""

_GROWS = frozenset(("ConstantOfShape", "Expand", "EyeLike", "OneHot", "Range", "Resize", "Tile", "Upsample"))
"""Operators whose result can be much larger than their inputs."""


class Region(NamedTuple):
    """Connected nodes that compute constants.

    (A tuple: a dataclass would cost every start a millisecond.)

    Attributes:
        nodes: In the order of the file.
        ends: Those among them whose result other nodes, or the graph's outputs, read.
        hides: What quantizers and converters do not find because it is computed (see `_grf_graph.hides`).
        grows: Growth in bytes from the inputs to the results; None if their shapes are unknown.
    """

    nodes: tuple[Node, ...]
    ends: tuple[Node, ...]
    hides: str
    grows: int | None


def foldable_nodes(view: GraphView) -> dict[int, Node]:
    """Id → node, for every node that computes the same at every run; Constant itself left out.

    These are those whose inputs are all constants or computed from constants, and Shapes of fixed sizes.
    """
    key = "onnxlint_rules.foldable_nodes"
    known: dict[int, Node] | None = view.memo.get(key)
    if known is None:
        known = view.memo[key] = {}
        constants: dict[int, set[str]] = {}
        for graph in view.graphs:  # outer graphs come before those nested in them
            constants[id(graph)] = _fold(graph, constants, known)
    return known


def _fold(graph: Graph, constants: dict[int, set[str]], found: dict[int, Node]) -> set[str]:
    """Names of a graph's constants; nodes that compute some are added to `found`."""
    names = set(graph.initializers)
    names.update(graph.sparse_initializers)
    if graph is graph.view.main:
        names -= overridable(graph.view)
    for node in graph.order:
        inputs = node.inputs
        if not inputs:
            if node.op == "Constant":
                names.update(node.outputs)
            continue
        # Nearly all nodes read data first: one look is enough for them.
        if node.op == "Shape" and known_sizes(node) is not None:
            names.update(node.outputs)
            found[id(node)] = node
            continue
        if inputs[0] not in names and not _is_outer_constant(graph, inputs[0], constants):
            continue
        if node.op in _NEVER or "::" in node.op:
            continue
        if all(not n or n in names or _is_outer_constant(graph, n, constants) for n in inputs[1:]):
            names.update(node.outputs)
            found[id(node)] = node
    names.discard("")
    return names


def known_sizes(node: Node) -> list[int] | None:
    """What a Shape gives where all these sizes are numbers; None if one is free."""
    shape = node.shape(0)
    if shape is None:
        return None
    end = node.attribute("end")
    if not isinstance(end, int | None):
        return None
    sizes = shape[node.attribute("start", 0) : end]
    numbers = [size for size in sizes if isinstance(size, int)]
    return numbers if len(numbers) == len(sizes) else None


def _is_outer_constant(graph: Graph, name: str, constants: dict[int, set[str]]) -> bool:
    while graph.parent is not None and not graph.owns(name):
        graph = graph.parent
        if name in constants[id(graph)]:
            return True
    return False


def regions(view: GraphView) -> list[Region]:
    """Connected foldable nodes that compute anything, in the order of their first node.

    Nodes of shape computations are left out: SHP002 reports these.
    """
    inside_shapes = shape_nodes(view)
    members = {key: node for key, node in foldable_nodes(view).items() if key not in inside_shapes}
    leader = {key: key for key in members}

    def find(key: int) -> int:
        while leader[key] != key:
            leader[key] = leader[leader[key]]
            key = leader[key]
        return key

    for key, node in members.items():
        for i in range(len(node.inputs)):
            producer = node.producer(i)
            if producer is not None and id(producer) in members and producer.op != "ConstantOfShape":
                leader[find(key)] = find(id(producer))
    groups: dict[int, list[Node]] = {}
    for key, node in members.items():
        groups.setdefault(find(key), []).append(node)
    found = (_region(nodes, members) for nodes in groups.values() if any(node.op not in _COMPACT for node in nodes))
    return [region for region in found if any(node.op not in _COMPACT for node in region.nodes)]


def _region(nodes: list[Node], members: dict[int, Node]) -> Region:
    ends = [
        node
        for node in nodes
        if any(id(user) not in members for user in node.consumers())
        or any(node.graph.is_output(name) for name in node.outputs)
    ]
    nodes = _leading_to(ends, nodes)
    hidden = sorted({what for node in ends if (what := hides(node))}, key=lambda what: (what != "weights", what))
    return Region(tuple(nodes), tuple(ends), hidden[0] if hidden else "", _growth(nodes, ends))


def _leading_to(ends: list[Node], nodes: list[Node]) -> list[Node]:
    """The nodes that an end is computed from, the ends themselves included: GRF002 reports the others."""
    within = {id(node) for node in nodes}
    live: set[int] = set()
    pending = list(ends)
    while pending:
        node = pending.pop()
        if id(node) in live:
            continue
        live.add(id(node))
        makers = (node.producer(i) for i in range(len(node.inputs)))
        pending += [maker for maker in makers if maker is not None and id(maker) in within]
    return [node for node in nodes if id(node) in live]


def _growth(nodes: list[Node], ends: list[Node]) -> int | None:
    after = 0
    for node in ends:
        for name in node.outputs:
            if not name:
                continue
            shape, kind = _sizes(node.graph, name), node.graph.dtype(name)
            if shape is None:
                makers = {node.op for node in nodes}
                makers.update(p.op for node in nodes for i in range(len(node.inputs)) if (p := node.producer(i)))
                return None if makers & _GROWS else 0
            after += math.prod(shape) * (8 if kind in (7, 11, 13) else 4)
    before = 0
    seen: set[str] = set()
    for node in nodes:
        for name in node.inputs:
            if name and name not in seen:
                seen.add(name)
                owner = node.graph.owner(name)
                tensor = owner.initializers.get(name) if owner is not None else None
                if tensor is not None:
                    before += tensor_bytes(tensor) or 0
    return after - before


def _sizes(graph: Graph, name: str) -> list[int] | None:
    """Sizes of a value where all are numbers, some perhaps only to who follows the operands that decide them."""
    shape: Sequence[object] | None = graph.shape(name)
    if shape is None or not all(isinstance(size, int) for size in shape):
        shape = exact_sizes(graph.view).shape(graph, name)
    numbers = [size for size in shape or () if isinstance(size, int)]
    return numbers if shape is not None and len(numbers) == len(shape) else None


def shape_nodes(view: GraphView) -> frozenset[int]:
    """Ids of the nodes that compute shapes: SHP002 reports these as a whole."""
    key = "onnxlint_rules.shape_nodes"
    known: frozenset[int] | None = view.memo.get(key)
    if known is None:
        ids = {id(node) for operand in computed_operands(view) for node in operand.chain.nodes}
        known = view.memo[key] = frozenset(ids)
    return known
