"""ScatterND of a block becomes Slice and Concat, bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxlint.fixes.engine import fix_model
from onnxlint.lint.engine import Plan
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Options, Request
from onnxlint.model.skeleton import Model

RULE = load_registry().find("OPS008")


@st.composite
def assignments(draw: st.DrawFn) -> tuple[onnx.ModelProto, bool]:
    """A ScatterND with constant indices, and whether they are a block in order."""
    rank = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    count = draw(st.integers(1, rank))
    ranges = []
    for size in sizes[:count]:
        start = draw(st.integers(0, size - 1))
        ranges.append((start, draw(st.integers(start + 1, size))))
    grid = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in ranges], indexing="ij"), axis=-1).astype(np.int64)
    if draw(st.booleans()):
        grid = grid - np.array(sizes[:count])  # counted from the end
    if draw(st.booleans()):
        grid = grid.reshape(-1, count)
    is_block = True
    rows = grid.reshape(-1, count)
    if len(rows) > 1 and draw(st.booleans()):
        swapped = rows.copy()
        i, j = draw(st.lists(st.integers(0, len(rows) - 1), min_size=2, max_size=2, unique=True))
        swapped[[i, j]] = swapped[[j, i]]
        grid, is_block = swapped.reshape(grid.shape), False
    shape = [*grid.shape[:-1], *sizes[count:]]
    graph = helper.make_graph(
        [helper.make_node("ScatterND", ["x", "i", "u"], ["y"])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (("x", sizes), ("u", shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, sizes)],
        [numpy_helper.from_array(grid, "i")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), is_block


@settings(max_examples=60, deadline=None)
@given(assignments())
def test_a_block_is_cut_and_joined(made: tuple[onnx.ModelProto, bool]) -> None:
    model, is_block = made
    fixed, report = fix_model(Model("m.onnx", model, 0), Plan((RULE,), Options()), Request())
    assert bool(report.applied) == is_block
    assert ("ScatterND" in [node.op_type for node in fixed.graph.node]) != is_block
    generator = np.random.default_rng(0)
    feeds = {
        value.name: generator.standard_normal([d.dim_value for d in value.type.tensor_type.shape.dim]).astype(
            np.float32
        )
        for value in model.graph.input
    }
    (before,), (after,) = ReferenceEvaluator(model).run(None, feeds), ReferenceEvaluator(fixed).run(None, feeds)
    assert np.array_equal(before, after)
