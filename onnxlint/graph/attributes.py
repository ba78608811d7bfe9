"""Values of attributes as Python objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from onnxlint.model.onnx_types import AttributeKind

if TYPE_CHECKING:
    import onnx

_READERS: dict[int, Callable[[onnx.AttributeProto], Any]] = {
    AttributeKind.FLOAT: lambda attribute: attribute.f,
    AttributeKind.INT: lambda attribute: attribute.i,
    AttributeKind.STRING: lambda attribute: attribute.s.decode("utf-8", "replace"),
    AttributeKind.TENSOR: lambda attribute: attribute.t,
    AttributeKind.GRAPH: lambda attribute: attribute.g,
    AttributeKind.FLOATS: lambda attribute: list(attribute.floats),
    AttributeKind.INTS: lambda attribute: list(attribute.ints),
    AttributeKind.STRINGS: lambda attribute: [s.decode("utf-8", "replace") for s in attribute.strings],
    AttributeKind.TENSORS: lambda attribute: list(attribute.tensors),
    AttributeKind.GRAPHS: lambda attribute: list(attribute.graphs),
}


def attribute_value(attribute: onnx.AttributeProto) -> Any:
    """Value of an attribute: int, float, str, TensorProto, GraphProto or a list of them.

    None for other kinds, and in a function where the caller gives it.
    """
    read = _READERS.get(attribute.type)
    return None if read is None or attribute.ref_attr_name else read(attribute)


def first_values(node: onnx.NodeProto) -> dict[str, Any]:
    """Values of a node's attributes by name; of several with one name, the first counts."""
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        read = _READERS.get(attribute.type)
        values[attribute.name] = None if read is None or attribute.ref_attr_name else read(attribute)
    if len(values) < len(node.attribute):
        values = {attribute.name: attribute_value(attribute) for attribute in reversed(list(node.attribute))}
    return values


def all_values(node: onnx.NodeProto, first: dict[str, Any]) -> dict[str, Any]:
    """The values of `first_values`, the caller's own; of several with one name, the last counts."""
    if len(first) < len(node.attribute):
        return {attribute.name: attribute_value(attribute) for attribute in node.attribute}
    return {name: value.copy() if type(value) is list else value for name, value in first.items()}


def chosen(values: dict[str, Any], name: str, default: Any = None) -> Any:
    """Value of an attribute among those of its node.

    `default` where it is absent, given by the caller of a function, or of another type than the default: a model may hold
    anything. A list is the caller's own.
    """
    value = values.get(name)
    if value is None:
        return default
    if default is not None and not isinstance(value, (int, float) if isinstance(default, float) else type(default)):
        return default
    return value.copy() if type(value) is list else value


def nested_graphs(node: onnx.NodeProto) -> list[tuple[str, onnx.GraphProto]]:
    """Graphs in a node's attributes with their labels: the attribute's name, `name[k]` for one of a list."""
    found = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            found.append((attribute.name if not attribute.graphs else f"{attribute.name}[0]", attribute.g))
        else:
            found.extend((f"{attribute.name}[{k}]", graph) for k, graph in enumerate(attribute.graphs))
    return found
