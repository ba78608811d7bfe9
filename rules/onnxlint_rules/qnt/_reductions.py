"""Reductions of so many numbers that float16 is too narrow for their sums."""

from __future__ import annotations

import math

from onnxlint import GraphView, Node
from onnxlint_rules._graph import FLOATS, constant_integers, integer, integers

MANY = 4096
"""Numbers in a sum: from 2048 on, float16 holds no odd numbers, and what is added to a sum gets lost."""

_REDUCE = frozenset("ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean ReduceSum ReduceSumSquare".split())
_GLOBAL = frozenset(("GlobalAveragePool", "GlobalLpPool", "InstanceNormalization"))
_FROM_AXIS = frozenset(("LayerNormalization", "RMSNormalization"))


def large_reductions(view: GraphView) -> list[tuple[Node, int]]:
    """(node, numbers that it adds up for each number of its output), the largest first; unknown sizes are left out."""
    nodes = view.nodes(*sorted(_REDUCE | _GLOBAL | _FROM_AXIS))
    found = [(node, count) for node in nodes if (count := summed(node)) > MANY]
    return sorted(found, key=lambda one: -one[1])


def summed(node: Node) -> int:
    """How many numbers a reduction adds up for each number of its output; 0 if that is not known."""
    shape = node.shape(0)
    if shape is None or node.graph.dtype(node.input(0)) not in FLOATS:
        return 0
    rank = len(shape)
    if node.op in _GLOBAL:
        axes = list(range(2, rank))
    elif node.op in _FROM_AXIS:
        axis = integer(node, "axis", -1)
        axes = list(range(axis % rank, rank)) if rank and -rank <= axis < rank else []
    else:
        named = constant_integers(node, 1) if node.input(1) else integers(node, "axes")
        if named is None and node.input(1):
            return 0
        if not named:
            named = [] if integer(node, "noop_with_empty_axes", 0) else list(range(rank))
        axes = [axis % rank for axis in named if rank and -rank <= axis < rank]
    sizes = [shape[axis] for axis in axes]
    return math.prod(size for size in sizes if isinstance(size, int)) if all(isinstance(s, int) for s in sizes) else 0
