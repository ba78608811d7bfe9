"""onnx's own shape inference, on models that it may crash on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from onnxlint.graph.disputed import Place, nested
from onnxlint.model.dim_names import is_placeholder
from onnxlint.model.messages import messages
from onnxlint.model.onnx_types import AttributeKind, ElementType
from onnxlint.model.skeleton import inline_span
from onnxlint.model.wire import LARGE
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx

GRAPH_OPS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators whose attributes hold graphs."""

MAX_EXTERNAL_VECTOR = 2**24
"""Elements that a vector in another file may claim to have: nobody has looked at the file yet."""


_HIDDEN = "onnxlint.hidden"
"""Input that stands for operands that inference must not see."""

_SIZES = "onnxlint.sizes"
"""Input that stands for sizes of results that inference would get wrong."""

_RESHAPE, _EXPAND, _NON_ZERO, _UNIQUE = 5, 8, 9, 11
"""The first opsets that have Reshape with a target that is an input, Expand, NonZero and Unique."""


class OnnxInference(NamedTuple):
    """What `onnx.shape_inference` says about a model.

    Attributes:
        model: The model without its claims, with inferred value_info.
        refused: Whether strict inference refuses it: an operator contradicts its inputs.
        error: Why inference gave up, where it did; one line.
        stopped: Whether it was stopped because it took too much time or memory.
    """

    model: onnx.ModelProto
    refused: bool
    error: str
    stopped: bool = False


def infer(
    proto: onnx.ModelProto, hide: Iterable[tuple[Place, int]] = (), disputed: Iterable[Place] = ()
) -> OnnxInference:
    """Infer shapes in a child process.

    Args:
        proto: The model; it is copied, and declared shapes of computed values are ignored.
        hide: (node, operand) of operands that inference is not to see.
        disputed: Nodes whose first result gets its type, and no sizes.
    """
    from onnxlint.model.native import OutOfLimits, infer_shapes

    bare = without_claims(proto)
    hidden = list(hide)
    for place, operand in hidden:
        nested(bare.graph, place.steps).node[place.node].input[operand] = _HIDDEN
    if hidden:
        bare.graph.input.add(name=_HIDDEN).type.tensor_type.elem_type = ElementType.FLOAT
    _leave_sizes_open(bare, disputed)
    data = bare.SerializeToString()
    refused, error_line = False, ""
    # Strict first: it costs the same, and for models that it accepts it finds the same. What it refuses is malformed.
    for strict, data_prop in ((True, True), (False, True), (False, False)):
        try:
            # Some malformed models crash the library (onnx 1.23): a Split with another number of outputs than it
            # says, an axis out of range.
            inferred = infer_shapes(data, check_type=strict, strict=strict, data_prop=data_prop)
            return OnnxInference(messages().ModelProto.FromString(inferred), refused, error_line)
        except OutOfLimits as error:
            return OnnxInference(bare, refused, f"onnx's shape inference was stopped: {error}", True)
        except RuntimeError as error:
            if strict:
                refused = True  # SPC002 says why
            else:  # invalid models make it raise even when it is not strict
                error_line = printable(" ".join(str(error).split()))[:500]
    return OnnxInference(bare, refused, error_line)


def _leave_sizes_open(bare: onnx.ModelProto, disputed: Iterable[Place]) -> None:
    """Each node becomes an Expand of its input to sizes that nobody knows, in place."""
    opset, places = _opset_of(bare), list(disputed)
    for place in places:
        if place.function is None:
            _expand(nested(bare.graph, place.steps).node[place.node], _SIZES, opset)
    if any(place.function is None for place in places):
        bare.graph.input.add(name=_SIZES).type.tensor_type.elem_type = ElementType.INT64
    # Nodes are put before each in a function: from behind, and first into the innermost graphs.
    in_functions = [place for place in places if place.function is not None]
    for place in sorted(in_functions, key=lambda one: (len(one.steps), one.node), reverse=True):
        function = bare.functions[place.function or 0]
        version = _opset_of(function) or opset
        graph = nested(function, place.steps)
        node, sizes = graph.node[place.node], f"{_SIZES}.{place.node}"
        before = _unknown_sizes(node, sizes, version)
        _expand(node, sizes, version)
        nodes = [type(node).FromString(one.SerializeToString()) for one in graph.node]
        nodes[place.node : place.node] = before
        del graph.node[:]
        graph.node.extend(nodes)


def _opset_of(holder: onnx.ModelProto | onnx.FunctionProto) -> int:
    return next((entry.version for entry in holder.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _unknown_sizes(like: onnx.NodeProto, name: str, opset: int) -> list[onnx.NodeProto]:
    """Nodes that make whole numbers that inference knows nothing of."""
    one, found = type(like)(op_type="Constant", output=[f"{name}.one"]), f"{name}.found"
    value = one.attribute.add(name="value", type=AttributeKind.TENSOR).t
    value.data_type = ElementType.INT64
    value.dims.append(1)
    value.int64_data.append(1)
    if opset >= _UNIQUE:
        return [one, type(like)(op_type="Unique", input=one.output, output=[name])]
    if opset >= _NON_ZERO:
        squeeze = type(like)(op_type="Squeeze", input=[found], output=[name])
        squeeze.attribute.add(name="axes", type=AttributeKind.INTS).ints.append(0)
        return [one, type(like)(op_type="NonZero", input=one.output, output=[found]), squeeze]
    # Only operators on maps are disputed here, whose numbers are not followed.
    cast = type(like)(op_type="Cast", input=like.input[:1], output=[found])
    cast.attribute.add(name="to", type=AttributeKind.INT).i = ElementType.INT64
    return [cast, type(like)(op_type="Reshape", input=[found, found], output=[name])] if opset >= _RESHAPE else []


def _expand(node: onnx.NodeProto, sizes: str, opset: int) -> None:
    if opset < _RESHAPE:
        node.domain = "onnxlint.opaque"
        return
    node.op_type = "Expand" if opset >= _EXPAND else "Reshape"
    node.input[:] = [node.input[0], sizes]
    del node.output[1:], node.attribute[:]


def without_claims(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose declared shapes are gone, but for the inputs' (which are the model's contract)."""
    bare: onnx.ModelProto = messages().ModelProto()
    bare.CopyFrom(proto)
    for function in bare.functions:
        for node in function.node:
            _disarm(node)
    pending = [bare.graph]
    while pending:
        graph = pending.pop()
        for tensor in graph.initializer:
            if len(tensor.dims) == 1:
                _disarm_tensor(tensor)
        # Shapes of optional, sequence and map types stay: inference needs the element type.
        del graph.value_info[:]
        for value in graph.output:
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.ClearField("shape")
        if graph is bare.graph:
            for value in graph.input:
                for dim in value.type.tensor_type.shape.dim:
                    if is_placeholder(dim.dim_param):
                        dim.ClearField("dim_param")  # inference would take two sizes of one such name for equal
        else:
            # A body's sizes may change from one round of a Loop to the next, and its symbols are not the model's.
            for value in graph.input:
                for dim in value.type.tensor_type.shape.dim:
                    dim.Clear()
        for node in graph.node:
            kind = node.op_type
            if kind in _DANGEROUS:
                _disarm(node)
            elif kind in GRAPH_OPS:
                for attribute in node.attribute:
                    if attribute.HasField("g"):
                        pending.append(attribute.g)
                    pending.extend(attribute.graphs)
    return bare


_DANGEROUS = frozenset({"Constant", "TreeEnsemble"})
"""Operators that `_disarm` knows."""


def _disarm(node: onnx.NodeProto) -> None:
    """Take away what makes onnx's inference crash or run for ever (seen in onnx 1.23)."""
    kind = node.op_type
    if kind == "TreeEnsemble":
        node.domain = "onnxlint.opaque"  # it reads the type of its input without asking whether there is one
    elif kind == "Constant":
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _disarm_tensor(attribute.t)


def _disarm_tensor(tensor: onnx.TensorProto) -> None:
    """Empty a vector that claims more elements than it can hold: inference would count them out, one by one."""
    if len(tensor.dims) != 1 or tensor.dims[0] <= LARGE:
        return
    span = inline_span(tensor)
    if span is not None:
        held = 4 * span.length  # the smallest types have four elements in a byte
    elif tensor.data_location == 1:
        held = MAX_EXTERNAL_VECTOR
    else:
        held = max(
            4 * len(tensor.raw_data),
            16 * len(tensor.int32_data),
            len(tensor.float_data),
            len(tensor.int64_data),
            len(tensor.double_data),
            len(tensor.uint64_data),
            len(tensor.string_data),
        )
    if tensor.dims[0] > held:
        kind, name = tensor.data_type, tensor.name
        tensor.Clear()
        tensor.data_type = kind
        tensor.name = name
        tensor.dims.append(0)
