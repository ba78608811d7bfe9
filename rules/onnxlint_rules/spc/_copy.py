"""A copy of a model that onnx's own checks can be run on, without its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from onnxlint import GraphView
from onnxlint_rules._tensors import attribute_tensors, stored_tensors

if TYPE_CHECKING:
    import onnx

    from onnxlint import Graph, Node

PASSED_OVER = "onnxlint.unchecked"
"""Operator domain of nodes that the checker is to pass over."""

_LABEL = re.compile(r"§\d+\.\d+§")


class Copy:
    """A copy of a model, with the way back from its nodes to the view's.

    Args:
        view: The model.
        proto: The copy; same graphs, same nodes, in the same order.
    """

    def __init__(self, view: GraphView, proto: onnx.ModelProto) -> None:
        self.view = view
        self.proto = proto
        self.graphs: list[Any] = []  # in the order of view.graphs
        self.labels: dict[str, Node] = {}
        self._places: dict[int, dict[int, int]] = {}  # for sorted graphs: index in the view → index in the copy
        found: dict[int, Any] = {id(view.main): proto.graph}
        functions: Iterator[Any] = iter(proto.functions)
        for graph in view.graphs:
            own = found[id(graph)] if id(graph) in found else next(functions)
            self.graphs.append(own)
            bodies: dict[int, Iterator[Any]] = {}
            for child in graph.children:
                assert child.parent_node is not None
                index = child.parent_node.index
                if index not in bodies:
                    bodies[index] = _bodies(own.node[index])
                found[id(child)] = next(bodies[index])

    def node(self, node: Node) -> Any:
        """The copy's NodeProto of a node."""
        return self.graph(node.graph).node[self._places.get(id(node.graph), {}).get(node.index, node.index)]

    def graph(self, graph: Graph) -> Any:
        """The copy's GraphProto or FunctionProto of a graph."""
        return self.graphs[self.view.graphs.index(graph)]

    def sort(self, graph: Graph) -> None:
        """Bring the nodes of a graph into the order in which they run."""
        own = self.graph(graph)
        ordered = type(own)()
        ordered.node.extend(own.node[node.index] for node in graph.order)
        del own.node[:]
        own.node.extend(ordered.node)
        self._places[id(graph)] = {node.index: i for i, node in enumerate(graph.order)}

    def empty_tensors(self) -> None:
        """Leave no tensor whose data is elsewhere: the checker would look for files, or miss the data."""
        holding: dict[int, dict[int, None]] = {}
        for stored in stored_tensors(self.view):
            holding.setdefault(id(stored.graph), {})
            if stored.node is not None:
                holding[id(stored.graph)][stored.node.index] = None
        for graph, proto in zip(self.view.graphs, self.graphs, strict=True):
            if id(graph) in holding and not graph.is_function:
                for tensor in proto.initializer:
                    if tensor.data_location == 1:
                        empty_tensor(tensor)
                for sparse in proto.sparse_initializer:
                    _empty_sparse(sparse)
            for index in holding.get(id(graph), ()):
                for attribute in proto.node[index].attribute:
                    _empty_attribute(attribute)

    def label(self) -> None:
        """Give every node a name that no other has, so that a message that quotes it tells which node is meant."""
        for i, (graph, proto) in enumerate(zip(self.view.graphs, self.graphs, strict=True)):
            for node, copy in zip(graph.order if id(graph) in self._places else graph.nodes, proto.node, strict=True):
                copy.name = f"§{i}.{node.index}§"
                self.labels[copy.name] = node

    def labelled(self, text: str) -> list[Node]:
        """Nodes that a message quotes by their labels, in its order."""
        return [self.labels[label] for label in _LABEL.findall(text) if label in self.labels]

    def without_labels(self, text: str) -> str:
        """The message without labels and the words around them."""
        text = re.sub(rf"'{_LABEL.pattern} : ", "'", text)
        text = re.sub(rf"\s*\(?(node name|name|Name): {_LABEL.pattern}[,)]?", "", text)
        return re.sub(rf"\s*\(?{_LABEL.pattern}\)?", "", text)

    def refusals(self, nodes: Sequence[Node]) -> dict[int, str]:
        """The checker's errors for nodes of one graph, each alone, by the id of the node; none for nodes with bodies."""
        from onnxlint.rulekit import Crashed, run_node_checker

        pairs = [(node, self.node(node)) for node in nodes]
        plain = [(node, own) for node, own in pairs if not any(a.HasField("g") or a.graphs for a in own.attribute)]
        if not plain:
            return {}
        top = nodes[0].graph.outermost
        imports = self.graph(top).opset_import if top.is_function else self.proto.opset_import
        alone = type(self.proto)(ir_version=self.proto.ir_version, opset_import=imports)
        alone.graph.node.extend(own for _, own in plain)
        try:
            found = run_node_checker(alone.SerializeToString())
        except Crashed:
            return {}
        return {id(plain[i][0]): said for i, said in found.items()}

    def skip_node(self, node: Node) -> None:
        """Make the checker pass over one node: an operator of a domain of its own, without attributes."""
        copy = self.node(node)
        copy.domain = PASSED_OVER
        copy.op_type = copy.op_type or "Nameless"
        del copy.attribute[:]
        self._import_skipped(node.graph)

    def _import_skipped(self, graph: Graph) -> None:
        top = graph.outermost
        owner = self.graph(top) if top.is_function else self.proto
        for imports in (
            owner.opset_import,
            self.proto.opset_import,
        ):  # both have to know the domain of a function's node
            if all(entry.domain != PASSED_OVER for entry in imports):
                imports.add(domain=PASSED_OVER, version=1)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Graphs in a node's attributes, in the view's order."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        else:
            yield from attribute.graphs


def _empty_attribute(attribute: onnx.AttributeProto) -> None:
    for tensor in attribute_tensors(attribute):
        if tensor.data_location == 1:
            empty_tensor(tensor)
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        if any(part.data_location == 1 for part in (sparse.values, sparse.indices)):
            _empty_sparse(sparse)


def _empty_sparse(sparse: onnx.SparseTensorProto) -> None:
    if sparse.values.data_location == 1 or sparse.indices.data_location == 1:
        empty_tensor(sparse.values)
        empty_tensor(sparse.indices)


def empty_tensor(tensor: onnx.TensorProto) -> None:
    """Leave of a tensor its name and element type, with no elements."""
    kind, name = tensor.data_type, tensor.name
    tensor.Clear()
    tensor.data_type = kind
    tensor.name = name
    tensor.dims.append(0)
