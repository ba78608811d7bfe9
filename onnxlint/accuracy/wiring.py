"""The layers of a compared model and the values between them: enough of a graph to find a layer's inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnxlint.symbolic.view import make_view

if TYPE_CHECKING:
    import onnx

QUANTIZED = frozenset(
    """ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger MatMulIntegerToFloat DynamicQuantizeMatMul
    QLinearConv QLinearMatMul QGemm""".split()
)
"""ONNX operators that make a layer an 8-bit one."""


@dataclass(frozen=True)
class Layer:
    """A node or layer.

    Attributes:
        name: As `--keep` takes it.
        type: Its operator.
        inputs, outputs: Values.
        is_int8: Whether it computes in, or comes out of, 8 bits.
        weights: How many numbers its constants hold.
        source: The line of PyTorch or the module scope that made it.
        scope: The module scope.
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    is_int8: bool = False
    weights: int = 0
    source: str = ""
    scope: str = ""


@dataclass(frozen=True)
class Wiring:
    """All layers of a model's main graph, in order; `makers` maps each value to its producer."""

    layers: tuple[Layer, ...] = ()
    makers: Mapping[str, Layer] = field(default_factory=dict)

    def segment(self, value: str, known: Collection[str]) -> tuple[list[Layer], set[str]]:
        """The layers that compute a value from known ones, and which of these they read.

        Args:
            value: What is computed; it is not taken for known itself.
            known: Values at which the search stops.
        """
        layers: list[Layer] = []
        border: set[str] = set()
        pending, seen = [value], {value}
        while pending:
            name = pending.pop()
            maker = self.makers.get(name)
            if maker is None:
                continue
            if maker not in layers:
                layers.append(maker)
            for one in maker.inputs:
                if one in known:
                    border.add(one)
                elif one not in seen:
                    seen.add(one)
                    pending.append(one)
        return layers, border


def read_wiring(path: str) -> Wiring:
    """The wiring of an .onnx file, an ncnn .param or an OpenVINO .xml; empty for files of other backends.

    Raises:
        OnnxlintError: It cannot be read.
    """
    if path.lower().endswith(".onnx"):
        layers = _of_onnx(path)
    elif path.lower().endswith(".param"):
        layers = _of_ncnn(path)
    elif path.lower().endswith(".xml"):
        layers = _of_openvino(path)
    else:
        layers = ()
    return Wiring(layers, {name: layer for layer in layers for name in layer.outputs})


def _of_onnx(path: str) -> tuple[Layer, ...]:
    import math

    from onnxlint.model.skeleton import open_model

    view = make_view(open_model(path))
    sizes = {name: math.prod(tensor.dims) for name, tensor in view.main.initializers.items()}
    found = []
    for node in view.main.order:
        proto = node.proto
        lines = view.sources.lines(proto)
        scope = view.sources.scope(proto)
        found.append(
            Layer(
                proto.name or (proto.output[0] if proto.output else ""),
                proto.op_type,
                _read_by(proto),
                tuple(name for name in proto.output if name),
                proto.op_type in QUANTIZED,
                sum(sizes.get(name, 0) for name in proto.input),
                f"{lines[-1].path}:{lines[-1].line}" if lines else scope,
                scope,
            )
        )
    return tuple(found)


def _read_by(node: onnx.NodeProto) -> tuple[str, ...]:
    """What a node reads, the values that its bodies take from around them included."""
    found = dict.fromkeys(name for name in node.input if name)
    for attribute in node.attribute:
        for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            own = {value.name for value in (*body.input, *body.initializer)}
            own.update(name for inner in body.node for name in inner.output)
            found |= dict.fromkeys(name for inner in body.node for name in _read_by(inner) if name not in own)
    return tuple(found)


def _of_openvino(path: str) -> tuple[Layer, ...]:
    from onnxlint.backends.openvino.graph import nodes
    from onnxlint.backends.openvino.runtime import read_ir

    return tuple(
        Layer(node.name, node.type, node.inputs, node.outputs, node.state == "int8", node.weights)
        for node in nodes(read_ir(path))
    )


def _of_ncnn(path: str) -> tuple[Layer, ...]:
    from onnxlint.backends.ncnn.format import load

    return tuple(
        Layer(
            layer.name,
            layer.type,
            layer.bottoms,
            layer.tops,
            layer.type in ("Convolution", "ConvolutionDepthWise", "InnerProduct") and bool(layer.integer(8)),
            sum(blob.data.size for blob in layer.blobs if blob.name == "weight"),
        )
        for layer in load(path).layers
    )
