"""Input sizes set free and fixed, and inputs and outputs renamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.engine import fix_model
from onnxlint.fixes.rule_tests import run
from onnxlint.lint.engine import Plan
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Request
from onnxlint.model.skeleton import Model
from tests.support.command import onnxlint


def fix(text: str, **wanted: Any) -> onnx.ModelProto:
    model = Model("example.onnx", onnx.parser.parse_model(text), 0)
    rules = tuple(rule for rule in load_registry() if rule.default and not rule.targets and not rule.needs_weights)
    return fix_model(model, Plan(rules), Request(**wanted))[0]


def shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


HEAD = """
<ir_version: 8, opset_import: ["": 17]>
g (float[1,3,8,8] x) => (float[1,16,3] y)
<int64[3] target = {1, 3, 16}, int64[4] sizes = {1, 3, 4, 4}> {
    small = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , , sizes)
    flat = Reshape (small, target)
    y = Transpose <perm = [0, 2, 1]> (flat)
}
"""


def test_a_static_model_becomes_dynamic() -> None:
    free = fix(HEAD, dynamic=("x=N,3,H,W",))
    assert shape(free.graph.input[0]) == ["N", 3, "H", "W"]
    assert shape(free.graph.output[0]) == ["N", "floor(H/2)*floor(W/2)", 3]
    assert not {"Shape", "Gather"} & {node.op_type for node in free.graph.node}
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(run(onnx.parser.parse_model(HEAD), {"x": x})[0], run(free, {"x": x})[0])
    assert run(free, {"x": np.zeros((2, 3, 6, 10), np.float32)})[0].shape == (2, 15, 3)


def test_a_class_token_is_repeated_for_the_batch() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1,2,3] x) => (float[1,3,3] y) <float[1,1,3] token = {1, 2, 3}> { y = Concat <axis = 1> (token, x) }
    """
    y = run(fix(text, dynamic=("x=N,2,3",)), {"x": np.zeros((4, 2, 3), np.float32)})[0]
    assert y.shape == (4, 3, 3)
    assert (y[:, 0] == [1, 2, 3]).all()


def test_heads_of_an_attention_are_told_from_the_batch() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1,5,8] x) => (float[1,5,8] y)
    <int64[4] apart = {1, 5, 2, 4}, int64[3] merged = {2, 5, 4}, int64[4] again = {1, 2, 5, 4}, int64[3] out = {1, 5, 8}> {
        a = Reshape (x, apart)
        b = Transpose <perm = [0, 2, 1, 3]> (a)
        c = Reshape (b, merged)
        d = Reshape (c, again)
        e = Transpose <perm = [0, 2, 1, 3]> (d)
        y = Reshape (e, out)
    }
    """
    x = np.random.default_rng(0).standard_normal((3, 7, 8)).astype(np.float32)
    np.testing.assert_array_equal(run(fix(text, dynamic=("x=N,5,8",)), {"x": x[:, :5]})[0], x[:, :5])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("<float[1,8] w> { y = Add (x, w) }", "Add y does not allow it: axis 1 is now W, and meets one of 8"),
        ("<int64[1] s = {0}, int64[1] e = {4}, int64[1] a = {1}> { y = Slice (x, s, e, a) }", "cuts axis 1 at 4"),
        ("<float[8,8] w> { y = MatMul (x, w) }", "it sums over W numbers, and its other operand has 8"),
        ("<int64[2] t = {2, 4}> { y = Reshape (x, t) }", "has no constant factor that leaves [2, 4]"),
        (
            "<int64[2] t = {2, 4}> { y = Reshape (x, t) }",
            "--dynamic: axis 1 of 'x' has to stay 8: Reshape y does not allow",
        ),
        (
            '<float[8,1] w> { y = Einsum <equation = "ij,jk->ik"> (x, w) }',
            "only sizes 1 and 8 are accepted: Einsum 'y'",
        ),
        ("<float[1,8] w, float[1] s> { y = LayerNormalization (x, w) }", "cannot be free: only size 8 is accepted"),
    ],
)
def test_what_stands_in_the_way_is_named(body: str, says: str) -> None:
    head, rest = body.split(">", 1)
    for name, dims in (("float[1,8] w", 8), ("float[8,8] w", 64), ("float[8,1] w", 8), ("float[1] s", 1)):
        head = head.replace(name, f"{name} = {{{', '.join(['0'] * dims)}}}")
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[1,8] x) => (float[A,B] y) {head}> {rest}'
    with pytest.raises(OnnxlintError) as caught:
        fix(text, dynamic=("x=1,W",))
    assert says in str(caught.value)


def test_sizes_that_only_fit_together_cannot_be_free() -> None:
    """An image that is cut into 3 × 3 parts by numbers, and one that a Gemm reads as a row."""
    cut = """<ir_version: 8, opset_import: ["": 17]> g (float[1,9,24,20] x) => (y)
    <int64[6] s = {1, 1, 3, 3, 24, 20}> { y = Reshape (x, s) }"""
    together = (
        "axis 2 of 'x' of size 24 and axis 3 of 'x' of size 20 cannot be free together: Reshape y does not allow it"
    )
    with pytest.raises(OnnxlintError, match=together):
        fix(cut, dynamic=("x=?,?,H,W",))
    fix(cut, dynamic=("x=?,?,H,?",))
    rows = f"""<ir_version: 8, opset_import: ["": 17]> g (float[1,1,2,3] x) => (y)
    <float[6,1] w = {{{", ".join("1" * 6)}}}> {{ f = Flatten (x) y = Gemm (f, w) }}"""
    with pytest.raises(OnnxlintError, match=r"axis 2 of 'x' .* it sums over H\*W numbers, and its other operand has 6"):
        fix(rows, dynamic=("x=?,?,H,W",))
    with pytest.raises(OnnxlintError, match=r"--dynamic: axis 2 of 'x' has to stay 2: Gemm y"):
        fix(rows, dynamic=("x=N,?,H,?",))  # a batch that is free is none of that


FREE = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N,3,H,W] x, float[N,2] z) => (float[N,A] y, float[N,2] w)
<int64 zero = {0}, int64[1] axis = {0}, int64[1] rest = {-1}> {
    shape = Shape (x)
    batch = Gather <axis = 0> (shape, zero)
    lead = Unsqueeze (batch, axis)
    target = Concat <axis = 0> (lead, rest)
    y = Reshape (x, target)
    w = Relu (z)
}
"""


def test_the_name_may_be_left_out_for_the_only_input() -> None:
    assert shape(fix(BAKED, static=("2,4,6",)).graph.input[0]) == [2, 4, 6]
    assert shape(fix(BAKED, static=("2,?,?",)).graph.input[0]) == [2, 4, "H"]
    with pytest.raises(OnnxlintError, match="--static '1,3,4,4': write it as --static 'x=1,3,640,640'"):
        fix(FREE, static=("1,3,4,4",))


def test_a_dynamic_model_becomes_static() -> None:
    fixed = fix(FREE, static=("x=1,3,4,4",))
    assert [shape(value) for value in fixed.graph.input] == [[1, 3, 4, 4], [1, 2]]
    assert [shape(value) for value in fixed.graph.output] == [[1, 48], [1, 2]]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"static": ("x=1,3,4",)}, "has 4 axes, and 3 sizes are given"),
        ({"static": ("x=1,4,4,4",)}, "is fixed to 3 already"),
        ({"static": ("q=1",)}, "has no input 'q'"),
        ({"static": ("x=1,3,4,4", "z=2,2")}, "'N' cannot be both 1 and 2"),
        ({"rename": (("q", "r"),)}, "no input or output has that name"),
        ({"rename": (("x", "caf\udce9"),)}, "characters that cannot be printed"),
        ({"rename": (("x", "a\x1b[31m"),)}, "characters that cannot be printed"),
        ({"rename": (("x", "target"),)}, "has a value called 'target' already"),
    ],
)
def test_wrong_requests_are_errors(wanted: dict[str, Any], says: str) -> None:
    with pytest.raises(OnnxlintError) as caught:
        fix(FREE, **wanted)
    assert says in str(caught.value)


def test_ends_are_renamed_inside_branches_too() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N] x, bool c) => (float[N] y) {
        y = If (c) <
            then_branch = yes () => (float[N] a) { a = Relu (x) },
            else_branch = no () => (float[N] x_1) { x_1 = Neg (x) }
        >
    }
    """
    fixed = fix(text, rename=(("x", "image"), ("y", "x")))
    onnx.checker.check_model(fixed)
    feeds = {"image": np.array([-1, 2], np.float32), "c": np.array(True)}
    assert run(fixed, feeds)[0].tolist() == [0, 2]


def test_a_size_that_breaks_an_assumption_is_reported() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17], metadata_props: ["onnxlint.assumes": "H % 32 == 0"]>
    g (float[1,3,H,8] x) => (float[1,3,H,8] y) { y = Relu (x) }
    """
    model = Model("example.onnx", onnx.parser.parse_model(text), 0)
    rules = tuple(rule for rule in load_registry() if rule.code == "SHP011")
    assert not fix_model(model, Plan(rules), Request(static=("x=1,3,64,8",)))[1].left
    (left,) = fix_model(model, Plan(rules), Request(static=("x=1,3,60,8",)))[1].left
    assert left.finding.message == "axis 2 of input 'x' is 60, and the model was fixed under H % 32 == 0"


RANKS = """
<ir_version: 8, opset_import: ["": 17]>
net (float[B,S] x) => (float[B,C] y) {
    axes = Constant <value_ints = [1]> ()
    sizes = Shape <start = 1> (x)
    limit = Constant <value_ints = [4]> ()
    more = Greater (sizes, limit)
    any = Cast <to = 6> (more)
    most = ReduceMax <keepdims = 0> (any)
    flag = Cast <to = 9> (most)
    y = If (flag) <
        then_branch = then () => (float[B,C] a) {
            parts = Constant <value_ints = [4, 4]> ()
            first, second = Split <axis = 1> (x, parts)
            a = Add (first, second)
        },
        else_branch = otherwise () => (float[B,C] b) { b = Identity (x) }
    >
}
"""


def test_sizes_with_which_nothing_loads_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = onnx.parser.parse_model(RANKS)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    options = ("--static", "x=1,6", "--select", "SHP010", "--isolated", "--exit-zero")
    out = onnxlint("fix", tmp_path / "m.onnx", "-o", tmp_path / "f.onnx", *options)
    assert out.code == 2
    assert "the model does not accept these sizes" in out.err
    assert out.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    out = onnxlint("fix", tmp_path / "m.onnx", "-o", tmp_path / "f.onnx", *options[:1], "x=1,8", *options[2:])
    assert out.code == 0, out.err
    assert (tmp_path / "f.onnx").exists()


def test_a_result_that_would_not_load_is_an_error() -> None:
    pytest.importorskip("onnxruntime")
    from onnxlint.fixes.session import _require_loadable

    good = onnx.parser.parse_model(RANKS)
    bad = onnx.parser.parse_model(RANKS)
    bad.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 6
    model = Model("m.onnx", good, 0)
    _require_loadable(model, good, has_sizes=True)
    with pytest.raises(OnnxlintError, match="with the sizes asked for onnxruntime would not load the model"):
        _require_loadable(model, bad, has_sizes=True)
    _require_loadable(Model("m.onnx", bad, 0), bad, has_sizes=False)  # it was no better before


BAKED = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N,4,H] x) => (float[N,2,P] y) <int64[3] target = {0, 2, 12}> { y = Reshape (x, target) }
"""


def test_a_size_that_one_number_alone_satisfies_cannot_be_free() -> None:
    with pytest.raises(OnnxlintError) as caught:
        fix(BAKED, dynamic=("x=N,4,H",))
    assert "axis 2 of 'x' cannot be free: only size 6 is" in str(caught.value)
    assert "Reshape 'y' fixes it" in str(caught.value)
    assert shape(fix(BAKED, dynamic=("x=B,4,?",)).graph.input[0]) == ["B", 4, "H"]


def test_a_model_that_no_input_can_run_is_refused() -> None:
    text = BAKED.replace("float[N,4,H] x", "float[2,4,8] x").replace("{0, 2, 12}", "{2, 2, 12}")
    with pytest.raises(OnnxlintError, match="Reshape 'y' cannot reshape 64 elements to 48; nothing was changed"):
        fix(text)
    text = BAKED.replace("float[N,4,H] x", "float[N,4,8] x").replace("{0, 2, 12}", "{0, 2, 12}")
    with pytest.raises(OnnxlintError, match="no input with elements can run this model: Reshape 'y' cannot reshape 32"):
        fix(text)
    with pytest.raises(OnnxlintError, match="--static: the model does not accept these sizes: Reshape 'y'"):
        fix(BAKED, static=("x=2,4,8",))
    assert shape(fix(BAKED, static=("x=2,4,6",)).graph.input[0]) == [2, 4, 6]


PYRAMID = """
<ir_version: 8, opset_import: ["": 17]>
g (float[1,1,8,8] x) => (float[1,1,8,8] y) <int64[4] sizes = {1, 1, 8, 8}> {
    small = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
    large = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",
        nearest_mode = "floor"> (small, , , sizes)
    y = Add (x, large)
}
"""


def test_what_free_sizes_have_to_satisfy_is_reported_and_recorded() -> None:
    from onnxlint.model.metadata import ASSUMES_KEY, metadata

    model = Model("example.onnx", onnx.parser.parse_model(PYRAMID), 0)
    proto, report = fix_model(model, Plan(()), Request(dynamic=("x=N,1,H,W",)))
    assert report.conditions == ("H % 2 == 0", "W % 2 == 0")
    assert metadata(proto)[ASSUMES_KEY] == "H % 2 == 0 and W % 2 == 0"
