"""What SPC002 says that no run survives fails in onnxruntime, and what it lets pass runs."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.demands import refuse_impossible
from onnxlint.lint.engine import Plan, check_view
from onnxlint.lint.registry import load_registry
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view
from tests.support.old_versions import have

ort = pytest.importorskip("onnxruntime")
if have("onnxruntime") < (1, 32):
    pytest.skip("older versions of onnxruntime refuse other constants", allow_module_level=True)

(SPC002,) = (rule for rule in load_registry() if rule.code == "SPC002")

FLOAT, WHOLE = "float[N,4] x", "int64[N] x"


def parsed(inputs: str, constants: str, nodes: str, opset: int = 17) -> onnx.ModelProto:
    held = f"<{constants}>" if constants else ""
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> g ({inputs}) => (float[] y) {held} {{ {nodes} }}'
    )
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


def says(proto: onnx.ModelProto) -> list[str]:
    findings, _, failures = check_view(make_view(Model("m.onnx", proto, 0)), Plan((SPC002,)))
    assert not failures
    return [finding.message for finding in findings]


def runs(proto: onnx.ModelProto) -> list[int]:
    """Sizes of N at which onnxruntime runs the model, with its optimizations or without."""
    kinds = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_}
    found = []
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 4
        for size in (0, 1, 2, 3, 5):
            feeds: dict[str, Any] = {}
            for value in proto.graph.input:
                shape = [size if dim.dim_param else dim.dim_value for dim in value.type.tensor_type.shape.dim]
                feeds[value.name] = np.ones(shape, kinds[value.type.tensor_type.elem_type])
            with contextlib.suppress(Exception):
                ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds)
                found.append(size)
    return found


REFUSED = [
    (WHOLE, "int64 d = {0}, float[2] v = {0, 1}", "y = OneHot (x, d, v)", 17, "its depth is 0"),
    (WHOLE, "float d = {0.5}, float[2] v = {0, 1}", "y = OneHot (x, d, v)", 17, "its depth is 0.5"),
    ("int64 x", "int64 s = {0}, int64 d = {0}", "r = Range (s, x, d) y = Cast <to = 1> (r)", 17, "its step is 0"),
    (WHOLE, "int64[2] z = {1, 0}", "d = Div (x, z) y = Cast <to = 1> (d)", 17, "divides whole numbers by 0"),
    (WHOLE, "int64 z = {0}", "d = Mod (x, z) y = Cast <to = 1> (d)", 17, "divides whole numbers by 0"),
    (FLOAT, "float[2] s = {1, 0}", 'y = Resize <mode = "nearest"> (x, , s)', 17, "a scale of 0"),
    (FLOAT, "int64[2] s = {2, 0}", 'y = Resize <mode = "nearest"> (x, , , s)', 17, "cannot be resized to 0"),
    (FLOAT, "float[2] s = {1, 0.5}", 'y = Upsample <mode = "nearest"> (x, s)', 9, "a scale of 0.5"),
    (FLOAT, "int64[2] i = {0, 4}", "y = Gather <axis = 1> (x, i)", 17, "index 4 is not one of an axis of 4"),
    (FLOAT, "int32 i = {-5}", "y = Gather <axis = 1> (x, i)", 17, "index -5"),
    (FLOAT, "int64[1,1] i = {4}", "y = GatherElements <axis = 1> (x, i)", 17, "index 4"),
    (FLOAT, "int64[1,2] i = {0, 4}", "y = GatherND (x, i)", 17, "index 4"),
    ("float[2,4] x", "int64[2,1] i = {0, 4}", "y = GatherND <batch_dims = 1> (x, i)", 17, "index 4"),
    (FLOAT, "int64[1,2] i = {0, -5}, float[1] u = {1}", "y = ScatterND (x, i, u)", 17, "index -5"),
    (FLOAT, "int64[1,1] i = {4}, float[1,1] u = {1}", "y = ScatterElements <axis = 1> (x, i, u)", 17, "index 4"),
    (FLOAT, "int64[1,2] i = {0, 1}, float[1,1] u = {1}", "y = ScatterElements (x, i, u)", 17, "sizes 2 and 1"),
    ("float[N,3,2,2] x", "", "y = DepthToSpace <blocksize = 2> (x)", 17, "3 is not a multiple of 4"),
    ("float[N,4,2,3] x", "", "y = SpaceToDepth <blocksize = 2> (x)", 17, "3 is not a multiple of 2"),
    ("float[3,2,N] x", "int64[2] n = {4, 1}", "y = ReverseSequence (x, n)", 17, "a length of 4"),
    ("float[N,3,2,2] x", "", "y = LRN <size = 2> (x)", 17, "odd sizes"),
    ("float[N,1,2] x", "float[1,1,3] w = {1, 1, 1}", "y = Conv (x, w)", 17, "nothing is left of a map of 2"),
    ("float[N,1,2] x", "float[1,1,3] w = {1, 1, 1}", "y = ConvTranspose <pads = [2, 2]> (x, w)", 17, "nothing is left"),
    ("float[N,4,3] x", "float[3,2,1] w = {1, 2, 3, 4, 5, 6}", "y = Conv <group = 2> (x, w)", 17, "to 2 groups"),
    ("float[N,1,2] x", "", "y = MaxPool <kernel_shape = [4]> (x)", 17, "too large for a map of 2"),
    ("float[N,1,2] x", "", "y = AveragePool <kernel_shape = [7], strides = [2]> (x)", 17, "too large for a map of 2"),
    ("float[N,1,4] x", "", "y = MaxPool <kernel_shape = [2], pads = [0, 2]> (x)", 17, "as large as its window"),
    ("float[2,4] x", "int64[4] p = {0, 4, 0, 0}", 'y = Pad <mode = "reflect"> (x, p)', 17, "it mirrors 4 of an axis of 4"),
    ("float[N,2,3] x", "float[2] s = {1, 1}, float[1] b = {1}", "y = InstanceNormalization (x, s, b)", 17, "2 and 1"),
    ("float[N,4,3] x", "float[4] s = {1, 1, 1, 1}", "y = GroupNormalization <num_groups = 3> (x, s, s)", 21, "to 3 groups"),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "constants", "nodes", "opset", "said"), REFUSED, ids=[one[2] for one in REFUSED])
def test_what_no_run_survives_is_an_error(inputs: str, constants: str, nodes: str, opset: int, said: str) -> None:
    proto = parsed(inputs, constants, nodes, opset)
    assert not runs(proto)
    (message,) = says(proto)
    assert said in message
    with pytest.raises(OnnxlintError, match="no input can run this model"):
        refuse_impossible(make_view(Model("m.onnx", proto, 0)))


PASSED = [
    (WHOLE, "float d = {1.5}, float[2] v = {0, 1}", "y = OneHot (x, d, v)", 17),
    (FLOAT, "float z = {0}", "y = Div (x, z)", 17),
    (WHOLE, "int64[0] z = {}", "d = Div (x, z) y = Cast <to = 1> (d)", 17),
    (FLOAT, "int64[2] s = {0, 4}", 'y = Resize <mode = "nearest"> (x, , , s)', 17),
    (FLOAT, "int64[0] i = {}", "y = Gather <axis = 1> (x, i)", 17),
    (FLOAT, "int64[2] i = {3, -4}", "y = Gather <axis = 1> (x, i)", 17),
    (FLOAT, "int64[1] i = {4}", "y = Gather <axis = 0> (x, i)", 17),
    (FLOAT, "int64[0,4] i = {}", "y = GatherElements <axis = 1> (x, i)", 17),
    ("float[2,4] x", "int64[0,2] i = {}", "y = GatherND (x, i)", 17),
    ("float[3,2,N] x", "int64[2] n = {0, 3}", "y = ReverseSequence (x, n)", 17),
    ("float[N,1,2] x", "", "y = MaxPool <kernel_shape = [3]> (x)", 17),
    ("float[N,1,2] x", "", "y = LpPool <kernel_shape = [5], strides = [2]> (x)", 17),
    ("float[N,1,2] x", "float[1,1,5] w = {1, 1, 1, 1, 1}", 'y = Conv <auto_pad = "SAME_UPPER"> (x, w)', 17),
    ("float[N,1,0] x", "float[1,1,2] w = {1, 1}", "y = Conv <pads = [1, 1]> (x, w)", 17),
    (FLOAT, "int64[4] p = {0, 4, 0, 0}", 'y = Pad <mode = "reflect"> (x, p)', 17),
    ("float[2,4] x", "int64[4] p = {0, -2, 0, 1}", 'y = Pad <mode = "reflect"> (x, p)', 17),
    # of what no number is read, runtimes know the shape without running it
    ("float[2,4] x", "int64[1] i = {9}", "g = Gather <axis = 1> (x, i) s = Shape (g) y = Cast <to = 1> (s)", 17),
    ("float[2,4] x", "int64[2] t = {3, 4}", "g = Reshape (x, t) h = Neg (g) s = Shape (h) y = Cast <to = 1> (s)", 17),
    # and what a branch or a loop does not do
    ("float[2,4] x, bool c", "int64[1] i = {9}", """y = If (c) <then_branch = t () => (float[A,B] p) { p = Neg (x) },
        else_branch = e () => (float[C,D] q) { q = Gather <axis = 1> (x, i) }>""", 17),
    ("float[2,4] x", "int64[1] i = {9}, int64 none = {0}, bool c = {1}", """y = Loop (none, c, x) <body = b (int64 k, bool m,
        float[2,4] v) => (bool n, float[A,B] w) { n = Identity (m) w = Gather <axis = 1> (v, i) }>""", 17),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "constants", "nodes", "opset"), PASSED, ids=[one[2][:70] for one in PASSED])
def test_what_runs_is_let_pass(inputs: str, constants: str, nodes: str, opset: int) -> None:
    proto = parsed(inputs, constants, nodes, opset)
    assert runs(proto)
    assert says(proto) == []


def test_what_callers_may_replace_is_no_constant() -> None:
    proto = parsed("float[N,4] x, int64[1] i", "int64[1] j = {9}", "y = Gather <axis = 1> (x, i)")
    proto.graph.initializer[0].name = "i"
    assert says(proto) == []


def test_both_branches_of_an_if_make_it_certain() -> None:
    nodes = """y = If (c) <then_branch = t () => (float[A,B] p) { p = Gather <axis = 1> (x, i) },
        else_branch = e () => (float[C,D] q) { q = Gather <axis = 1> (x, i) }>"""
    proto = parsed("float[2,4] x, bool c", "int64[1] i = {9}", nodes)
    assert not runs(proto)
    assert len(says(proto)) == 1
