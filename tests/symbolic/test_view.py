"""Views that know symbolic shapes."""

from __future__ import annotations

import ast
from pathlib import Path

from onnx.parser import parse_model as parse

from onnxlint.graph.dims import is_invented
from onnxlint.graph.view import GraphView
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view

ROOT = Path(__file__).resolve().parents[2]

MODEL = """<ir_version: 8, opset_import: ["": 17]> g (float[b, 3, h, w] x) => (y, s) {
    s = Shape(x)
    y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)
}"""


def test_shapes_are_completed_by_symbolic_inference() -> None:
    model = Model("m.onnx", parse(MODEL), 0)
    assert make_view(model).main.shape("y") == ("b", 3, "floor(h/2)", "floor(w/2)")
    bare = GraphView(model).main.shape("y")
    assert bare is not None
    assert all(is_invented(dim) for dim in bare[2:])


def test_rooms_above_make_their_views_here() -> None:
    """A view that was made otherwise would lose ranks and sizes without a word."""
    makers = [
        path.relative_to(ROOT)
        for folder in ("onnxlint", "rules")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "GraphView"
    ]
    assert makers == [Path("onnxlint/symbolic/view.py")]
