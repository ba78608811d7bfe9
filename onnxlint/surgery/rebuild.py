"""The model after surgery: patched parts are rebuilt, everything else is the original's, message for message."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.surgery.messages import (
    keep,
    node_state,
    same_values,
    tensor_state,
    used_names,
    value_info_of,
    value_names,
    write_attributes,
    write_names,
)
from onnxlint.surgery.order import dead_nodes, in_order, is_graph
from onnxlint.surgery.wiring import detach
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx
    import onnx_graphsurgeon as gs

INITIALIZERS_ARE_INPUTS = 4
"""IR version before which every initializer is listed among the inputs."""

State = tuple[Any, ...]
"""Fingerprint of a node or tensor at import."""


@dataclass
class Origin:
    """A graph of the original, as graphsurgeon imported it.

    Attributes:
        proto: The original message; never changed.
        graph: graphsurgeon's.
        ordered: The nodes as they were imported, in the order of the file.
        nodes: id of a gs.Node → (its original, its state at import).
        inputs, outputs: (tensor, its state at import) in the original order.
        dead: ids of the nodes that no output depended on: dead before us, and left alone.
        adopted: Initializers that came with the nodes of a nested graph.
        dropped: Names of initializers that are to go.
    """

    proto: onnx.GraphProto
    graph: gs.Graph
    ordered: list[gs.Node]
    nodes: dict[int, tuple[onnx.NodeProto, State]]
    inputs: list[tuple[gs.Tensor, State]]
    outputs: list[tuple[gs.Tensor, State]]
    dead: set[int]
    adopted: dict[str, onnx.TensorProto] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)


@dataclass
class Surgery:
    """Changes of a patch, collected when it ends.

    Attributes:
        path: The model's file, for messages.
        proto: The original; never changed.
        graph: graphsurgeon's main graph.
        origins: id of a gs.Graph → its original.
        likes: id of a new node → (the node, the original node whose metadata it gets).
        homes: id of a new constant → (the constant, the graph that is to hold it).
        metadata: `metadata_props` of the model to set.
        drop_inputs: Names of initializers that are to be no longer listed as inputs.
        drop_value_info: Names of values whose declared shape is dropped.
    """

    path: str
    proto: onnx.ModelProto
    graph: gs.Graph
    origins: dict[int, Origin] = field(default_factory=dict)
    likes: dict[int, tuple[gs.Node, onnx.NodeProto]] = field(default_factory=dict)
    homes: dict[int, tuple[gs.Constant, gs.Graph]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    drop_inputs: set[str] = field(default_factory=set)
    drop_value_info: set[str] = field(default_factory=set)


def rebuild(surgery: Surgery) -> onnx.ModelProto:
    """The patched model; the original object if nothing changed.

    Raises:
        OnnxlintError: A patch added a graph of its own, which is not supported.
    """
    import onnx

    graph = _graph(surgery, surgery.graph)
    original = surgery.proto
    if graph is original.graph and not surgery.metadata:
        return original
    model = onnx.ModelProto()
    model.CopyFrom(original)
    if graph is not original.graph:
        model.graph.CopyFrom(graph)
    known = {entry.key: entry for entry in model.metadata_props}
    for key, value in surgery.metadata.items():
        if key in known:
            known[key].value = value
        else:
            model.metadata_props.add(key=key, value=value)
    return model


def _graph(surgery: Surgery, held: gs.Graph) -> onnx.GraphProto:
    """The graph's message: the original object where nothing in it changed."""
    origin = surgery.origins.get(id(held))
    if origin is None:
        raise OnnxlintError(
            f"{printable(surgery.path)}: a patch added a subgraph to the model, which is not supported: change the nodes of "
            "its graphs, or rewrite the model"
        )
    _remove_dead(held, origin)
    nodes = list(in_order(held))
    protos = [_node(surgery, node, origin) for node in nodes]
    new_values = _new_initializers(surgery, held, origin, nodes)
    if not new_values and not _touches_header(surgery, held, origin) and _is_unchanged(held, origin, protos):
        return origin.proto
    return _assembled(surgery, held, origin, protos, new_values)


def _touches_header(surgery: Surgery, held: gs.Graph, origin: Origin) -> bool:
    is_top = held is surgery.graph
    return bool(origin.dropped or (is_top and (surgery.drop_inputs or surgery.drop_value_info)))


def _is_unchanged(held: gs.Graph, origin: Origin, protos: list[onnx.NodeProto]) -> bool:
    if len(protos) != len(origin.proto.node):
        return False
    if any(a is not b for a, b in zip(protos, origin.proto.node, strict=True)):
        return False
    for now, before in ((held.inputs, origin.inputs), (held.outputs, origin.outputs)):
        if [id(tensor) for tensor in now] != [id(tensor) for tensor, _ in before]:
            return False
    return all(tensor_state(tensor) == state for tensor, state in (*origin.inputs, *origin.outputs))


def _remove_dead(held: gs.Graph, origin: Origin) -> None:
    """Remove nodes that patches left unused; nodes unused before stay."""
    dead = dead_nodes(held, origin.dead)
    if dead:
        gone = {id(node) for node in dead}
        for node in dead:
            detach(node)
        held.nodes = [node for node in held.nodes if id(node) not in gone]


def _assembled(
    surgery: Surgery, held: gs.Graph, origin: Origin, protos: list[onnx.NodeProto], new: dict[str, onnx.TensorProto]
) -> onnx.GraphProto:
    """A new message for a graph that changed."""
    import onnx

    graph = onnx.GraphProto()
    graph.CopyFrom(origin.proto)
    del graph.node[:]
    graph.node.extend(protos)
    used = set(used_names(protos)) | {tensor.name for tensor in held.outputs}
    brought = _write_initializers(surgery, graph, origin, new, used)
    _write_inputs(surgery, graph, held, origin, brought)
    del graph.output[:]
    graph.output.extend(_ends(held.outputs, origin.outputs, origin.proto.output))
    # Claims about values that are gone go with them; those that were about nothing before stay.
    if graph.value_info or graph.quantization_annotation:
        gone = value_names(origin.proto) - value_names(graph)
        keep(graph.value_info, lambda v: v.name not in gone and v.name not in surgery.drop_value_info)
        keep(graph.quantization_annotation, lambda a: a.tensor_name not in gone)
    return graph


def _listed(surgery: Surgery, origin: Origin) -> set[str]:
    """Names that stay listed as inputs."""
    return {value.name for value in origin.proto.input} - surgery.drop_inputs - origin.dropped


def _write_initializers(
    surgery: Surgery, graph: onnx.GraphProto, origin: Origin, new: dict[str, onnx.TensorProto], used: set[str]
) -> list[onnx.TensorProto]:
    """Write initializers that are used, or were unused before us; then adopted and new ones, which are returned."""
    made = {name for node in graph.node for name in node.output}
    was_used = set(used_names(origin.proto.node)) | {value.name for value in origin.proto.output}
    stay = _listed(surgery, origin)
    fresh = dict(new)
    kept = [
        fresh.pop(tensor.name, tensor)
        for tensor in origin.proto.initializer
        if (tensor.name in used or tensor.name not in was_used or tensor.name in stay)
        and (tensor.name in used or tensor.name not in origin.dropped)
        and tensor.name not in made
    ]
    adopted = [tensor for name, tensor in origin.adopted.items() if name in used]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *adopted, *fresh.values()])
    keep(graph.sparse_initializer, lambda s: s.values.name in used or s.values.name not in was_used | origin.dropped)
    return [*fresh.values(), *adopted]


def _write_inputs(
    surgery: Surgery, graph: onnx.GraphProto, held: gs.Graph, origin: Origin, brought: list[onnx.TensorProto]
) -> None:
    """Inputs, and initializers that are listed as inputs."""
    import onnx
    from onnx import helper

    initializers = {tensor.name for tensor in graph.initializer}
    stay = _listed(surgery, origin)
    inputs = _ends(held.inputs, origin.inputs, origin.proto.input)
    own = {tensor.name for tensor in held.inputs}
    # Initializers that are listed as inputs keep their places at the end of the list or among the inputs.
    overridable = [
        value
        for value in origin.proto.input
        if value.name in initializers and value.name in stay and value.name not in own
    ]
    if overridable:
        order = {value.name: i for i, value in enumerate(origin.proto.input)}
        inputs = sorted([*inputs, *overridable], key=lambda value: order.get(value.name, -1))
    inputs = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
    del graph.input[:]
    graph.input.extend(inputs)
    if held is surgery.graph and surgery.proto.ir_version < INITIALIZERS_ARE_INPUTS:
        for tensor in brought:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def _ends(
    tensors: Iterable[gs.Tensor], before: list[tuple[gs.Tensor, State]], protos: Iterable[onnx.ValueInfoProto]
) -> list[onnx.ValueInfoProto]:
    """Messages of a graph's inputs or outputs: the originals where they did not change."""
    by_name = {value.name: value for value in protos}
    known = {id(tensor): (state, by_name[state[0]]) for tensor, state in before}
    out = []
    for tensor in tensors:
        state, proto = known.get(id(tensor), (None, None))
        out.append(proto if proto is not None and state == tensor_state(tensor) else value_info_of(tensor, proto))
    return out


def _node(surgery: Surgery, node: gs.Node, origin: Origin) -> onnx.NodeProto:
    """A node's message: the original object where it did not change."""
    import onnx

    entry = origin.nodes.get(id(node))
    bodies = {key: _graph(surgery, value) for key, value in node.attrs.items() if is_graph(value)}
    if entry is not None:
        original, before = entry
        changed_bodies = {
            key: body
            for key, body in bodies.items()
            if all(attribute.g is not body for attribute in original.attribute if attribute.name == key)
        }
        now = node_state(node)
        if before == now and not changed_bodies:
            return original
        proto = onnx.NodeProto()
        proto.CopyFrom(original)
        if not changed_bodies and (*before[:3], before[4]) == (*now[:3], now[4]):
            write_names(proto, node)
            return proto
        old_attributes = before[4]
    else:
        proto, changed_bodies, old_attributes = onnx.NodeProto(), bodies, ()
        if id(node) in surgery.likes:
            proto.metadata_props.extend(surgery.likes[id(node)][1].metadata_props)
    proto.op_type = node.op
    if node.name or proto.name:
        proto.name = node.name
    if node.domain:
        proto.domain = node.domain
    elif proto.domain:
        proto.ClearField("domain")
    write_names(proto, node)
    write_attributes(proto, node, dict(old_attributes), changed_bodies)
    return proto


def _new_initializers(
    surgery: Surgery, held: gs.Graph, origin: Origin, nodes: list[gs.Node]
) -> dict[str, onnx.TensorProto]:
    """Constants that patches brought or changed, by name, in the order of their first use."""
    import onnx_graphsurgeon as gs
    from onnx import numpy_helper

    originals = {tensor.name: tensor for tensor in origin.proto.initializer}
    found: dict[str, onnx.TensorProto] = {}
    own = [constant for constant, home in surgery.homes.values() if home is held and constant.outputs]
    for tensor in (*(t for node in nodes for t in node.inputs), *held.outputs, *own):
        if not isinstance(tensor, gs.Constant) or tensor.name in found or hasattr(tensor._values, "tensor"):
            continue  # a variable, or a constant that nobody looked into
        if id(tensor) in surgery.homes and surgery.homes[id(tensor)][1] is not held:
            continue  # an outer graph's
        before = originals.get(tensor.name)
        if before is None or not same_values(before, tensor.values):
            found[tensor.name] = numpy_helper.from_array(tensor.values, tensor.name)
    return found
