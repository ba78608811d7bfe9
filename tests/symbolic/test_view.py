"""Views that know symbolic shapes."""

from __future__ import annotations

from onnx.parser import parse_model as parse

from onnxlint.graph.dims import is_invented
from onnxlint.graph.view import GraphView
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view

MODEL = """<ir_version: 8, opset_import: ["": 17]> g (float[b, 3, h, w] x) => (y, s) {
    s = Shape(x)
    y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)
}"""


def test_shapes_are_completed_by_symbolic_inference() -> None:
    model = Model("m.onnx", parse(MODEL), 0)
    assert make_view(model).main.shape("y") == ("b", 3, "max(1, floor(h/2))", "max(1, floor(w/2))")
    bare = GraphView(model).main.shape("y")
    assert bare is not None
    assert all(is_invented(dim) for dim in bare[2:])
