"""What graphsurgeon can import of a model: a copy in which the rest is hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxlint.graph.onnx_inference import GRAPH_OPS

if TYPE_CHECKING:
    import onnx

_PLAIN_ATTRIBUTES = frozenset((1, 2, 3, 4, 5, 6, 7, 8))
"""Attribute types that graphsurgeon holds: FLOAT to STRINGS, GRAPHS and later ones excepted."""

_PLAIN_TENSORS = frozenset(range(1, 17))
"""Element types that graphsurgeon holds: FLOAT to BFLOAT16."""


def importable(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without what graphsurgeon cannot import, and without what it need not see."""
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.functions[:], bare.metadata_props[:]
    pending = [bare.graph]
    while pending:
        graph = pending.pop()
        del graph.value_info[:], graph.quantization_annotation[:], graph.metadata_props[:]
        for tensor in graph.initializer:
            _mask_type(tensor)
        for value in (*graph.input, *graph.output):
            if not value.type.HasField("tensor_type") or not _is_held(value.type.tensor_type.elem_type):
                value.ClearField("type")
        for node in graph.node:
            if node.op_type in GRAPH_OPS or node.domain or node.op_type == "Constant" or len(node.attribute) > 0:
                _mask_attributes(node, pending)
    return bare


def _is_held(kind: int) -> bool:
    return kind in _PLAIN_TENSORS


def _mask_type(tensor: onnx.TensorProto) -> None:
    if not _is_held(tensor.data_type):
        tensor.data_type = 2  # only the name matters: the original is put back


def _mask_attributes(node: onnx.NodeProto, pending: list[onnx.GraphProto]) -> None:
    strange = []
    for i, attribute in enumerate(node.attribute):
        kind = attribute.type
        if kind in (1, 2, 6, 7):
            continue
        if kind == 4:
            _mask_type(attribute.t)
        elif kind == 5:
            pending.append(attribute.g)
        elif kind not in _PLAIN_ATTRIBUTES or not _decodable(attribute):
            strange.append(i)
    for i in reversed(strange):
        del node.attribute[i]


def _decodable(attribute: onnx.AttributeProto) -> bool:
    try:
        attribute.s.decode()
        for text in attribute.strings:
            text.decode()
    except UnicodeDecodeError:
        return False
    return True


class Quiet:
    """graphsurgeon logs to the terminal about constructs that are handled here, so its log is silenced."""

    def __enter__(self) -> None:
        from onnx_graphsurgeon.logger import G_LOGGER

        self._severity = G_LOGGER.severity
        G_LOGGER.severity = G_LOGGER.CRITICAL

    def __exit__(self, *_: object) -> None:
        from onnx_graphsurgeon.logger import G_LOGGER

        G_LOGGER.severity = self._severity
