"""Lower a model to an older operator set, where every node means the same there.

Operators that the older set lacks are written out in others first, where `opset_expand` can do that. For each step back,
`SAME` says that a node that is valid in the older version means the same in the newer one. So a node stays as it is where
the older schema takes it: its attributes and their values, its number of inputs, its types. Attributes that are new since
go where they have their default. Inputs that were attributes (axes, the sizes of a Split) go back into these where they
are constant. Everything else is refused, with the node and the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.opset import Conversion
from onnxlint.fixes.opset_body import MISUSED
from onnxlint.fixes.opset_changes import CHANGES, SAME
from onnxlint.graph.schemas import first_opset
from onnxlint.graph.view import STANDARD_DOMAINS
from onnxlint.model.onnx_types import AttributeKind, ElementType
from onnxlint.symbolic.demands import node_label
from onnxlint.symbolic.engine import MISUSE
from onnxlint.text import counted, listed, printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.graph.view import Graph, GraphView, Node

_AXES_BECAME_INPUT = {
    **{f"Reduce{kind}": 18 for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")},
    **dict.fromkeys(("ReduceSum", "Squeeze", "Unsqueeze"), 13),
}
"""Operator → the version from which its axes are an input."""

_ALIKE = frozenset("CastLike GreaterOrEqual LessOrEqual Shape Split TensorScatter Trilu".split())
"""Operators that are exactly the same in older ones; the results of others are rounded, and overflow, in other places."""

LOWEST = 11
"""Before, axes could not be counted from the back, which schemas do not tell."""

_NEW_VALUES = {
    ("ScatterElements", "reduction"): (18, ("max", "min")),
    ("ScatterND", "reduction"): (18, ("max", "min")),
    ("Pad", "mode"): (19, ("wrap",)),
    ("Resize", "coordinate_transformation_mode"): (19, ("half_pixel_symmetric",)),
}
"""(operator, attribute) → the version that brought values of it, and these."""

_TYPES = {
    ElementType.FLOAT: "float",
    ElementType.UINT8: "uint8",
    ElementType.INT8: "int8",
    ElementType.UINT16: "uint16",
    ElementType.INT16: "int16",
    ElementType.INT32: "int32",
    ElementType.INT64: "int64",
    ElementType.STRING: "string",
    ElementType.BOOL: "bool",
    ElementType.FLOAT16: "float16",
    ElementType.DOUBLE: "double",
    ElementType.UINT32: "uint32",
    ElementType.UINT64: "uint64",
    ElementType.COMPLEX64: "complex64",
    ElementType.COMPLEX128: "complex128",
    ElementType.BFLOAT16: "bfloat16",
}
"""Element type → its name in schemas."""


def lower(view: GraphView, version: int, allow_empty: bool = False) -> Conversion:
    """A model at an older version of the standard operator set.

    Args:
        view: The model; it is not changed.
        version: Of the operator set, below the model's, `LOWEST` at least.
        allow_empty: Whether the result has to accept inputs of which a size is 0, as the model does.

    Returns:
        A new skeleton, and which operators were written out in others.

    Raises:
        OnnxlintError: A node cannot be the same there; the message is one line and names it.
    """
    path = printable(view.model.path)
    if version < LOWEST:
        raise OnnxlintError(
            f"{path}: opset {version} is too old: a model can be lowered to {LOWEST} exactly, and no further"
        )
    if view.proto.functions:
        raise OnnxlintError(f"{path}: it defines functions, whose opset cannot be lowered: inline them first")
    view, done = _written_out(view, version, allow_empty)
    proto = _copy(view)
    gone: set[str] = set()
    for graph, message in _graphs(view, proto):
        for node in graph.nodes:
            if node.proto.domain in STANDARD_DOMAINS:
                try:
                    gone |= _lowered(view, node, message.node[node.index], version)
                except MISUSE as error:
                    raise _cannot(view, node, version, MISUSED) from error
        if version < 13 <= view.opset:
            _give_resizes_all_inputs(view, message)
    _drop_constants(proto, gone)
    for entry in proto.opset_import:
        if entry.domain in STANDARD_DOMAINS:
            entry.version = version
    is_exact = done.keys() <= _ALIKE
    names = listed(f"{op} ×{n}" if n > 1 else op for op, n in done.items())
    rounded = "" if is_exact else ", equal up to rounding and overflow"
    notes = (f"wrote {names} in older operators{rounded}",) if done else ()
    is_rounded = version < 19 <= view.opset and "AveragePool" in view.ops
    return Conversion(proto, notes, is_exact and not is_rounded)


def _copy(view: GraphView) -> onnx.ModelProto:
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(view.proto)
    return proto


def _written_out(view: GraphView, version: int, allow_empty: bool) -> tuple[GraphView, Mapping[str, int]]:
    """A model without operators that the older set lacks, as far as they can be written in others; which these were.

    Raises:
        OnnxlintError: Something that has to be known about such a node is not.
    """
    from onnxlint.fixes.opset_expand import expanded
    from onnxlint.symbolic.view import make_view

    proto = _copy(view)
    done, refused = expanded(view, list(_graphs(view, proto)), version)
    for node, why in refused:
        raise _cannot(view, node, version, why)
    if done or allow_empty != view.allow_empty:
        view = make_view(replace(view.model, proto=proto), allow_empty=allow_empty)
    return view, done


def _cannot(view: GraphView, node: Node, version: int, why: str) -> OnnxlintError:
    return OnnxlintError(
        f"{printable(view.model.path)}: {node_label(node)} cannot be lowered to opset {version}: {why}"
    )


def _graphs(view: GraphView, proto: onnx.ModelProto) -> Iterator[tuple[Graph, Any]]:
    """Graphs of the view with their messages in a copy of the model."""
    pending: list[tuple[Graph, Any]] = [(view.main, proto.graph)]
    while pending:
        graph, message = pending.pop()
        yield graph, message
        for child in graph.children:
            assert child.parent_node is not None
            label = child.path.rsplit(".", 1)[1]
            for attribute in message.node[child.parent_node.index].attribute:
                if attribute.type == AttributeKind.GRAPH and attribute.name == label:
                    pending.append((child, attribute.g))
                elif attribute.type == AttributeKind.GRAPHS:
                    pending += [
                        (child, body) for k, body in enumerate(attribute.graphs) if label == f"{attribute.name}[{k}]"
                    ]


def _lowered(view: GraphView, node: Node, message: onnx.NodeProto, version: int) -> set[str]:
    """Make a node one of the older version, in place; names of constants that it no longer reads.

    Raises:
        OnnxlintError: That is not possible.
    """
    from onnx import defs

    op = node.proto.op_type

    def fail(why: str) -> OnnxlintError:
        return _cannot(view, node, version, why)

    try:
        new = defs.get_schema(op, view.opset, "")
    except defs.SchemaError:
        raise fail(f"opset {view.opset} has no such operator") from None
    try:
        old = defs.get_schema(op, version, "")
    except defs.SchemaError:
        raise fail(f"it is new in opset {first_opset(op)}") from None
    if old.deprecated:
        raise fail(f"it is deprecated in opset {version}")
    if old.since_version == new.since_version:
        return set()
    gone: set[str] = set()
    for step in reversed([v for v in CHANGES.get(op, ()) if version < v <= view.opset]):
        if (op, step) in SAME:
            continue
        if _AXES_BECAME_INPUT.get(op) == step:
            gone |= _axes_to_attribute(node, message, fail)
        elif op == "Split" and step == 18:
            if node.attribute("num_outputs", 0) and not node.input(1):
                raise fail("its parts are counted, and were sizes")
        elif op == "Split" and step == 13:
            gone |= _sizes_to_attribute(node, message, fail)
        elif op == "Resize" and step == 13:
            pass  # see _give_resizes_all_inputs
        elif op in _COERCED and step == 13:
            _along_last_axis(node, message, fail)
        elif op == "GridSample" and step == 20:
            _old_interpolation(message)
        elif not _means_the_same(node, step):
            raise fail(f"it changed in opset {step}, and going back is not supported")
    if op == "Reshape" and version < _ALLOWZERO and node.attribute("allowzero", 0):
        _drop_allowzero(view, node, message, fail)
    _drop_defaults(message, old, new)
    for attribute in message.attribute:
        since, values = _NEW_VALUES.get((op, attribute.name), (0, ()))
        if version < since and attribute.s.decode("utf-8", "replace") in values:
            raise fail(f"its {attribute.name} is of opset {since}")
    _require_valid(node, message, old, fail)
    return gone


_ALLOWZERO = 14
"""The version that brought it."""


def _drop_allowzero(view: GraphView, node: Node, message: onnx.NodeProto, fail: Any) -> None:
    """Remove `allowzero` from a Reshape whose target has no 0, as exporters set it everywhere; in place."""
    from onnxlint.symbolic.inference import exact_sizes
    from onnxlint.symbolic.values import Quotient

    exact = exact_sizes(view)
    value = exact.value(node.graph, node.input(1))
    numbers = (None,) if value is None else value.numbers
    if not all(
        number == -1 or (number is not None and not isinstance(number, Quotient) and exact.is_never_empty(number))
        for number in numbers
    ):
        raise fail("its target may hold a 0, which would copy a size without allowzero")
    for k in reversed([k for k, a in enumerate(message.attribute) if a.name == "allowzero"]):
        del message.attribute[k]


def _give_resizes_all_inputs(view: GraphView, graph: Any) -> None:
    """Before opset 13 a Resize needs roi and scales, which are empty where sizes are given; in place."""
    import numpy as np
    from onnx import numpy_helper

    empty = ""
    for node in graph.node:
        if node.op_type != "Resize" or node.domain not in STANDARD_DOMAINS or all(node.input[1:3]):
            continue
        if not empty:
            taken = {name for one in view.graphs for n in one.nodes for name in (*n.inputs, *n.outputs)}
            empty = next(name for i in range(len(taken) + 1) if (name := f"no_scales{i or ''}") not in taken)
            graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), empty))
        for i in (1, 2):
            node.input[i] = node.input[i] or empty


_FLOAT8_E4M3FN, _FLOAT8_E5M2 = 18, 20


def _means_the_same(node: Node, step: int) -> bool:
    """Whether what changed with a version is of no account to this node."""
    if (node.op, step) == ("BatchNormalization", 14):
        return not node.attribute("training_mode", 0)
    if (node.op, step) == ("RoiAlign", 16):
        return bool(node.attribute("coordinate_transformation_mode", "half_pixel") == "output_half_pixel")
    if node.op in ("AveragePool", "MaxPool") and step == 22:
        return not node.attribute("ceil_mode", 0)
    if (node.op, step) == ("Cast", 24):
        return node.attribute("to") not in (_FLOAT8_E4M3FN, _FLOAT8_E5M2)
    # Types are looked at later, and AveragePool sums in another order.
    return (node.op, step) in (("AveragePool", 19), ("Erf", 13), ("MeanVarianceNormalization", 13))


def _drop_defaults(message: onnx.NodeProto, old: onnx.defs.OpSchema, new: onnx.defs.OpSchema) -> None:
    """Remove attributes that the older version lacks, where they have the value that they have unless given; in place."""
    from onnx import helper

    for k in reversed(range(len(message.attribute))):
        attribute = message.attribute[k]
        known = new.attributes.get(attribute.name)
        if attribute.name in old.attributes or known is None or known.default_value.type != attribute.type:
            continue
        if attribute.ref_attr_name:  # the caller of a function decides
            continue
        if helper.get_attribute_value(attribute) == helper.get_attribute_value(known.default_value):
            del message.attribute[k]


def _axes_to_attribute(node: Node, message: onnx.NodeProto, fail: Any) -> set[str]:
    from onnx import helper

    name = message.input[1] if len(message.input) > 1 else ""
    if not name:
        if node.attribute("noop_with_empty_axes", 0):
            raise fail("without axes it does nothing, which older versions cannot express")
        return set()
    axes = node.constant(1)
    if axes is None or (not axes.size and node.proto.op_type != "Unsqueeze"):
        raise fail("its axes are computed, and were an attribute")
    for k in reversed([k for k, a in enumerate(message.attribute) if a.name == "noop_with_empty_axes"]):
        del message.attribute[k]
    del message.input[1:]
    message.attribute.append(helper.make_attribute("axes", [int(axis) for axis in axes.reshape(-1)]))
    return {name}


def _sizes_to_attribute(node: Node, message: onnx.NodeProto, fail: Any) -> set[str]:
    from onnx import helper

    name = message.input[1] if len(message.input) > 1 else ""
    if not name:
        return set()
    sizes = node.constant(1)
    if sizes is None:
        raise fail("its sizes are computed, and were an attribute")
    del message.input[1:]
    message.attribute.append(helper.make_attribute("split", [int(size) for size in sizes.reshape(-1)]))
    return {name}


_COERCED = ("Hardmax", "LogSoftmax", "Softmax")
"""Operators that took all axes from `axis` on for one, before opset 13."""


def _along_last_axis(node: Node, message: onnx.NodeProto, fail: Any) -> None:
    from onnx import helper

    axis, shape = node.attribute("axis", -1), node.shape(0)
    if axis != -1 and (shape is None or axis != len(shape) - 1):
        raise fail("it changed in opset 13 for all axes but the last")
    for k in reversed([k for k, a in enumerate(message.attribute) if a.name == "axis"]):
        del message.attribute[k]
    message.attribute.append(helper.make_attribute("axis", -1))


def _old_interpolation(message: onnx.NodeProto) -> None:
    """Modes have been renamed."""
    for attribute in message.attribute:
        if attribute.name == "mode":
            attribute.s = {b"linear": b"bilinear", b"cubic": b"bicubic"}.get(attribute.s, attribute.s)
    if not any(attribute.name == "mode" for attribute in message.attribute):
        message.attribute.add(name="mode", s=b"bilinear", type=AttributeKind.STRING)


def _require_valid(node: Node, message: onnx.NodeProto, old: onnx.defs.OpSchema, fail: Any) -> None:
    """The older schema takes the node: attributes, number of inputs and outputs, types of inputs.

    Raises:
        OnnxlintError: It does not.
    """
    unknown = [attribute.name for attribute in message.attribute if attribute.name not in old.attributes]
    if unknown:
        raise fail(f"its attribute {printable(unknown[0])!r} came later")
    inputs, outputs = list(message.input), list(message.output)
    while inputs and not inputs[-1]:
        inputs.pop()
    while outputs and not outputs[-1]:
        outputs.pop()
    if not old.min_input <= len(inputs) <= old.max_input:
        raise fail(f"{counted(len(inputs), 'input')} were not allowed")
    if len(outputs) > old.max_output:
        raise fail(f"{counted(len(outputs), 'output')} were not allowed")
    formal = list(old.inputs)
    for i, name in enumerate(inputs):
        parameter = formal[min(i, len(formal) - 1)]
        kind = node.graph.dtype(name) if name else 0
        if not name:
            continue
        if not kind or kind not in _TYPES:
            raise fail(f"the element type of its input {printable(name)!r} is not known")
        if f"tensor({_TYPES[ElementType(kind)]})" not in parameter.types:
            raise fail(f"it did not take {_TYPES[ElementType(kind)]}")
    for name, parameter in zip(outputs, old.outputs, strict=False):
        kind = node.graph.dtype(name) if name else 0
        if kind in _TYPES and f"tensor({_TYPES[ElementType(kind)]})" not in parameter.types:
            raise fail(f"it did not make {_TYPES[ElementType(kind)]}")


def _drop_constants(proto: onnx.ModelProto, names: set[str]) -> None:
    """Remove unused constants of the main graph."""
    read: set[str] = {value.name for value in proto.graph.output}
    pending = [proto.graph]
    while pending:
        graph = pending.pop()
        for node in graph.node:
            read.update(node.input)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)
    unread = names - read
    for k in reversed([k for k, tensor in enumerate(proto.graph.initializer) if tensor.name in unread]):
        del proto.graph.initializer[k]
    for k in reversed([k for k, value in enumerate(proto.graph.input) if value.name in unread]):
        del proto.graph.input[k]
    for k in reversed([k for k, n in enumerate(proto.graph.node) if n.op_type == "Constant" and n.output[0] in unread]):
        del proto.graph.node[k]
