"""What the OPS rules share."""

from __future__ import annotations

from onnxlint import GraphView, Node, Options
from onnxlint.rulekit import STANDARD_DOMAINS

EXPERIMENTAL = {
    "Affine": "Mul and Add",
    "ConstantFill": "ConstantOfShape",
    "Crop": "Slice",
    "DynamicSlice": "Slice",
    "GRUUnit": "GRU",
    "GivenTensorFill": "an initializer",
    "ImageScaler": "Mul and Add",
    "ParametricSoftplus": "Softplus and Mul",
    "Scale": "Mul",
    "ScaledTanh": "Mul and Tanh",
}
"""Experimental operators that ONNX had removed by 1.5 → replacement."""


def targets_only(options: Options, *families: str) -> bool:
    """Whether the user named targets, and all are of these families (`onnxruntime` includes `onnxruntime-cuda`)."""
    return bool(options.targets) and all(target.startswith(families) for target in options.targets)


def own_functions(view: GraphView) -> frozenset[str]:
    """Operators that the model itself implements, as `Node.op` names them."""
    return frozenset(
        function.name if function.domain in STANDARD_DOMAINS else f"{function.domain}::{function.name}"
        for function in view.proto.functions
    )


def split_op(op: str) -> tuple[str, str]:
    """(domain, operator type) of a `Node.op`."""
    domain, _, name = op.rpartition("::")
    return domain, name


def first_constant(node: Node, i: int) -> float | int | bool | None:
    """The number in input `i` of a node, if it is a constant with one element."""
    value = node.numbers(i)
    number: float | int | bool | None = value.single if value is not None else None
    return number
