"""Nodes whose sizes are disputed, used against their specification."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import TensorProto, helper

from tests.support import zoo

ODD = [5, -7, 1.5, [float("nan")], "odd", [1.5], ["a"], [], [0], [2**62] * 3, [1] * 70]


@pytest.mark.parametrize("inputs", [["x"], [""], []])
@pytest.mark.parametrize(
    ("op", "attribute", "given"),
    [
        ("MaxPool", "dilations", {"auto_pad": "SAME_UPPER", "kernel_shape": [2]}),
        ("AveragePool", "kernel_shape", {"ceil_mode": 1}),
        ("LpPool", "strides", {"ceil_mode": 1, "kernel_shape": [3]}),
        ("MaxPool", "pads", {"ceil_mode": 1, "kernel_shape": [3]}),
        ("MaxPool", "auto_pad", {"dilations": [2], "kernel_shape": [3]}),
        ("ConvTranspose", "output_shape", {}),
        ("Resize", "axes", {"keep_aspect_ratio_policy": "not_larger"}),
        ("Resize", "keep_aspect_ratio_policy", {"axes": [-1]}),
        ("Einsum", "equation", {}),
    ],
)
def test_attributes_of_other_types_are_no_exception(
    op: str, attribute: str, given: dict[str, Any], inputs: list[str]
) -> None:
    for value in ODD:
        node = helper.make_node(op, inputs, ["y"], **given)
        if value == []:
            node.attribute.add(name=attribute, type=7)
        else:
            node.attribute.append(helper.make_attribute(attribute, value))
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1])
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph([node], "g", [image], [result])
        view = zoo.view(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)]))
        view.main.shape("y")
