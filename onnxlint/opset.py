"""Raise a model's operator set without changing what it computes.

`onnx.version_converter` does so too, but not always faithfully: Upsample becomes a Resize without a
`coordinate_transformation_mode`, whose default (`half_pixel`) takes other pixels than Upsample did; it drops metadata and
doc strings, and leaves hundreds of shapes behind. Here each operator whose signature or meaning changed has its own
rewrite, exact or refused; the others are known to have only gained types, optional inputs or attributes whose default is
the former behaviour. Everything else in the file stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError, printable
from onnxlint.view import STANDARD_DOMAINS, Graph, GraphView, Node

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

OLDEST = 7
"""Before opset 7, operators broadcast by attributes: such models have to be exported again."""

NEWEST = 21
"""Up to here the changes of every operator have been read."""

_REDUCE = frozenset(
    """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare""".split()
)

COMPATIBLE = frozenset(
    """Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool Bernoulli BitShift Cast CastLike Ceil Celu
    Compress Concat ConcatFromSequence Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum
    DepthToSpace DequantizeLinear Det Div DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor
    GRU Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
    HardSigmoid HardSwish Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less
    LessOrEqual Log Loop LpNormalization LpPool MatMul MatMulInteger Max MaxPool MaxRoiPool MaxUnpool Mean
    MeanVarianceNormalization Min Mod Mul Multinomial Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pow QLinearConv
    QLinearMatMul QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal Relu
    Reshape ReverseSequence Round ScatterElements ScatterND Selu SequenceAt SequenceConstruct SequenceEmpty SequenceErase
    SequenceInsert SequenceLength Shape Shrink Sigmoid Sign Sin Sinh Size Softplus Softsign SpaceToDepth SplitToSequence
    Sqrt StringNormalizer Sub Sum Tan Tanh TfIdfVectorizer ThresholdedRelu Tile Transpose Trilu Unique Where
    Xor""".split()
)
"""Operators whose versions from 7 to 21 accept what the former ones did, and compute the same (ONNX's Changelog.md)."""


class _RefusedError(Exception):
    """A node cannot be converted exactly; the message says why."""


class _Work:
    """One conversion.

    Attributes:
        view: The original.
        version: The operator set to reach.
        new: Constants made for the graph at hand.
    """

    def __init__(self, view: GraphView, version: int) -> None:
        self.view = view
        self.version = version
        self.new: list[onnx.TensorProto] = []
        self._names = {name for graph in view.graphs for node in graph.nodes for name in node.outputs}
        for graph in view.graphs:
            self._names.update(graph.inputs, graph.initializers)

    def name(self, base: str) -> str:
        name, i = base, 0
        while name in self._names:
            i += 1
            name = f"{base}_{i}"
        self._names.add(name)
        return name

    def constant(self, node: Node, what: str, values: npt.NDArray[np.generic]) -> str:
        """Name of a new initializer."""
        from onnx import numpy_helper

        name = self.name(f"{node.name or node.output()}_{what}")
        self.new.append(numpy_helper.from_array(values, name))
        return name


def convert(view: GraphView, version: int) -> onnx.ModelProto:
    """The skeleton of the same model at a newer operator set.

    Args:
        view: The model; its standard operator set is at least `OLDEST`.
        version: The operator set to reach, at most `NEWEST`.

    Raises:
        OnnxlintError: It cannot be done exactly; the message names the node.
    """
    import onnx
    from onnx import helper

    shown = printable(view.model.path)
    if view.opset >= version:
        return view.proto
    if view.opset < OLDEST:
        raise OnnxlintError(f"{shown}: opset {view.opset} is older than {OLDEST}: export the model again")
    if version > NEWEST:
        raise OnnxlintError(f"{shown}: opsets are known up to {NEWEST}; --opset {version} is beyond")
    if view.proto.functions:
        raise OnnxlintError(f"{shown}: it has functions, whose operators cannot be converted: export the model again")
    model = onnx.ModelProto()
    model.CopyFrom(view.proto)
    _convert_graph(_Work(view, version), view.main, model.graph)
    for opset in model.opset_import:
        if opset.domain in STANDARD_DOMAINS:
            opset.version = version
    needed = helper.find_min_ir_version_for([helper.make_opsetid("", version)])
    model.ir_version = max(model.ir_version, needed)
    return model


def _convert_graph(work: _Work, graph: Graph, proto: onnx.GraphProto) -> None:
    import onnx
    from onnx import defs

    outer, work.new = work.new, []
    nodes: list[onnx.NodeProto] = []
    for node, copy in zip(graph.nodes, list(proto.node), strict=True):
        for child in graph.children:
            if child.parent_node is node:
                label = child.path.rsplit(".", 1)[1]
                for attribute in copy.attribute:
                    if attribute.name == label and attribute.HasField("g"):
                        _convert_graph(work, child, attribute.g)
        if "::" in node.op:
            nodes.append(copy)
            continue
        try:
            before = defs.get_schema(node.op, work.view.opset).since_version
            after = defs.get_schema(node.op, work.version)
        except defs.SchemaError:
            before, after = 0, None
        if after is not None and before == after.since_version and node.op not in ("Upsample", "Scatter"):
            nodes.append(copy)
            continue
        handler = _HANDLERS.get(node.op)
        if handler is None and node.op not in COMPATIBLE:
            raise OnnxlintError(
                f"{printable(work.view.model.path)}: {printable(node.op)} at {printable(node.name or node.output())!r} "
                f"changed between opset {work.view.opset} and {work.version}, and no exact conversion is known"
            )
        try:
            nodes += [copy] if handler is None else handler(work, node, copy)
        except _RefusedError as why:
            raise OnnxlintError(
                f"{printable(work.view.model.path)}: {printable(node.op)} at {printable(node.name or node.output())!r} "
                f"cannot be converted to opset {work.version} exactly: {why}"
            ) from None
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.node[:]
    proto.node.extend(kept)
    proto.initializer.extend(work.new)
    work.new = outer


def _take(copy: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value, the attribute itself taken away."""
    from onnx import helper

    for i, attribute in enumerate(copy.attribute):
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            del copy.attribute[i]
            return value
    return default


def _set(copy: onnx.NodeProto, **attributes: Any) -> None:
    from onnx import helper

    for name, value in attributes.items():
        _take(copy, name)
        copy.attribute.append(helper.make_attribute(name, value))


def _whole(values: Any) -> npt.NDArray[np.generic]:
    import numpy as np

    return np.array(values, np.int64)


def _typed(node: Node, value: float) -> npt.NDArray[np.generic]:
    """A scalar of the type of the node's first input."""
    import numpy as np
    from onnx import helper

    kind = node.graph.dtype(node.input(0))
    if not kind:
        raise _RefusedError("the type of its input is not known")
    return np.array(value, helper.tensor_dtype_to_np_dtype(kind))


def _input(copy: onnx.NodeProto, index: int, name: str) -> None:
    while len(copy.input) <= index:
        copy.input.append("")
    copy.input[index] = name


Handler = Callable[[_Work, Node, "onnx.NodeProto"], "list[onnx.NodeProto]"]


def _clip(work: _Work, node: Node, copy: onnx.NodeProto) -> list[onnx.NodeProto]:
    if work.view.opset < 11:
        low, high = _take(copy, "min"), _take(copy, "max")
        if low is not None:
            _input(copy, 1, work.constant(node, "min", _typed(node, low)))
        if high is not None:
            _input(copy, 2, work.constant(node, "max", _typed(node, high)))
    return [copy]


def _pad(work: _Work, node: Node, copy: onnx.NodeProto) -> list[onnx.NodeProto]:
    if work.view.opset < 11:
        pads, value = _take(copy, "pads", []), _take(copy, "value", 0.0)
        _input(copy, 1, work.constant(node, "pads", _whole(pads)))
        if value:
            _input(copy, 2, work.constant(node, "value", _typed(node, value)))
    return [copy]


def _slice(work: _Work, node: Node, copy: onnx.NodeProto) -> list[onnx.NodeProto]:
    if work.view.opset < 10:
        starts, ends, axes = _take(copy, "starts"), _take(copy, "ends"), _take(copy, "axes")
        _input(copy, 1, work.constant(node, "starts", _whole(starts)))
        _input(copy, 2, work.constant(node, "ends", _whole(ends)))
        if axes is not None:
            _input(copy, 3, work.constant(node, "axes", _whole(axes)))
    return [copy]


def _dropout(work: _Work, node: Node, copy: onnx.NodeProto) -> list[onnx.NodeProto]:
    if work.view.opset < 12:
        # Without the input training_mode, Dropout passes its input on whatever the ratio.
        mask = node.output(1)
        if mask and work.view.opset < 10:
            if node.graph.consumers(mask) or node.graph.is_output(mask):
                raise _RefusedError("its mask changed type in opset 10, and something reads it")
            del copy.output[1:]
        _take(copy, "ratio")
    return [copy]


def _top_k(work: _Work, node: Node, copy: onnx.NodeProto) -> list[onnx.NodeProto]:
    if work.view.opset < 10:
        _input(copy, 1, work.constant(node, "k", _whole([_take(copy, "k")])))
    return [copy]


def _axes_to_input(since: int) -> Handler:
    def handler(work: _Work, node: Node, copy: onnx.NodeProto) -> list[onnx.NodeProto]:
        if work.view.opset < since <= work.version:
            axes = _take(copy, "axes")
            if axes is not None:
                _input(copy, 1, work.constant(node, "axes", _whole(axes)))
        return [copy]

    return handler


def _split(work: _Work, node: Node, copy: onnx.NodeProto) -> list[onnx.NodeProto]:
    if work.view.opset < 13:
        parts = _take(copy, "split")
        if parts is not None and work.version >= 13:
            _input(copy, 1, work.constant(node, "split", _whole(parts)))
        elif parts is not None:
            _set(copy, split=parts)
    if work.version >= 18 and not (len(copy.input) > 1 and copy.input[1]):
        _set(copy, num_outputs=len(copy.output))
    return [copy]


def _softmax(work: _Work, node: Node, copy: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Before opset 13 all axes from `axis` on were one; since then it is that one axis."""
    from onnx import helper

    if not work.view.opset < 13 <= work.version:
        return [copy]
    shape = node.shape(0)
    axis = _take(copy, "axis", 1)
    if shape is None:
        raise _RefusedError("the rank of its input is not known")
    axis = axis + len(shape) if axis < 0 else axis
    if axis == len(shape) - 1 or all(dim == 1 for dim in shape[axis + 1 :]):
        _set(copy, axis=axis)
        return [copy]
    flat, result, sizes = (work.name(f"{node.output()}_{what}") for what in ("flat", "softmax", "shape"))
    original = copy.input[0]
    _set(copy, axis=1)
    copy.input[0], copy.output[0] = flat, result
    return [
        helper.make_node("Flatten", [original], [flat], name=f"{node.name}_flatten", axis=axis),
        copy,
        helper.make_node("Shape", [original], [sizes], name=f"{node.name}_shape"),
        helper.make_node("Reshape", [result, sizes], [node.output()], name=f"{node.name}_reshape"),
    ]


def _batch_normalization(work: _Work, node: Node, copy: onnx.NodeProto) -> list[onnx.NodeProto]:
    if work.view.opset < 9 and not _take(copy, "spatial", 1):
        raise _RefusedError("it is not spatial, which opset 9 gave up")
    if work.view.opset < 14 <= work.version and any(node.outputs[1:]):
        raise _RefusedError("it is in training mode")
    return [copy]


def _upsample(work: _Work, node: Node, copy: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Upsample and Resize-10 map pixels as `asymmetric` does, and take the one below (`floor`)."""
    import numpy as np

    if work.version < 10 or (node.op == "Resize" and work.view.opset >= 11):
        return [copy]
    scales = _take(copy, "scales")  # an attribute in opset 7
    operand = work.constant(node, "scales", np.array(scales, np.float32)) if scales is not None else copy.input[1]
    mode = _take(copy, "mode", b"nearest")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    copy.op_type = "Resize"
    del copy.input[1:]
    if work.version == 10:
        copy.input.append(operand)
        _set(copy, mode="linear" if mode in ("linear", "bilinear") else mode)
        return [copy]
    # The region of interest may be left out from opset 13 on.
    roi = "" if work.version >= 13 else work.constant(node, "roi", np.zeros(0, np.float32))
    copy.input.extend([roi, operand])
    _set(copy, mode="linear" if mode in ("linear", "bilinear") else mode, coordinate_transformation_mode="asymmetric")
    if mode == "nearest":
        _set(copy, nearest_mode="floor")
    return [copy]


def _resize(work: _Work, node: Node, copy: onnx.NodeProto) -> list[onnx.NodeProto]:
    if work.view.opset >= 11 and node.attribute("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        raise _RefusedError("tf_half_pixel_for_nn is gone since opset 13")
    return _upsample(work, node, copy)


def _scatter(work: _Work, node: Node, copy: onnx.NodeProto) -> list[onnx.NodeProto]:
    if work.version >= 11:
        copy.op_type = "ScatterElements"
    return [copy]


def _roi_align(work: _Work, node: Node, copy: onnx.NodeProto) -> list[onnx.NodeProto]:
    if work.view.opset < 16 <= work.version:
        _set(copy, coordinate_transformation_mode="output_half_pixel")  # the default became half_pixel
    return [copy]


def _grid_sample(work: _Work, node: Node, copy: onnx.NodeProto) -> list[onnx.NodeProto]:
    if work.view.opset < 20 <= work.version:
        mode = node.attribute("mode", "bilinear")
        _set(copy, mode={"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))
    return [copy]


_HANDLERS: dict[str, Handler] = {
    "BatchNormalization": _batch_normalization,
    "Clip": _clip,
    "Dropout": _dropout,
    "GridSample": _grid_sample,
    "Hardmax": _softmax,
    "LogSoftmax": _softmax,
    "Pad": _pad,
    "Resize": _resize,
    "RoiAlign": _roi_align,
    "Scatter": _scatter,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _axes_to_input(13),
    "TopK": _top_k,
    "Unsqueeze": _axes_to_input(13),
    "Upsample": _upsample,
    **{op: _axes_to_input(13 if op == "ReduceSum" else 18) for op in _REDUCE},
}
