"""Cross-layer equalization of an ONNX model (see backends/channels.py): channels that share a factor, and new weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxlint.backends.channels import FIXED, ChannelClasses, Doubles, Floats, Ids, factors, log_factor
from onnxlint.backends.ort.session import read_by

PASSES = frozenset("Relu LeakyRelu PRelu MaxPool AveragePool GlobalAveragePool GlobalMaxPool Identity Dropout".split())
"""Operators with one data input whose every output channel is a homogeneous function of the same input channel."""

FUSED = frozenset({"Clip", "Relu"})
"""Operators that onnxruntime computes together with the integer convolution before."""

PRODUCT = ":even"
"""End of the names of products by 1; see `loosened`."""

Shapes = Mapping[str, tuple[int, ...]]


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute."""
    return next((int(one.i) for one in node.attribute if one.name == name), default)


def channel_classes(model: onnx.ModelProto, shapes: Shapes) -> dict[str, Ids]:
    """Value → the class of each of its channels (its second axis), −1 where the factor must stay 1.

    Args:
        model: Its main graph.
        shapes: Of its floating-point values, from a run.
    """
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    uses = use_counts(model)
    classes = ChannelClasses()
    ids: dict[str, Ids] = {}

    def fixed(names: Sequence[str]) -> None:
        for name in names:
            if name not in ids and len(shapes.get(name, ())) >= 2:
                ids[name] = classes.new(shapes[name][1])
            if name in ids:
                classes.pin(ids[name])

    fixed([value.name for value in model.graph.input])
    for node in model.graph.node:
        out = node.output[0] if node.output else ""
        count = shapes[out][1] if len(node.output) == 1 and len(shapes.get(out, ())) >= 2 else None
        data = [name for name in node.input if name and name not in constants]
        made = None
        if count is not None and data and data[0] in ids:
            whole = [ids.get(name) for name in data]
            if is_layer(node, constants) and all(uses[name] == 1 for name in node.input[1:] if name):
                made = classes.new(count)
            elif channel_constant(node, constants, shapes):
                made = classes.new(count) if node.op_type in ("Mul", "Div") else whole[0]
            elif node.op_type == "Mul" and len(data) == 2 and len({len(shapes.get(name, ())) for name in data}) == 1:
                made = _gated(whole, count, classes)
            else:
                made = _passed_on(node, whole, count, constants, classes)
        if made is not None:
            ids[out] = made
        else:
            fixed([name for name in read_by(node) if name in ids])
            fixed([name for name in node.output if name])
    fixed([value.name for value in model.graph.output])
    return classes.resolved(ids)


def _passed_on(
    node: onnx.NodeProto, data: Sequence[Ids | None], count: int, constants: Shapes, classes: ChannelClasses
) -> Ids | None:
    """Classes of the output's channels, where each is a homogeneous function of channels of the inputs; else None."""
    whole = [one for one in data if one is not None]
    if len(whole) != len(data):
        return None
    if node.op_type in PASSES or _keeps_channels(node, constants):
        return whole[0] if len(whole) == 1 and len(whole[0]) == count else None
    if len(data) != len(node.input):  # with a constant among them
        return None
    if node.op_type in ("Add", "Sub", "Sum") and all(len(one) == count for one in whole):
        for one in whole[1:]:
            classes.join(whole[0], one)
        return whole[0]
    if node.op_type == "Concat" and attribute(node, "axis", 1) == 1 and sum(map(len, whole)) == count:
        return np.concatenate(whole)
    return None


def _gated(data: Sequence[Ids | None], count: int, classes: ChannelClasses) -> Ids | None:
    """Classes of a product's channels where one factor has to stay as it is: those of the other."""
    for one, other in (data, data[::-1]):
        if one is not None and other is not None and len(one) == count and classes.is_pinned(other):
            return one
    return None


def channel_constant(node: onnx.NodeProto, constants: Shapes, shapes: Shapes) -> str:
    """The constant that a node adds to each channel of a value, or multiplies it with: a number, or one for each channel.
    Empty if it does something else."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.input) != 2 or node.domain not in ("", "ai.onnx"):
        return ""
    left, right = (name in constants for name in node.input)
    if left == right or (left and node.op_type == "Div"):
        return ""
    key, value = node.input if left else reversed(node.input)
    shape, dims = shapes.get(value, ()), constants[key]
    if len(shape) < 2 or len(dims) > len(shape) or shapes.get(node.output[0]) != shape:
        return ""
    wide = (1,) * (len(shape) - len(dims)) + dims
    return key if wide[1] in (1, shape[1]) and all(size == 1 for i, size in enumerate(wide) if i != 1) else ""


def use_counts(model: onnx.ModelProto) -> Counter[str]:
    """How often nodes of the main graph read each value."""
    return Counter(name for node in model.graph.node for name in node.input)


def is_layer(node: onnx.NodeProto, constants: Shapes) -> bool:
    """Whether it is a convolution or a fully connected layer with constant weights (and bias)."""
    if (
        len(node.input) < 2
        or node.input[0] in constants
        or any(name and name not in constants for name in node.input[1:])
    ):
        return False
    rank = len(constants.get(node.input[1], ()))
    if node.op_type == "Conv":
        return rank >= 3
    plain = all(one.name in ("transA", "transB") or one.f == 1.0 for one in node.attribute)
    return node.op_type == "Gemm" and rank == 2 and plain and attribute(node, "transA", 0) == 0


def _is_depthwise(node: onnx.NodeProto, constants: Shapes) -> bool:
    """Whether it is a convolution of each channel by itself, whose weights are nobody else's."""
    return (
        node.op_type == "Conv"
        and is_layer(node, constants)
        and constants[node.input[1]][1] == 1
        and attribute(node, "group", 1) > 1
    )


def loosened(
    model: onnx.ModelProto, shapes: Shapes, rounded: Collection[str]
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A model that computes the same, and its products by 1 → the values that are multiplied.

    A depthwise convolution takes any factor of its input's channels into weights that have a scale each. Where the factors
    of its input have to stay 1, as behind HardSwish or SiLU, the product gives it channels of its own. What onnxruntime
    fuses with the convolution before is left: that would no longer be computed in integers.

    Args:
        model: It is not changed.
        shapes: Of its floating-point values.
        rounded: Names of the nodes whose inputs are rounded.
    """
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    classes, uses = channel_classes(model, shapes), use_counts(model)
    makers = {out: node for node in model.graph.node for out in node.output}
    products: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        source = node.input[0] if node.input else ""
        maker = makers.get(source)
        if (
            maker is not None
            and node.name in rounded
            and _is_depthwise(node, constants)
            and all(uses[name] == 1 for name in node.input[1:] if name)
            and source in classes
            and (classes[source] == FIXED).any()
            and maker.op_type not in FUSED
            and not is_layer(maker, constants)
            and f"{source}{PRODUCT}" not in shapes
        ):
            product = f"{source}{PRODUCT}"
            if product not in products:
                products[product] = source
                nodes.append(helper.make_node("Mul", [source, f"{product}.1"], [product], name=product))
            node = onnx.NodeProto.FromString(node.SerializeToString())
            node.input[0] = product
        nodes.append(node)
    if not products:
        return model, {}
    copy = _with_nodes(model, nodes)
    one = np.array(1, np.float32)
    copy.graph.initializer.extend(numpy_helper.from_array(one, f"{product}.1") for product in products)
    return copy, products


def tightened(model: onnx.ModelProto, products: Mapping[str, str]) -> tuple[onnx.ModelProto, set[str]]:
    """The model without the products that are still by 1, and which these were."""
    left = {node.output[0] for node in model.graph.node if f"{node.output[0]}.1" in node.input} & products.keys()
    if not left:
        return model, left
    copy = _with_nodes(model, [node for node in model.graph.node if node.output[0] not in left])
    for node in copy.graph.node:
        for i, name in enumerate(node.input):
            if name in left:
                node.input[i] = products[name]
    for i in reversed(range(len(copy.graph.initializer))):
        if copy.graph.initializer[i].name.removesuffix(".1") in left:
            del copy.graph.initializer[i]
    return copy, left


def _with_nodes(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """A copy of the model with copies of other nodes."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    copy.graph.node.extend(copies)
    return copy


def _keeps_channels(node: onnx.NodeProto, constants: Shapes) -> bool:
    """A Resize of height and width that needs no values from outside."""
    if node.op_type != "Resize":
        return False
    texts = {one.name: one.s for one in node.attribute if one.s}
    return texts.get("coordinate_transformation_mode") != b"tf_crop_and_resize" and all(
        name in constants for name in node.input[1:] if name
    )


def equalized(
    model: onnx.ModelProto,
    shapes: Shapes,
    peaks: Mapping[str, Floats],
    strength: float = 1.0,
    free: Collection[str] = (),
) -> tuple[onnx.ModelProto, dict[str, Doubles]]:
    """The model with its channels rescaled, and by what its values are divided.

    Args:
        model: It is not changed.
        shapes: Of its floating-point values.
        peaks: Value → largest |x| of each channel, for those that are quantized.
        strength: Exponent of the factors. With 1, all channels fill the range of their tensor; weights that read them are
            as far from each other then as the channels were, and with less both have a part of it.
        free: Values that are wholly equalized: those that cost their readers nothing.
    """
    classes = channel_classes(model, shapes)
    scales = factors(
        classes,
        [
            (name, (1.0 if name in free else strength) * log_factor(peak))
            for name, peak in peaks.items()
            if name in classes and len(classes[name]) == len(peak) and peak.max() > 0
        ],
    )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    uses = use_counts(model)
    for node in copy.graph.node:
        key = channel_constant(node, constants, shapes)
        read = next((name for name in node.input if name not in constants), "")
        source, target = scales.get(read), scales.get(node.output[0] if node.output else "")
        if source is None or target is None:
            continue
        if key:
            _rescale_constant(copy, node, tensors[key], source, target, len(shapes[read]))
        elif is_layer(node, constants) and all(uses[name] == 1 for name in node.input[1:] if name):
            _rescale(node, tensors, source, target)
    read_still = {name for node in copy.graph.node for name in read_by(node)} | {one.name for one in copy.graph.output}
    for i in reversed(range(len(copy.graph.initializer))):
        name = copy.graph.initializer[i].name
        if uses[name] and name not in read_still:
            del copy.graph.initializer[i]
    return copy, scales


def _rescale_constant(
    model: onnx.ModelProto, node: onnx.NodeProto, tensor: onnx.TensorProto, source: Doubles, target: Doubles, rank: int
) -> None:
    """Give a node a constant of its own, where its input was divided by `source` and its output is by `target`."""
    factor = {"Mul": source / target, "Div": target / source}.get(node.op_type, 1 / target)
    if np.array_equal(factor, np.ones_like(factor)):
        return
    old = numpy_helper.to_array(tensor).astype(np.float64).reshape(-1)
    name = f"{tensor.name}:{node.name}"
    new = np.broadcast_to(old * factor, factor.shape).reshape((1, -1) + (1,) * (rank - 2))
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(new, np.float32), name))
    node.input[list(node.input).index(tensor.name)] = name


def _rescale(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto], source: Doubles, target: Doubles) -> None:
    """Rescale the weights and bias of one layer, in place: inputs were divided by `source`, outputs are by `target`."""
    flips = node.op_type == "Gemm" and not attribute(node, "transB", 0)
    weight = numpy_helper.to_array(tensors[node.input[1]]).astype(np.float64)
    rows = weight.T if flips else weight
    groups = attribute(node, "group", 1) if node.op_type == "Conv" else 1
    columns = np.repeat(source.reshape(groups, 1, -1), len(rows) // groups, axis=1).reshape(len(rows), -1)
    rows = (
        rows * columns.reshape(columns.shape + (1,) * (rows.ndim - 2)) / target.reshape((-1,) + (1,) * (rows.ndim - 1))
    )
    new = np.ascontiguousarray(rows.T if flips else rows, np.float32)
    tensors[node.input[1]].CopyFrom(numpy_helper.from_array(new, node.input[1]))
    if len(node.input) > 2 and node.input[2]:
        bias = numpy_helper.to_array(tensors[node.input[2]]).astype(np.float64)
        scaled = (np.broadcast_to(bias, (len(rows),)) / target).astype(np.float32)
        tensors[node.input[2]].CopyFrom(numpy_helper.from_array(scaled, node.input[2]))
