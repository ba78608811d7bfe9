"""A model as stable text, one line a node: what `onnxlint show` prints, and git's textconv reads.

Values are named after what makes them, not after the numbers that an exporter gave them: by module, operator and how many
of it the module has (`fpn.Resize`, `fpn.Resize.2`). An export that numbers everything anew gives the same text, and a
node that comes or goes changes the lines around it, not all that follow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from onnxlint.difference.align import NUMBERED
from onnxlint.difference.compare import attribute_text, end_text
from onnxlint.difference.constants import Constant, constant_of, constants_of, is_operand, type_text
from onnxlint.graph.view import Graph, GraphView, Node
from onnxlint.text import printable

HASH = 12
"""Hexadecimal digits of a weight's hash that are shown: 48 bits."""

SHORTEST = 160
"""Characters of a metadata value that are shown at most."""


def show(view: GraphView, hashes: bool = True) -> Iterator[str]:
    """Lines of a model's text form.

    Args:
        view: The model.
        hashes: Whether weights are hashed, for which all of them are read.
    """
    proto = view.proto
    for entry in sorted(proto.opset_import, key=lambda one: one.domain):
        yield f"opset {printable(entry.domain) or 'ai.onnx'} {entry.version}"
    yield f"ir_version {proto.ir_version}"
    if proto.producer_name:
        yield f"producer {printable(f'{proto.producer_name} {proto.producer_version}'.strip())}"
    for prop in sorted(proto.metadata_props, key=lambda one: one.key):
        value = printable(prop.value)
        yield f"metadata {printable(prop.key)} = {value if len(value) <= SHORTEST else f'{value[: SHORTEST - 1]}…'}"
    for name in view.main.data_inputs:
        yield f"input {printable(end_text(view, name))}"
    names = _Names(view, hashes)
    yield from names.lines(view.main, "")
    for graph in view.graphs:
        if graph.is_function:
            arguments = ", ".join(map(printable, graph.inputs))
            yield ""
            yield f"{printable(graph.path)}({arguments})"
            yield from names.lines(graph, "  ")
            yield f"  return {', '.join(names.value(graph, name) for name in graph.outputs)}"


class _Names:
    """Stable names of the values of one model."""

    def __init__(self, view: GraphView, hashes: bool) -> None:
        self._view = view
        self._hashes = hashes
        self._values: dict[tuple[int, str], str] = {}
        self._hash: dict[tuple[int, str], str] = {}

    def lines(self, graph: Graph, indent: str) -> Iterator[str]:
        """The weights, nodes and outputs of a graph; bodies stand indented under their node."""
        self._name(graph)
        for constant in constants_of(graph):
            if not constant.is_small and not NUMBERED.search(constant.name):
                yield f"{indent}weight {printable(constant.name)} {self._typed(constant)}"
        bodies: dict[Node, list[Graph]] = {}
        for child in graph.children:
            if child.parent_node is not None:
                bodies.setdefault(child.parent_node, []).append(child)
        for node in graph.order:
            if node.op == "Constant":
                continue
            yield f"{indent}{self._node(node)}"
            for body in bodies.get(node, ()):
                label = body.path.rsplit(".", 1)[-1]
                yield f"{indent}  {printable(label)}({', '.join(map(printable, body.inputs))}):"
                yield from self.lines(body, f"{indent}    ")
                yield f"{indent}    return {', '.join(self.value(body, name) for name in body.outputs)}"
        if graph is self._view.main:
            for name in graph.outputs:
                yield f"output {printable(end_text(self._view, name))} = {self.value(graph, name)}"

    def _name(self, graph: Graph) -> None:
        seen: Counter[str] = Counter()
        for node in graph.order:
            if node.op == "Constant":
                continue
            scope = graph.view.sources.scope(node.proto)
            base = f"{scope}.{node.op}" if scope else node.op
            seen[base] += 1
            name = base if seen[base] == 1 else f"{base}.{seen[base]}"
            for k, value in enumerate(node.outputs):
                if value:
                    self._values[id(graph), value] = printable(name if k == 0 else f"{name}:{k}")

    def value(self, graph: Graph, name: str) -> str:
        """Name of a value; the value itself for small constants."""
        if not name:
            return "-"
        constant = constant_of(graph, name)
        if constant is not None:
            if constant.elements == 0:
                return "-"  # what an absent input means
            return constant.text() if constant.is_small else self._weight_name(constant)
        owner = graph.owner(name) or graph
        return self._values.get((id(owner), name), printable(name))

    def _node(self, node: Node) -> str:
        outputs = ", ".join(self.value(node.graph, name) for name in node.outputs)
        inputs = ", ".join(self._operand(node, name) for name in node.inputs)
        parts = [
            f"{attribute.name}={attribute_text(attribute)}"
            for attribute in sorted(node.proto.attribute, key=lambda one: one.name)
            if not attribute.HasField("g") and not attribute.graphs
        ]
        attributes = f" {{{printable(', '.join(parts))}}}" if parts else ""
        return f"{outputs} = {printable(node.op)}({inputs}){attributes}"

    def _operand(self, node: Node, name: str) -> str:
        constant = constant_of(node.graph, name)
        if constant is None or not constant.is_small or is_operand(node, constant):
            return self.value(node.graph, name)
        return self._typed(constant)

    def _weight_name(self, constant: Constant) -> str:
        """A weight's name; its type and hash where an exporter made the name up."""
        return self._typed(constant) if NUMBERED.search(constant.name) else printable(constant.name)

    def _typed(self, constant: Constant) -> str:
        kind = type_text(constant.dtype, constant.shape)
        return f"{kind}#{self._digest(constant)}" if self._hashes else kind

    def _digest(self, constant: Constant) -> str:
        if constant.key not in self._hash:
            self._hash[constant.key] = constant.digest()[:HASH]
        return self._hash[constant.key]
