"""Values of attributes."""

from typing import Any

import onnx
from onnx import TensorProto, helper

from onnxlint.graph.attributes import attribute_value, nested_graphs
from onnxlint.graph.dims import _type_of, type_of
from onnxlint.graph.view import GraphView
from onnxlint.model.skeleton import Model

GRAPH = helper.make_graph([], "body", [], [])
TENSOR = helper.make_tensor("t", TensorProto.FLOAT, [1], [1.5])


def test_every_kind() -> None:
    values = {
        "f": 1.5,
        "i": 7,
        "s": "text",
        "t": TENSOR,
        "g": GRAPH,
        "floats": [1.5, 2.5],
        "ints": [1, 2],
        "strings": ["a", "b"],
        "tensors": [TENSOR, TENSOR],
        "graphs": [GRAPH, GRAPH],
    }
    for name, value in values.items():
        assert attribute_value(helper.make_attribute(name, value)) == value
    assert attribute_value(onnx.AttributeProto(name="nothing")) is None
    assert attribute_value(onnx.AttributeProto(name="i", type=onnx.AttributeProto.INT, ref_attr_name="k")) is None
    assert attribute_value(onnx.AttributeProto(name="s", type=onnx.AttributeProto.STRING, s=b"\xff")) == "\ufffd"


def test_nested_graphs_have_labels() -> None:
    node = helper.make_node("Loop", [], [], body=GRAPH, others=[GRAPH, GRAPH], count=3)
    assert [label for label, _ in nested_graphs(node)] == ["body", "others[0]", "others[1]"]


def test_an_attribute_of_another_type_than_its_default_is_absent() -> None:
    values: dict[str, Any] = {"group": [1], "alpha": 2, "axis": 0.5, "mode": 3, "epsilon": "x", "keepdims": 0}
    (node,) = GraphView(
        Model(
            "m.onnx", helper.make_model(helper.make_graph([helper.make_node("Own", [], [], **values)], "g", [], [])), 0
        )
    ).main.nodes
    assert node.attribute("group", 1) == 1
    assert node.attribute("alpha", 1.0) == 2
    assert node.attribute("axis", -1) == -1
    assert node.attribute("mode", "nearest") == "nearest"
    assert node.attribute("epsilon", 1e-5) == 1e-5
    assert node.attribute("keepdims", 1) == 0
    assert node.attribute("group") == [1]


def test_values_are_the_callers_own_and_of_one_name_the_first_or_last_counts() -> None:
    proto = helper.make_node("Own", [], [], pads=[1, 2], alpha=0.5)
    (node,) = GraphView(Model("m.onnx", helper.make_model(helper.make_graph([proto], "g", [], [])), 0)).main.nodes
    node.attribute("pads").append(3)
    node.attributes()["pads"].append(3)
    node.attributes().clear()
    assert node.attribute("pads") == [1, 2]
    assert node.attributes() == {"pads": [1, 2], "alpha": 0.5}
    proto.attribute.append(helper.make_attribute("pads", [5]))
    (node,) = GraphView(Model("m.onnx", helper.make_model(helper.make_graph([proto], "g", [], [])), 0)).main.nodes
    assert node.attribute("pads") == [1, 2]
    assert node.attributes()["pads"] == [5]


def test_types_are_read_from_what_they_say() -> None:
    shapes: list[list[int | str | None] | None] = [None, [], [1, "N", None, 0], ["x" * 300, 4], [-1, 2**40]]
    for shape in shapes:
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        assert type_of(value) == type_of(value) == _type_of(value.type)
    assert type_of(onnx.ValueInfoProto()) == (0, None)
