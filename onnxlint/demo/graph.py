"""The graph of the demonstration: a small RetinaFace-like detector with every pitfall in it, built without torch.

It is what a TorchScript export of such a network looks like (nodes named as `/fpn/Resize`, outputs that nobody named),
written by hand so that it is small, fast to build and the same bytes every time. `make_model` takes the weights, and makes
the graph with its pitfalls or hand-fixed.

Input `input0` [batch, 3, height, width]: BGR, 0 to 255, minus (104, 117, 123). Outputs: boxes [N, P, 4], classes [N, P, 2]
after Softmax and landmarks [N, P, 10], relative to RetinaFace's priors; P is 2 (H/8 · W/8 + H/16 · W/16 + H/32 · W/32).

Sources: RetinaFace (arXiv:1905.00641), FPN (arXiv:1612.03144), SSH (arXiv:1708.03979).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Form = Literal["original", "safe", "fixed"]
"""With every pitfall; hand-fixed with interface and numbers kept; hand-fixed with the heads in one output."""

Array = npt.NDArray[np.float32]

IR_VERSIONS = {9: 4, 11: 6}
"""By opset, as torch writes them."""

HEADS = {"BboxHead": 4, "ClassHead": 2, "LandmarkHead": 10}
"""Values of an anchor."""

ANCHORS = 2
STEM = 8
"""Channels of the first layers."""

EPSILON = 1e-5
END = 2**63 - 1

# Convolutions whose BatchNormalization is fused, and their strides.
_STRIDES = {
    "/body/stage1/stage1.3": 2,
    "/body/stage1/stage1.6": 2,
    "/body/stage2/stage2.0": 2,
    "/body/stage3/stage3.0": 2,
    "/fpn/output1/output1.0": 1,
    "/fpn/output2/output2.0": 1,
    "/fpn/output3/output3.0": 1,
    "/fpn/merge2/merge2.0": 1,
    "/fpn/merge1/merge1.0": 1,
    "/ssh1/conv3X3": 1,
    "/ssh2/conv3X3": 1,
    "/ssh3/conv3X3": 1,
}
FUSED = tuple(_STRIDES)
SHARED = ("/ssh1/conv3X3", "/ssh2/conv3X3")
"""Two convolutions with one weight."""


def weight_name(scope: str) -> str:
    """The exporter's name for the fused weight of a convolution in FUSED; its bias has the next number."""
    return f"onnx::Conv_{300 + 3 * FUSED.index(scope)}"


def bias_name(scope: str) -> str:
    """The exporter's name for the bias of a convolution in FUSED."""
    return f"onnx::Conv_{301 + 3 * FUSED.index(scope)}"


def parameter_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """The shapes of all parameters by their ONNX names; `width` is the number of channels from the second stage on."""
    shapes: dict[str, tuple[int, ...]] = {"body.stage1.0.weight": (STEM, 3, 3, 3)}
    for kind in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"body.stage1.1.{kind}"] = (STEM,)
    shapes["body.fc.weight"] = (2, width, 1, 1)
    for scope in FUSED:
        inputs = STEM if scope in FUSED[:2] else width
        outputs = STEM if scope == FUSED[0] else width
        size = 1 if "/output" in scope else 3
        shapes[weight_name(scope)] = (outputs, inputs, size, size)
        shapes[bias_name(scope)] = (outputs,)
    for head, values in HEADS.items():
        for level in range(3):
            shapes[f"{head}.{level}.conv1x1.weight"] = (ANCHORS * values, width, 1, 1)
            shapes[f"{head}.{level}.conv1x1.bias"] = (ANCHORS * values,)
    return shapes


@dataclass
class _Graph:
    """Nodes and initializers in the making, named as the TorchScript exporter names them."""

    weights: dict[str, Array]
    opset: int
    pitfalls: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    used: dict[str, Array] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)

    def op(self, scope: str, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node of module `scope` (`/fpn`) and return the name of its output. Inputs in weights become used."""
        base = f"{scope}/{op_type}"
        name = f"{base}_{self.names[base]}" if self.names[base] else base
        self.names[base] += 1
        output = output or f"{name}_output_0"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name, **attributes))
        self.used.update((i, self.weights[i]) for i in inputs if i in self.weights)
        return output

    def constant(self, scope: str, values: int | Sequence[int] | Sequence[float], kind: type = np.int64) -> str:
        """Append a Constant node, as exporters write shapes and indices."""
        return self.op(scope, "Constant", value=numpy_helper.from_array(np.array(values, kind)))

    def conv(self, scope: str, x: str, weight: str, *bias: str, stride: int = 1) -> str:
        """Append a convolution that keeps the size, divided by `stride`."""
        size = self.weights[weight].shape[2]
        return self.op(
            scope,
            "Conv",
            x,
            weight,
            *bias,
            dilations=[1, 1],
            group=1,
            kernel_shape=[size, size],
            pads=[size // 2] * 4,
            strides=[stride, stride],
        )

    def fused(self, scope: str, x: str) -> str:
        """Append a convolution of FUSED. Without pitfalls, a weight seen before is used again."""
        weight = weight_name(scope)
        if not self.pitfalls:
            weight = next((n for n, w in self.used.items() if w is self.weights[weight]), weight)
        return self.conv(scope, x, weight, bias_name(scope), stride=_STRIDES[scope])

    def conv_leaky(self, scope: str, x: str) -> str:
        """Append a convolution of FUSED and the LeakyRelu that comes after its BatchNormalization in the Sequential."""
        stem, index = scope.rsplit(".", 1)
        return self.op(f"{stem}.{int(index) + 2}", "LeakyRelu", self.fused(scope, x), alpha=0.1)

    def slice(self, scope: str, x: str, start: int, end: int) -> str:
        """Append `x[start:end]` of a shape: with attributes before opset 10, with inputs since."""
        if self.opset < 10:
            return self.op(scope, "Slice", x, axes=[0], ends=[end], starts=[start])
        axes, starts, ends = (self.constant(scope, [value]) for value in (0, start, end))
        return self.op(scope, "Slice", x, starts, ends, axes)

    def dim(self, scope: str, x: str, axis: int) -> str:
        """Append `x.size(axis)` as a tensor of one element."""
        shape = self.op(scope, "Shape", x)
        element = self.op(scope, "Gather", shape, self.constant(scope, axis), axis=0)
        return self.op(scope, "Unsqueeze", element, axes=[0])

    def upsample(self, scope: str, x: str, other: str, long: bool) -> str:
        """Append the nearest-neighbour upsampling of `x` to the size of `other`, which is twice that of `x`."""
        if not self.pitfalls:
            return self.resize(scope, x, self.constant(scope, [1, 1, 2, 2], np.float32))
        if long:
            size = self.op(scope, "Concat", self.dim(scope, other, 2), self.dim(scope, other, 3), axis=0)
        else:
            size = self.slice(scope, self.op(scope, "Shape", other), 2, END)
        own = self.op(scope, "Shape", x)
        if self.opset >= 10:
            batch_and_channels = self.slice(scope, own, 0, 2)
            size = self.op(scope, "Cast", size, to=TensorProto.INT64) if long else size
            sizes = self.op(scope, "Concat", batch_and_channels, size, axis=0)
            return self.resize(scope, x, self.constant(scope, [], np.float32), sizes)
        wanted = self.op(scope, "Cast", size, to=TensorProto.FLOAT)
        present = self.op(scope, "Cast", self.slice(scope, own, 2, END), to=TensorProto.FLOAT)
        factors = self.op(scope, "Div", wanted, present)
        return self.resize(
            scope, x, self.op(scope, "Concat", self.constant(scope, [1, 1], np.float32), factors, axis=0)
        )

    def resize(self, scope: str, x: str, scales: str, *sizes: str) -> str:
        """Append Upsample before opset 10, Resize since, as torch writes its mode `nearest`."""
        if self.opset < 10:
            return self.op(scope, "Upsample", x, scales, mode="nearest")
        return self.op(
            scope,
            "Resize",
            x,
            self.constant(scope, [], np.float32),  # roi
            scales,
            *sizes,
            coordinate_transformation_mode="asymmetric",
            cubic_coeff_a=-0.75,
            mode="nearest",
            nearest_mode="floor",
        )

    def head(self, name: str, level: int, x: str) -> str:
        """Append one head: [N, C, H, W] to [N, H·W·2, values]."""
        scope = f"/{name}.{level}"
        values = HEADS[name]
        parameters = [f"{name}.{level}.conv1x1.{kind}" for kind in ("weight", "bias")]
        x = self.op(scope, "Transpose", self.conv(f"{scope}/conv1x1", x, *parameters), perm=[0, 2, 3, 1])
        if not self.pitfalls:
            target = self.constant(scope, [0, -1, values])
        elif (name, level) == ("LandmarkHead", 2):
            target = self.constant(scope, [1, -1, values])
        else:
            batch = self.dim(scope, x, 0)
            rest = [self.constant(scope, [value]) for value in (-1, values)]
            target = self.op(scope, "Concat", batch, *rest, axis=0)
        return self.op(scope, "Reshape", x, target)


def _stem(graph: _Graph, x: str) -> str:
    """Append the first convolution with its BatchNormalization, apart or fused."""
    stage = "body.stage1"
    norm = [f"{stage}.1.{kind}" for kind in ("weight", "bias", "running_mean", "running_var")]
    if graph.pitfalls:
        x = graph.conv("/body/stage1/stage1.0", x, f"{stage}.0.weight", stride=2)
        x = graph.op("/body/stage1/stage1.1", "BatchNormalization", x, *norm, epsilon=EPSILON, momentum=0.9)
    else:
        gain, bias, mean, variance = (graph.weights[name].astype(np.float64) for name in norm)
        gain = gain / np.sqrt(variance + EPSILON)
        kernel = graph.weights[f"{stage}.0.weight"] * gain[:, None, None, None]
        graph.weights["onnx::Conv_297"] = kernel.astype(np.float32)
        graph.weights["onnx::Conv_298"] = (bias - mean * gain).astype(np.float32)
        x = graph.conv("/body/stage1/stage1.0", x, "onnx::Conv_297", "onnx::Conv_298", stride=2)
    return graph.op("/body/stage1/stage1.2", "LeakyRelu", x, alpha=0.1)


def make_model(
    weights: Mapping[str, Array], form: Form = "original", opset: int = 11, producer: str = "onnxlint-demo"
) -> onnx.ModelProto:
    """The detector in one form.

    Args:
        weights: As `parameter_shapes` lists them; those of SHARED are equal.
        form: See `Form`.
        opset: 9 (with Upsample) or 11 (with Resize).
        producer: Name that is written into the model.
    """
    graph = _Graph(dict(weights), opset, form == "original")
    level1 = graph.conv_leaky("/body/stage1/stage1.3", _stem(graph, "input0"))
    level1 = graph.conv_leaky("/body/stage1/stage1.6", level1)
    level2 = graph.conv_leaky("/body/stage2/stage2.0", level1)
    level3 = graph.conv_leaky("/body/stage3/stage3.0", level2)

    level1, level2, level3 = (
        graph.conv_leaky(f"/fpn/output{i}/output{i}.0", x) for i, x in enumerate((level1, level2, level3), 1)
    )
    level2 = graph.op("/fpn", "Add", level2, graph.upsample("/fpn", level3, level2, long=True))
    level2 = graph.conv_leaky("/fpn/merge2/merge2.0", level2)
    level1 = graph.op("/fpn", "Add", level1, graph.upsample("/fpn", level2, level1, long=False))
    level1 = graph.conv_leaky("/fpn/merge1/merge1.0", level1)

    features = []
    for i, x in enumerate((level1, level2, level3), 1):
        x = graph.op(f"/ssh{i}", "Relu", graph.fused(f"/ssh{i}/conv3X3", x))
        if i == 1 and graph.pitfalls:
            x = graph.op("/ssh1/dropout", "Identity", x)
        features.append(x)

    names = {"BboxHead": "output0", "LandmarkHead": "561"} if form != "fixed" else {}
    boxes, logits, landmarks = (
        graph.op("", "Concat", *(graph.head(h, i, x) for i, x in enumerate(features)), output=names.get(h, ""), axis=1)
        for h in HEADS
    )
    if form == "fixed":
        graph.op("", "Concat", boxes, logits, landmarks, output="output0", axis=-1)
        outputs = [_value("output0", ["batch", "priors", 16])]
    else:
        graph.op("", "Softmax", logits, output="562", axis=2)
        made_up = {"output0": "Concat", "562": "Softmax", "561": "Concat"}
        outputs = [_value(name, [f"{op}{name}_dim_{i}" for i in range(3)]) for name, op in made_up.items()]

    inputs = [_value("input0", ["batch", 3, "height", "width"])]
    if graph.pitfalls:
        overridable = "ClassHead.0.conv1x1.bias"
        inputs.append(_value(overridable, graph.weights[overridable].shape))
        graph.used["body.fc.weight"] = graph.weights["body.fc.weight"]
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "main_graph",
            inputs,
            outputs,
            [numpy_helper.from_array(value, name) for name, value in graph.used.items()],
        ),
        producer_name=producer,
        ir_version=IR_VERSIONS[opset],
        opset_imports=[helper.make_opsetid("", opset)],
    )


def _value(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
