"""What OpenVINO computes wrong in int8 models, written in another way.

Both were found on OpenVINO 2026.4.1 (CPU), and what replaces them computes the same everywhere.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np

from onnxlint.backends.openvino.graph import nodes

NEARLY_ZERO = 1e-30
"""A bias that changes no float32 number above 1e-22; one of 0 is removed before int8 is prepared."""

_CONVOLUTIONS = frozenset(("Convolution", "GroupConvolution"))
_EXTREMES = {"ReduceMax": "reduce_max", "ReduceMin": "reduce_min"}


def repair(model: Any) -> None:
    """Rewrite what would be computed wrong.

    Args:
        model: An int8 `openvino.Model`; it is changed.
    """
    opset = importlib.import_module("openvino.opset13")
    _give_biases(model, opset)
    _round_before_extremes(model, opset)


def _give_biases(model: Any, opset: Any) -> None:
    """Add a bias to int8 convolutions that have none, or one of 0, and whose results are read more than once.

    Their integer sums are scaled back by a Multiply. If there is no bias, shapes are dynamic, and one of the readers passes
    the scale on (ReLU, pooling, Transpose), then the Multiply becomes a part of the convolution for all readers and is
    applied a second time behind that one. A bias keeps the two apart.
    """
    quantized = {node.name for node in nodes(model) if node.type in _CONVOLUTIONS and node.state == "int8"}
    for op in model.get_ordered_ops():
        name = str(op.get_friendly_name())
        if op.get_type_name() not in _CONVOLUTIONS or name.removesuffix("/WithoutBiases") not in quantized:
            continue
        readers = list(op.output(0).get_target_inputs())
        if len(readers) == 1:
            _fill_zero_bias(readers[0].get_node(), opset)
            continue
        shape = op.output(0).get_partial_shape()
        channels = op.input_value(1).get_shape()[0] if op.get_type_name() == "Convolution" else shape[1].get_length()
        bias = opset.constant(np.full([1, channels] + [1] * (len(shape) - 2), NEARLY_ZERO, np.float32))
        added = opset.add(op.output(0), bias)
        _take_over(op.output(0), readers, added.output(0))
        added.set_friendly_name(name)
        op.set_friendly_name(f"{name}/WithoutBiases")


def _fill_zero_bias(add: Any, opset: Any) -> None:
    constants = [i for i in range(add.get_input_size()) if add.input_value(i).get_node().get_type_name() == "Constant"]
    if add.get_type_name() != "Add" or len(constants) != 1 or len(add.output(0).get_target_inputs()) < 2:
        return
    bias = add.input_value(constants[0]).get_node().data
    if bias.dtype == np.float32 and not bias.any():
        add.input(constants[0]).replace_source_output(opset.constant(np.full_like(bias, NEARLY_ZERO)).output(0))


def _round_before_extremes(model: Any, opset: Any) -> None:
    """Round values before their maximum or minimum is taken, and not behind: that is the same, but ReduceMax and ReduceMin
    with a FakeQuantize behind them do not give the maximum."""
    for op in model.get_ordered_ops():
        if op.get_type_name() not in _EXTREMES:
            continue
        for reader in list(op.output(0).get_target_inputs()):
            rounds = reader.get_node()
            if rounds.get_type_name() != "FakeQuantize" or reader.get_index() != 0:
                continue
            limits = [rounds.input_value(i) for i in range(1, 5)]
            if any(one.get_partial_shape().is_dynamic or math.prod(one.get_shape()) != 1 for one in limits):
                continue
            scalars = [opset.constant(np.float32(one.get_node().data.item())) for one in limits if _is_constant(one)]
            if len(scalars) < len(limits):
                continue
            earlier = opset.fake_quantize(op.input_value(0), *scalars, rounds.get_attributes()["levels"])
            make = getattr(opset, _EXTREMES[op.get_type_name()])
            reduced = make(earlier, op.input_value(1), op.get_attributes()["keep_dims"])
            _take_over(rounds.output(0), list(rounds.output(0).get_target_inputs()), reduced.output(0))
            reduced.set_friendly_name(str(rounds.get_friendly_name()))


def _is_constant(value: Any) -> bool:
    return bool(value.get_node().get_type_name() == "Constant")


def _take_over(old: Any, readers: list[Any], new: Any) -> None:
    """Let the readers of a value read another one, which has its names from now on."""
    names = old.get_names()
    old.set_names(set())
    for reader in readers:
        reader.replace_source_output(new)
    new.set_names(names)
