"""Tensors whose data is not in the skeleton: in other files, or left in the model file by opening."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from onnxlint import GraphView, OnnxlintError
from onnxlint.rulekit import ElementType, inline_span, small_array, tensor_bytes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from onnxlint import Graph, Location, Node

_WITH_TENSORS = ("Constant", "ConstantOfShape")
"""Operators of ONNX's own domain that hold tensors in attributes (graphs aside)."""


class Stored(NamedTuple):
    """A tensor whose data is not in the skeleton.

    Attributes:
        tensor: The TensorProto, without data.
        graph: The graph that it belongs to.
        node: The node that holds it in an attribute; None for initializers.
        inline: Whether the data lies in the model file itself.
    """

    tensor: onnx.TensorProto
    graph: Graph
    node: Node | None
    inline: bool

    def at(self, view: GraphView) -> Location:
        """Where to report it."""
        if self.node is not None:
            return view.at(self.node)
        return view.at(value=self.tensor.name, graph=self.graph)

    @property
    def name(self) -> str:
        """The tensor's name or, in attributes, which have none, that of the value that it becomes."""
        return self.tensor.name or (self.node.output() if self.node is not None else "")


def stored_tensors(view: GraphView) -> list[Stored]:
    """Every tensor whose data is not in the skeleton, graph by graph."""
    known: list[Stored] | None = view.memo.get("onnxlint_rules.stored_tensors")
    if known is None:
        known = [
            Stored(tensor, graph, node, inline_span(tensor) is not None)
            for graph in view.graphs
            for tensor, node in _tensors(graph)
            if tensor.data_location == 1
        ]
        for node in view.nodes(*holders(view)):
            for attribute in node.proto.attribute:
                known += [
                    Stored(tensor, node.graph, node, inline_span(tensor) is not None)
                    for tensor in attribute_tensors(attribute)
                    if tensor.data_location == 1
                ]
        view.memo["onnxlint_rules.stored_tensors"] = known
    return known


def read_inline(view: GraphView, tensor: onnx.TensorProto, limit: int) -> npt.NDArray[np.generic] | None:
    """Value of a tensor in the model file itself, where it has at most `limit` bytes; None for others and broken ones.

    For operands that say what an operator does, such as indices or an initial state: weights are not read so.
    """
    array = small_array(tensor)
    size = tensor_bytes(tensor)
    if array is not None or inline_span(tensor) is None or size is None or size > limit:
        return array
    try:
        return view.array(tensor)
    except OnnxlintError:
        return None  # SEC002 and SPC001 say what is wrong with it


def holders(view: GraphView) -> list[str]:
    """Operators in use that may hold tensors in attributes; never empty, so that it can be handed to `nodes`."""
    return [*_WITH_TENSORS, *(op for op in view.ops if "::" in op)]


def attribute_tensors(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    """Tensors of an attribute, the parts of sparse ones included."""
    if attribute.HasField("t"):
        yield attribute.t
    if attribute.HasField("sparse_tensor"):
        yield attribute.sparse_tensor.values
        yield attribute.sparse_tensor.indices
    yield from attribute.tensors
    for sparse in attribute.sparse_tensors:
        yield sparse.values
        yield sparse.indices


def _tensors(graph: Graph) -> Iterator[tuple[onnx.TensorProto, None]]:
    proto: Any = graph.proto
    if graph.is_function:
        return
    for tensor in proto.initializer:
        yield tensor, None
    for sparse in proto.sparse_initializer:
        yield sparse.values, None
        yield sparse.indices, None


_KINDS = frozenset(ElementType)


@cache
def type_name(kind: int) -> str:
    """`float16` for a TensorProto.DataType."""
    return ElementType(kind).name.lower() if kind in _KINDS else f"type {kind}"
