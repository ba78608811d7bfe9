"""Values of attributes."""

import onnx
from onnx import TensorProto, helper

from onnxlint.graph.attributes import attribute_value, nested_graphs

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
    assert attribute_value(onnx.AttributeProto(name="s", type=onnx.AttributeProto.STRING, s=b"\xff")) == "\ufffd"


def test_nested_graphs_have_labels() -> None:
    node = helper.make_node("Loop", [], [], body=GRAPH, others=[GRAPH, GRAPH], count=3)
    assert [label for label, _ in nested_graphs(node)] == ["body", "others[0]", "others[1]"]
