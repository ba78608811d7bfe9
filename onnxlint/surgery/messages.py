"""ONNX messages from graphsurgeon's nodes and tensors, and fingerprints that show changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from onnxlint.graph.onnx_inference import GRAPH_OPS
from onnxlint.surgery.order import is_graph

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx
    import onnx_graphsurgeon as gs


def node_state(node: gs.Node) -> tuple[Any, ...]:
    """Fingerprint of a node, which shows whether a patch changed it."""
    return (
        node.op,
        node.name,
        node.domain or "",
        (tuple(t.name for t in node.inputs), tuple(t.name for t in node.outputs)),
        tuple((key, attribute_state(value)) for key, value in node.attrs.items()),
    )


def attribute_state(value: Any) -> Any:
    """Something that differs when an attribute's value was changed."""
    if isinstance(value, list):
        return (list, tuple(value))
    if isinstance(value, int | float | str | bytes):
        return (type(value), value if value == value else "nan")
    return (type(value), id(value), None if is_graph(value) else id(getattr(value, "_values", None)))


def same_values(tensor: onnx.TensorProto, values: npt.NDArray[np.generic]) -> bool:
    """Whether a tensor holds these values, to the bit."""
    from onnx import numpy_helper

    before = numpy_helper.to_array(tensor)
    return before.dtype == values.dtype and before.shape == values.shape and before.tobytes() == values.tobytes()


def tensor_state(tensor: gs.Tensor) -> tuple[Any, ...]:
    """Something that differs when a tensor was renamed, retyped or reshaped."""
    if not hasattr(tensor, "type"):
        return (tensor.name, "constant")
    return (tensor.name, str(tensor.dtype), None if tensor.shape is None else tuple(tensor.shape), tensor.type)


def keep(messages: Any, wanted: Any) -> None:
    """Remove the messages of a repeated field that are not wanted, in place."""
    kept = [message for message in messages if wanted(message)]
    if len(kept) < len(messages):
        copies = [type(message).FromString(message.SerializeToString()) for message in kept]
        del messages[:]
        messages.extend(copies)


def value_names(graph: onnx.GraphProto) -> set[str]:
    """Names that a graph defines, those in its subgraphs left out."""
    names = {name for node in graph.node for name in node.output}
    names.update(value.name for value in (*graph.input, *graph.output))
    names.update(tensor.name for tensor in graph.initializer)
    return names


def used_names(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Names that nodes read, those in their bodies included."""
    pending = [nodes]
    while pending:
        for node in pending.pop():
            yield from node.input
            if node.op_type in GRAPH_OPS or node.domain:
                for attribute in node.attribute:
                    for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                        yield from (value.name for value in body.output)
                        pending.append(body.node)


def renamed(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    """A tensor under another name: itself where that is its name, else a copy."""
    import onnx

    if tensor.name == name:
        return tensor
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def write_names(proto: onnx.NodeProto, node: gs.Node) -> None:
    """Write graphsurgeon's names of a node's inputs and outputs into its message."""
    del proto.input[:], proto.output[:]
    proto.input.extend([tensor.name for tensor in node.inputs])
    proto.output.extend([tensor.name for tensor in node.outputs])


def write_attributes(
    proto: onnx.NodeProto, node: gs.Node, before: dict[str, Any], bodies: dict[str, onnx.GraphProto]
) -> None:
    """Update a node's attributes; those not imported into graphsurgeon stay."""
    from onnx import helper, numpy_helper

    gone = [i for i, a in enumerate(proto.attribute) if a.name in before and a.name not in node.attrs]
    for i in reversed(gone):
        del proto.attribute[i]
    places = {attribute.name: i for i, attribute in enumerate(proto.attribute)}
    for key, value in node.attrs.items():
        if key in bodies:
            made = helper.make_attribute(key, bodies[key])
        elif key in before and before[key] == attribute_state(value):
            continue
        elif is_graph(value):
            continue  # an unchanged body
        elif hasattr(value, "_values"):
            made = helper.make_attribute(key, numpy_helper.from_array(value.values, value.name))
        else:
            made = helper.make_attribute(key, value)
        if key in places:
            proto.attribute[places[key]].CopyFrom(made)
        else:
            proto.attribute.append(made)


def value_info_of(tensor: gs.Tensor, original: onnx.ValueInfoProto | None) -> onnx.ValueInfoProto:
    """A graph end that a patch brought or changed; doc strings and denotations of the original stay."""
    import onnx
    from onnx import helper

    value = onnx.ValueInfoProto()
    if original is not None:
        value.CopyFrom(original)
    value.name = tensor.name
    kind = getattr(tensor, "dtype", None)
    if kind is not None:
        shape = getattr(tensor, "shape", None)
        elem = kind if isinstance(kind, int) else helper.np_dtype_to_tensor_dtype(kind)
        made = helper.make_tensor_type_proto(elem, None if shape is None else list(shape))
        value.type.tensor_type.CopyFrom(made.tensor_type)
    return value
