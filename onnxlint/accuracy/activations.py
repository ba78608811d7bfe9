"""Find the Softmax, LogSoftmax or Sigmoid at the end of a model, and compute it.

Two models are compared in one form. Where one of them ends in an activation that the other lacks, it is applied to the
other's numbers. Which of them have it is read from their graphs; where these do not tell, their numbers do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxlint.errors import OnnxlintError
from onnxlint.text import counted

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]

ACTIVATIONS = ("Softmax", "Sigmoid", "LogSoftmax")

_NAMES = {**{op: op for op in ACTIVATIONS}, "QLinearSoftmax": "Softmax", "QLinearSigmoid": "Sigmoid"}
"""Operator → the activation that it computes."""

_KEEPS_AXES = frozenset(("Cast", "DequantizeLinear", "Identity", "QuantizeLinear"))
_MOVES = frozenset(("Flatten", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"))

ONE_AXIS = 13
"""Operator set from which Softmax and LogSoftmax compute along one axis; before, along all axes from it on."""

_SLACK = 0.05
"""By how much int8 may miss 0, 1 or a sum of 1."""

_MAX_STEPS = 1000


@dataclass(frozen=True)
class Activation:
    """An operator at a model's end.

    Attributes:
        op: `Softmax`, `Sigmoid` or `LogSoftmax`.
        axis: Its axis; None if a later node moved the axes, so that only the numbers show it.
        to_end: Whether it computes along all axes from `axis` on, as before operator set 13.
    """

    op: str
    axis: int | None = -1
    to_end: bool = False

    def apply(self, x: Array) -> Array:
        """Its values for x, in float64.

        Raises:
            OnnxlintError: x has no such axis.
        """
        x = np.asarray(x, np.float64)
        if self.op == "Sigmoid":
            return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))
        axis = -1 if self.axis is None else self.axis
        if not -x.ndim <= axis < x.ndim:
            has = counted(x.ndim, "axis", "axes")
            raise OnnxlintError(
                f"{self.op} along axis {axis} was dropped by the record, and the output has {has}; fix the original again"
            )
        axes = self._axes(x.ndim)
        shifted = x - x.max(axis=axes, keepdims=True)
        total = np.exp(shifted).sum(axis=axes, keepdims=True)
        return np.asarray(shifted - np.log(total) if self.op == "LogSoftmax" else np.exp(shifted) / total)

    def could_produce(self, x: Array) -> bool:
        """Whether numbers are what it gives: probabilities, or their logarithms."""
        x = np.asarray(x, np.float64)
        if not x.size or not np.isfinite(x).all():
            return True  # nothing can be told
        if self.op == "LogSoftmax":
            return bool(x.max() <= _SLACK) and self._sums_to_one(np.exp(np.minimum(x, 0)))
        is_probability = bool(x.min() >= -_SLACK and x.max() <= 1 + _SLACK)
        return is_probability and (self.op == "Sigmoid" or self._sums_to_one(x))

    def along(self, x: Array) -> Activation:
        """With the axis along which the numbers x, which it made, sum to one; counted from the back."""
        if self.axis is not None or self.op == "Sigmoid":
            axis = self.axis
            is_positive = axis is not None and axis >= 0
            return Activation(self.op, axis - x.ndim if axis is not None and is_positive else axis, self.to_end)
        tried = (Activation(self.op, axis) for axis in range(-1, -1 - x.ndim, -1))
        return next((one for one in tried if one.could_produce(x)), Activation(self.op))

    def _axes(self, rank: int) -> tuple[int, ...] | int:
        axis = -1 if self.axis is None else self.axis
        return tuple(range(axis % rank, rank)) if self.to_end and rank else axis

    def _sums_to_one(self, x: Array) -> bool:
        if self.axis is None:
            return any(Activation(self.op, axis)._sums_to_one(x) for axis in range(-x.ndim, 0))
        if not -x.ndim <= self.axis < x.ndim:
            return False
        return bool(np.abs(x.sum(axis=self._axes(x.ndim)) - 1).mean() < _SLACK)


@dataclass(frozen=True)
class Seen:
    """Facts about a value, read from its graph.

    Attributes:
        is_known: Whether the graph tells; False if some of the value comes out of an activation, and some does not.
        activation: The activation that computes the whole value; None if there is none.
        is_dropped: Whether the activation is known to have been dropped.
    """

    is_known: bool = False
    activation: Activation | None = None
    is_dropped: bool = False


def seen_at(proto: onnx.ModelProto, output: str, makers: Mapping[str, onnx.NodeProto] | None = None) -> Seen:
    """The activation that an output comes out of, directly or through operators that only move numbers.

    Args:
        proto: The model.
        output: The output.
        makers: Of `makers_in`, for whoever asks about many outputs.
    """
    return _seen(proto, makers_in(proto) if makers is None else makers, output, 0)


def seen_in_parts(
    proto: onnx.ModelProto, output: str, makers: Mapping[str, onnx.NodeProto] | None = None
) -> tuple[Seen, ...]:
    """The same for each operand of the Concat that computes an output; empty without a Concat."""
    makers = makers_in(proto) if makers is None else makers
    node = makers.get(output)
    while node is not None and node.op_type in _KEEPS_AXES and node.input:
        node = makers.get(node.input[0])
    if node is None or node.op_type != "Concat":
        return ()
    return tuple(_seen(proto, makers, name, 0) for name in node.input)


def makers_in(proto: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Value → the node of the main graph that makes it."""
    return {output: node for node in proto.graph.node for output in node.output}


def _seen(proto: onnx.ModelProto, makers: Mapping[str, onnx.NodeProto], name: str, steps: int) -> Seen:
    is_moved = False
    while name in makers and steps < _MAX_STEPS:
        steps += 1
        node = makers[name]
        if node.op_type in _NAMES:
            return Seen(True, _activation(proto, node, is_moved))
        if node.op_type == "Concat":
            return _of_all(_seen(proto, makers, part, steps + 1) for part in node.input)
        if node.op_type not in _KEEPS_AXES and node.op_type not in _MOVES:
            return Seen(True)
        is_moved = is_moved or node.op_type in _MOVES
        name = node.input[0] if node.input else ""
    return Seen(steps < _MAX_STEPS)


def _of_all(parts: Iterable[Seen]) -> Seen:
    """What holds for all parts of a value."""
    found = set(parts)
    if len(found) == 1:
        return found.pop()
    kinds = {(part.is_known, part.activation and part.activation.op) for part in found}
    if len(kinds) > 1 or not next(iter(found)).is_known:
        return Seen()
    op = next(part.activation.op for part in found if part.activation is not None)
    return Seen(True, Activation(op, None))


def _activation(proto: onnx.ModelProto, node: onnx.NodeProto, is_moved: bool) -> Activation:
    op = _NAMES[node.op_type]
    if op == "Sigmoid":
        return Activation(op)
    version = next((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), ONE_AXIS)
    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), None)
    return along_axis(op, None if is_moved else axis, version, is_known=not is_moved)


def along_axis(op: str, axis: int | None, opset: int, is_known: bool = True) -> Activation:
    """An activation with the axis that an operator set gives it; `is_known`: whether the axis is that of the output."""
    if not is_known:
        return Activation(op, None)
    if axis is None:
        axis = -1 if opset >= ONE_AXIS else 1
    return Activation(op, axis, to_end=opset < ONE_AXIS and axis != -1)
