"""What is in an OpenVINO model: its values by name, its layers, and the type of their weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

FLOATS = {"f32": "float32", "f16": "float16", "f64": "float64"}
"""OpenVINO's floating-point types that NumPy has → NumPy's name."""

DTYPES = {**FLOATS, "bf16": "bfloat16", "boolean": "bool", "string": "str"} | {
    f"{short}{bits}": f"{kind}{bits}" for short, kind in (("i", "int"), ("u", "uint")) for bits in (8, 16, 32, 64)
}

INT8 = frozenset(("i8", "u8", "i4", "u4"))

WITH_WEIGHTS = frozenset(
    """Convolution GroupConvolution ConvolutionBackpropData GroupConvolutionBackpropData MatMul LSTMCell GRUCell RNNCell
    LSTMSequence GRUSequence RNNSequence DeformableConvolution Gather""".split()
)
"""Operators whose constant operands are weights."""

_UNSEEN = frozenset(("Constant", "Convert", "FakeQuantize", "Parameter", "Result"))


@dataclass(frozen=True)
class Node:
    """An operator that computes something from the inputs.

    Attributes:
        name: The ONNX node's, where one became this operator.
        type: OpenVINO's name of it.
        inputs, outputs: Values.
        weights: How many numbers its constant operands hold.
        state: `int8`, `fp16` or `fp32`: the type that its weights are stored in; empty: it has none.
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: int = 0
    state: str = ""


def element(output: Any) -> str:
    """The short name of a value's type: `f32`."""
    return str(output.get_element_type().get_type_name())


def port_name(port: Any, owner: Any) -> str:
    """The name of an input or output: that of the ONNX model, where the operator carries it.

    Args:
        port: Of the model.
        owner: Its Parameter or Result.
    """
    names = sorted(port.get_names())
    own = str(owner.get_friendly_name()).removesuffix("/sink_port_0")
    return own if own in names or not names else names[0]


def value_names(model: Any) -> dict[str, Any]:
    """Name → value (an `Output`), in order of computation; the outputs of the model by their own names."""
    found: dict[str, Any] = {}
    outputs: dict[tuple[str, int], str] = {}
    for port, owner in zip(model.outputs, model.get_results(), strict=True):
        source = owner.input_value(0)
        outputs.setdefault((source.get_node().get_name(), source.get_index()), port_name(port, owner))
    for op in model.get_ordered_ops():
        for i, output in enumerate(op.outputs()):
            if op.get_type_name() == "Result":
                continue
            own = str(op.get_friendly_name()) + (f":{i}" if i else "")
            name = outputs.get((op.get_name(), i)) or min(output.get_names(), default=own)
            while name in found:
                name += "'"
            found[name] = output
    return found


def nodes(model: Any) -> tuple[Node, ...]:
    """The operators that do not depend on constants alone, in order of computation."""
    names = {(one.get_node().get_name(), one.get_index()): name for name, one in value_names(model).items()}
    constants = constant_operators(model)
    found = []
    for op in model.get_ordered_ops():
        kind = str(op.get_type_name())
        if kind in ("Parameter", "Result") or op.get_name() in constants:
            continue
        sources = [value.get_source_output() for value in op.inputs()]
        roots = [
            root for one in sources if one.get_node().get_name() in constants for root in _roots(one.get_node(), 0)
        ]
        weighted = kind in WITH_WEIGHTS
        found.append(
            Node(
                str(op.get_friendly_name()).removesuffix("/WithoutBiases"),
                kind,
                tuple(
                    names[one.get_node().get_name(), one.get_index()]
                    for one in sources
                    if one.get_node().get_name() not in constants
                ),
                tuple(names[op.get_name(), i] for i in range(op.get_output_size())),
                sum(math.prod(root.get_output_shape(0)) for root in roots) if weighted else 0,
                _state(roots) if weighted else "",
            )
        )
    return tuple(found)


def seen_values(model: Any) -> Iterator[tuple[str, str]]:
    """(name, operator) of the floating-point values that layers make."""
    constants = constant_operators(model)
    for name, output in value_names(model).items():
        op = output.get_node()
        kind = str(op.get_type_name())
        if kind not in _UNSEEN and op.get_name() not in constants and element(output) in FLOATS:
            yield name, kind


def parameters(model: Any) -> int:
    """How many numbers its weights and biases are: what quantization needs beside them (ranges, scales) does not count."""
    ranges: set[str] = set()
    for op in model.get_ordered_ops():
        kind = op.get_type_name()
        if kind == "FakeQuantize":
            ranges.update(op.input_value(i).get_node().get_name() for i in range(1, 5))
        elif kind in ("Multiply", "Subtract") and op.input_value(0).get_node().get_type_name() == "Convert":
            ranges.update(root.get_name() for root in _roots(op.input_value(1).get_node(), 0))
    kinds = {*FLOATS, *INT8, "bf16"}
    return sum(
        math.prod(op.get_output_shape(0))
        for op in model.get_ordered_ops()
        if op.get_type_name() == "Constant" and element(op.output(0)) in kinds and op.get_name() not in ranges
    )


def constant_operators(model: Any) -> set[str]:
    """Unique names of operators that depend on nothing but constants."""
    found: set[str] = set()
    for op in model.get_ordered_ops():
        sources = [value.get_source_output().get_node().get_name() for value in op.inputs()]
        if op.get_type_name() == "Constant" or (sources and found.issuperset(sources)):
            found.add(op.get_name())
    return found


def _roots(node: Any, depth: int) -> Iterator[Any]:
    """The constants that a constant operand is computed from: scales and zero points are none of them."""
    if node.get_type_name() == "Constant":
        yield node
    elif depth < 16 and node.get_input_size():
        yield from _roots(node.input_value(0).get_node(), depth + 1)


def _state(roots: list[Any]) -> str:
    kinds = {element(root.output(0)) for root in roots}
    if kinds & INT8:
        return "int8"
    if kinds & {"f16", "bf16"}:
        return "fp16"
    return "fp32" if kinds & {"f32", "f64"} else ""
