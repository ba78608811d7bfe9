"""Consecutive nodes of a QDQ model in PyTorch: scales, integers and biases are parameters that gradients reach."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxlint.backends import Array

if TYPE_CHECKING:
    import torch

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"

INTEGERS, SCALES, BIASES = "integers", "scales", "biases"
"""Kinds of parameters: int8 weights, as real numbers that are rounded; changes of scales' logarithms; changes of biases."""

IMAGES = 4
"""Axes of the values that convolutions and pooling take: N, C, H, W."""

Attributes = Mapping[str, Any]
Operator = Callable[[Sequence[Any], Attributes], Any]


@dataclass
class Part:
    """Some nodes as a function of values that others make.

    Attributes:
        nodes: In order; all are `understood`.
        constants: Name → initializer of the model.
        inputs: Values that the nodes read and do not make.
        outputs: Values that they make and that others read, or the model gives.
        levels: Largest integer of a weight.
        parameters: (kind, initializer) → parameter; filled as the nodes are first computed.
    """

    nodes: Sequence[onnx.NodeProto]
    constants: Mapping[str, onnx.TensorProto]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    levels: int = 127
    parameters: dict[tuple[str, str], torch.nn.Parameter] = field(default_factory=dict)
    _tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def __call__(self, values: Sequence[Array]) -> list[torch.Tensor]:
        """The outputs for some inputs."""
        import torch

        known: dict[str, Any] = {
            name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in zip(self.inputs, values, strict=True)
        }
        for node in self.nodes:
            self._compute(node, known)
        return [known[name] for name in self.outputs]

    def _compute(self, node: onnx.NodeProto, known: dict[str, Any]) -> None:
        import torch

        out = node.output[0]
        if node.op_type == QUANTIZE:
            scale, zero, (least, most) = self._scale(node)
            known[out] = torch.clamp(rounded(known[node.input[0]] / scale) + zero, least, most)
        elif node.op_type == DEQUANTIZE and node.input[0] in self.constants:
            scale, zero, _ = self._scale(node)
            weight = self._parameter(INTEGERS, node.input[0], lambda values: values.astype(np.float32))
            known[out] = (torch.clamp(rounded(weight), -self.levels, self.levels) - zero) * self._along(
                scale, node, weight.ndim
            )
        elif node.op_type == DEQUANTIZE:
            scale, zero, _ = self._scale(node)
            known[out] = (known[node.input[0]] - zero) * scale
        else:
            given: list[Any] = [
                known[name] if name in known else self._constant(name) if name else None for name in node.input
            ]
            if node.op_type in LAYERS and len(node.input) > 2 and node.input[2] in self.constants:
                given[2] = given[2] + self._parameter(BIASES, node.input[2], np.zeros_like)
            made = OPERATORS[node.op_type](given, _attributes(node))
            known.update(zip(node.output, made if isinstance(made, tuple) else (made,), strict=True))

    def _scale(self, node: onnx.NodeProto) -> tuple[torch.Tensor, float, tuple[int, int]]:
        """Scale, zero point and least and largest integer of a node that rounds or turns back."""
        import torch

        change = self._parameter(SCALES, node.input[1], np.zeros_like)
        zeros = self._array(node.input[2]) if len(node.input) > 2 else np.zeros(1, np.int8)
        limits = np.iinfo(zeros.dtype)
        return torch.exp(change) * self._constant(node.input[1]), float(zeros.flat[0]), (limits.min, limits.max)

    def _along(self, scale: torch.Tensor, node: onnx.NodeProto, rank: int) -> torch.Tensor:
        if not scale.ndim:
            return scale
        shape = [1] * rank
        shape[_attributes(node).get("axis", 1)] = -1
        return scale.reshape(shape)

    def _parameter(self, kind: str, name: str, start: Callable[[Array], Array]) -> torch.nn.Parameter:
        import torch

        key = kind, name
        if key not in self.parameters:
            self.parameters[key] = torch.nn.Parameter(torch.tensor(start(self._array(name)), dtype=torch.float32))
        return self.parameters[key]

    def _constant(self, name: str) -> torch.Tensor:
        import torch

        if name not in self._tensors:
            self._tensors[name] = torch.tensor(self._array(name))
        return self._tensors[name]

    def _array(self, name: str) -> Array:
        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def changed(self, parameters: Mapping[tuple[str, str], torch.Tensor]) -> dict[str, Array]:
        """Initializers with values that the parameters have learned."""
        found = {}
        for (kind, name), parameter in parameters.items():
            old, new = self._array(name), parameter.detach().numpy()
            if kind == INTEGERS:
                values = np.clip(np.rint(new), -self.levels, self.levels)
            else:
                values = old * np.exp(new) if kind == SCALES else old + new
            found[name] = values.astype(old.dtype).reshape(old.shape)
        return found

    @cached_property
    def layers(self) -> int:
        """Of its nodes, those with int8 weights."""
        return sum(node.op_type == DEQUANTIZE and node.input[0] in self.constants for node in self.nodes)


def rounded(values: torch.Tensor) -> torch.Tensor:
    """Rounded to whole numbers; gradients pass as if they were not (the straight-through estimator)."""
    return (values.round() - values).detach() + values


def understood(node: onnx.NodeProto, ranks: Mapping[str, int]) -> bool:
    """Whether a node can be computed here.

    Args:
        node: Of a QDQ model.
        ranks: Number of axes of initializers, and of weights behind DequantizeLinear.
    """
    given = _attributes(node)
    kind = node.op_type
    pads, sizes = given.get("pads", []), given.get("kernel_shape", [])
    if kind in (QUANTIZE, DEQUANTIZE):
        return all(name in ranks for name in node.input[1:])
    if kind in ("Conv", "ConvTranspose"):
        plain = given.get("auto_pad", b"NOTSET") == b"NOTSET" and ranks.get(node.input[1]) == IMAGES
        if kind == "Conv":
            return plain
        even = pads[: len(pads) // 2] == pads[len(pads) // 2 :]
        return plain and even and not any(given.get("output_padding", [])) and "output_shape" not in given
    if kind in ("AveragePool", "MaxPool"):
        plain = len(sizes) == IMAGES - 2 and given.get("auto_pad", b"NOTSET") == b"NOTSET" and len(node.output) == 1
        even = kind == "MaxPool" or pads[: len(pads) // 2] == pads[len(pads) // 2 :]
        return plain and even and not given.get("ceil_mode") and max(given.get("dilations", [1])) == 1
    if kind == "Gemm":
        return given.get("alpha", 1.0) == given.get("beta", 1.0) == 1 and not given.get("transA")
    if kind == "Resize":
        return given.get("mode") == b"nearest" and len(node.input) > 2 and node.input[2] in ranks
    if kind == "ReduceMean":
        return "axes" in given or (len(node.input) > 1 and node.input[1] in ranks)
    if kind == "Split":
        return "split" in given or (len(node.input) > 1 and node.input[1] in ranks)
    return kind in OPERATORS and (kind != "Transpose" or "perm" in given)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _padded(x: torch.Tensor, given: Attributes, value: float) -> torch.Tensor:
    from torch.nn.functional import pad

    pads = given.get("pads", [])
    return pad(x, (pads[1], pads[3], pads[0], pads[2]), value=value) if any(pads) else x


def _conv(values: Sequence[Any], given: Attributes) -> torch.Tensor:
    from torch.nn.functional import conv2d

    x, weight, *bias = values
    steps = given.get("strides", [1, 1]), 0, given.get("dilations", [1, 1]), given.get("group", 1)
    return conv2d(_padded(x, given, 0.0), weight, bias[0] if bias else None, *steps)


def _conv_transpose(values: Sequence[Any], given: Attributes) -> torch.Tensor:
    from torch.nn.functional import conv_transpose2d

    x, weight, *bias = values
    pads = given.get("pads", [0, 0])[:2]
    return conv_transpose2d(
        x,
        weight,
        bias[0] if bias else None,
        given.get("strides", [1, 1]),
        pads,
        0,
        given.get("group", 1),
        given.get("dilations", [1, 1]),
    )


def _gemm(values: Sequence[Any], given: Attributes) -> torch.Tensor:
    x, weight, *bias = values
    made: torch.Tensor = x @ (weight.T if given.get("transB") else weight)
    return made + bias[0] if bias else made


def _clip(values: Sequence[Any], given: Attributes) -> torch.Tensor:
    import torch

    ends = [*values[1:], None, None][:2]
    least, most = (given.get(name) if end is None else end for name, end in zip(("min", "max"), ends, strict=True))
    x: torch.Tensor = values[0]
    x = x if least is None else torch.maximum(x, torch.as_tensor(least))
    return x if most is None else torch.minimum(x, torch.as_tensor(most))


def _average_pool(values: Sequence[Any], given: Attributes) -> torch.Tensor:
    from torch.nn.functional import avg_pool2d

    counts = bool(given.get("count_include_pad", 0))
    pads = given.get("pads", [0, 0])[:2]
    return avg_pool2d(values[0], given["kernel_shape"], given.get("strides", [1, 1]), pads, count_include_pad=counts)


def _max_pool(values: Sequence[Any], given: Attributes) -> torch.Tensor:
    from torch.nn.functional import max_pool2d

    return max_pool2d(_padded(values[0], given, -math.inf), given["kernel_shape"], given.get("strides", [1, 1]))


def _mean(values: Sequence[Any], given: Attributes) -> torch.Tensor:
    axes = values[1].tolist() if len(values) > 1 else given["axes"]
    made: torch.Tensor = values[0].mean(tuple(axes), keepdim=bool(given.get("keepdims", 1)))
    return made


def _hard_sigmoid(values: Sequence[Any], given: Attributes) -> torch.Tensor:
    made: torch.Tensor = (values[0] * given.get("alpha", 0.2) + given.get("beta", 0.5)).clamp(0, 1)
    return made


def _concat(values: Sequence[Any], given: Attributes) -> torch.Tensor:
    import torch

    return torch.cat(list(values), given["axis"])


def _split(values: Sequence[Any], given: Attributes) -> tuple[torch.Tensor, ...]:
    import torch

    sizes = values[1].tolist() if len(values) > 1 else given["split"]
    return torch.split(values[0], list(sizes), given.get("axis", 0))


def _leaky_relu(values: Sequence[Any], given: Attributes) -> torch.Tensor:
    from torch.nn.functional import leaky_relu

    return leaky_relu(values[0], given.get("alpha", 0.01))


def _nearest(values: Sequence[Any], given: Attributes) -> torch.Tensor:
    from torch.nn.functional import interpolate

    factors = values[2].tolist()[2:]
    return interpolate(values[0], scale_factor=[float(one) for one in factors], mode="nearest")


LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})
"""Operators that may have a bias."""

OPERATORS: Mapping[str, Operator] = {
    "Add": lambda v, _: v[0] + v[1],
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": lambda v, _: v[0] / v[1],
    "Gemm": _gemm,
    "GlobalAveragePool": lambda v, _: v[0].mean(tuple(range(2, v[0].ndim)), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky_relu,
    "MatMul": lambda v, _: v[0] @ v[1],
    "MaxPool": _max_pool,
    "Mul": lambda v, _: v[0] * v[1],
    "Pow": lambda v, _: v[0] ** v[1],
    "ReduceMean": _mean,
    "Relu": lambda v, _: v[0].relu(),
    "Resize": _nearest,
    "Sigmoid": lambda v, _: v[0].sigmoid(),
    "Softmax": lambda v, given: v[0].softmax(given.get("axis", -1)),
    "Split": _split,
    "Sqrt": lambda v, _: v[0].sqrt(),
    "Sub": lambda v, _: v[0] - v[1],
    "Transpose": lambda v, given: v[0].permute(*given["perm"]),
}
"""What nodes compute; a part whose values differ from onnxruntime's is not learned, whatever the reason."""
