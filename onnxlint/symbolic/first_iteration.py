"""Sizes in the first iteration of loops: what a Loop or Scan carries has those of its initial value there.

Later iterations may have others. A body that runs at least once has to run with these, so they tell what a model demands,
and prove nothing about what it computes.
"""

from __future__ import annotations

from onnxlint.graph.dims import Shape
from onnxlint.graph.view import Graph, GraphView, Node
from onnxlint.symbolic.engine import MISUSE, Sizes, Symbolic
from onnxlint.symbolic.inference import OPERATORS, exact_sizes

_LOOPS = ("Loop", "Scan")


def first_sizes(view: GraphView) -> Symbolic:
    """Every size of a model as it is where its loops run for the first time; the exact sizes of a model without loops."""
    if any(graph.parent_node is not None and graph.parent_node.op in _LOOPS for graph in view.graphs):
        return FirstIteration(view, OPERATORS)
    return exact_sizes(view)


class FirstIteration(Symbolic):
    """Sizes of a model in the first iteration of its loops."""

    def declared_input(self, graph: Graph, name: str, shape: Shape | None) -> Sizes | None:
        """Sizes of an input; in the body of a loop those of the initial value or of the slice that it gets first."""
        node = graph.parent_node
        if node is not None and node.op in _LOOPS:
            try:
                sizes = self._first(node, graph.inputs.index(name))
            except MISUSE:
                sizes = None  # an operator used against its specification
            if sizes is not None:
                return self.merge(sizes, shape)
        return super().declared_input(graph, name, shape)

    def _first(self, node: Node, i: int) -> Sizes | None:
        """Sizes of input `i` of the body of a loop in its first iteration; None if they are unknown."""
        if node.op == "Loop":
            return self.of(node, i) if i > 1 else None  # the count and the condition come first
        if node.graph.view.opset < 9:
            return None  # inputs had a batch then
        carried = len(node.inputs) - node.attribute("num_scan_inputs", 0)
        sizes = self.of(node, i)
        if i < carried or sizes is None:
            return sizes
        axis = scan_axis(node, i - carried) % len(sizes)
        return (*sizes[:axis], *sizes[axis + 1 :])


def scan_axis(node: Node, i: int) -> int:
    """The axis along which a Scan takes its scan input `i` apart."""
    axes = node.attribute("scan_input_axes")
    return int(axes[i]) if axes else 0
