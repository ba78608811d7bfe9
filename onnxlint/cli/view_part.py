"""The neighbourhood of a node as a model of its own, for `onnxlint view --at`: Netron opens models at the top only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.graph.attributes import nested_graphs
from onnxlint.text import did_you_mean, listed, printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.graph.view import Graph, GraphView, Node

MOST_NODES = 200
"""Nodes of a neighbourhood; those nearest to the node are kept."""

LARGEST = 1 << 20
"""Bytes of an initializer that is copied; larger ones become inputs, with their shapes."""


def find_node(view: GraphView, place: str) -> Node:
    """The node at a place as findings print it: a name (`/fpn/Resize`), `Resize #3`, or a value that a node makes.

    Raises:
        OnnxlintError: There is none, or several.
    """
    nodes = list(view.nodes())
    for fits in (
        [node for node in nodes if view.at(node).place == place],
        [node for node in nodes if place in (node.name, f"{node.proto.op_type} #{node.index}")],
        [node for node in nodes if place in node.outputs],
    ):
        if len(fits) == 1 and place:
            return fits[0]
        if fits and place:
            shown = listed((f"'{printable(node.proto.op_type)} #{node.index}'" for node in fits), 4)
            raise OnnxlintError(f"--at {printable(place)}: {len(fits)} nodes are called so; name one of {shown}")
    near = did_you_mean(place, [node.name or f"{node.proto.op_type} #{node.index}" for node in nodes])
    path = printable(view.model.path)
    raise OnnxlintError(
        f"--at {printable(place)}: {path} has no such node{near or '; write a place as onnxlint check prints it'}"
    )


def around(node: Node, steps: int) -> list[Node]:
    """The nodes of a graph from which, or to which, a node is at most some steps away; in the order of the file."""
    kept = {node.index: node}
    ring = [node]
    for _ in range(steps):
        found: dict[int, Node] = {}
        for one in ring:
            for other in (*_producers(one), *_consumers(one)):
                if other.index not in kept:
                    found.setdefault(other.index, other)
        ring = list(found.values())[: MOST_NODES - len(kept)]
        kept.update((one.index, one) for one in ring)
    return [kept[index] for index in sorted(kept)]


def part_of(view: GraphView, nodes: Sequence[Node]) -> bytes:
    """Nodes of one graph as a model: what they read are its inputs, what others read are its outputs."""
    import onnx

    graph = nodes[0].graph
    part = onnx.ModelProto(ir_version=max(view.proto.ir_version, 4), producer_name=view.proto.producer_name)
    part.opset_import.extend(view.proto.opset_import)
    part.functions.extend(view.proto.functions)
    part.graph.name = graph.path
    part.graph.node.extend(node.proto for node in nodes)
    made = {name for node in nodes for name in node.outputs if name}
    inside = {node.index for node in nodes}
    for name in dict.fromkeys(name for node in nodes for name in _read(node) if name not in made):
        tensor = _small_initializer(view, graph, name)
        if tensor is None:
            part.graph.input.append(_value(graph, name))
        else:
            part.graph.initializer.append(tensor)
    for name in sorted(made):
        users = {_in_graph(user, graph).index for user in graph.consumers(name)}
        outside = users - inside
        (part.graph.output if graph.is_output(name) or outside or not users else part.graph.value_info).append(
            _value(graph, name)
        )
    return part.SerializeToString()


def _producers(node: Node) -> Iterator[Node]:
    for name in _read(node):
        maker = node.graph.producer(name)
        if maker is not None and maker.graph is node.graph:
            yield maker


def _consumers(node: Node) -> Iterator[Node]:
    for user in node.consumers():
        yield _in_graph(user, node.graph)


def _in_graph(node: Node, graph: Graph) -> Node:
    """The node of a graph that a node is, or is nested in."""
    while node.graph is not graph and node.graph.parent_node is not None:
        node = node.graph.parent_node
    return node


def _read(node: Node) -> list[str]:
    """The values that a node and the graphs in it read from the graph that it is in, and from those around it."""
    names = [name for name in node.inputs if name]
    inner = [graph for _, graph in nested_graphs(node.proto)]
    while inner:
        graph = inner.pop()
        read = [name for one in graph.node for name in one.input] + [value.name for value in graph.output]
        names += [name for name in read if node.graph.owner(name) is not None]
        inner += [one for below in graph.node for _, one in nested_graphs(below)]
    return list(dict.fromkeys(filter(None, names)))


def _small_initializer(view: GraphView, graph: Graph, name: str) -> onnx.TensorProto | None:
    from onnx import numpy_helper

    owner = graph.owner(name)
    tensor = owner.initializers.get(name) if owner is not None else None
    if tensor is None:
        return None
    count = 1
    for size in tensor.dims:
        count *= size
    if count * 8 > LARGEST:
        return None
    try:
        return numpy_helper.from_array(view.array(tensor), name)
    except OnnxlintError:  # its data is missing: the shape is enough
        return None


def _value(graph: Graph, name: str) -> onnx.ValueInfoProto:
    """Name, type and shape of a value, as far as they are known."""
    import onnx
    from onnx import helper

    owner = graph.owner(name) or graph
    tensor = owner.initializers.get(name)
    if tensor is not None:
        return helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
    kind, shape = owner.dtype(name), owner.shape(name)
    if not kind:
        return onnx.ValueInfoProto(name=name)
    dims = None if shape is None else [dim if isinstance(dim, int) or dim is None else str(dim) for dim in shape]
    return helper.make_tensor_value_info(name, kind, dims)
