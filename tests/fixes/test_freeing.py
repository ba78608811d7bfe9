"""`--dynamic`, operator by operator: a batch that is set free does to each sample what the original does to it alone."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.engine import fix_model
from onnxlint.lint.engine import Plan
from onnxlint.lint.rule import Options, Request
from onnxlint.model.skeleton import Model
from tests.support.fixing import DEFAULT

pytest.importorskip("onnxruntime")
from tests.support import zoo

BATCH = 3
HEAD = '<ir_version: 8, opset_import: ["": 17]> g (float[{sizes}] x) => (float[{out}] y)'


def zeros(name: str, *sizes: int, kind: str = "float", value: str = "0.5") -> str:
    count = int(np.prod(sizes))
    return f"{kind}[{','.join(map(str, sizes))}] {name} = {{{', '.join([value] * count)}}}"


def freed(text: str, shape: str) -> onnx.ModelProto:
    model = Model("m.onnx", onnx.parser.parse_model(text), 0)
    return fix_model(model, Plan(DEFAULT, Options()), Request(dynamic=(shape,)))[0]


SAME: dict[str, tuple[str, str]] = {
    "expand to the same": ("1,4,6", "<int64[3] t = {1, 4, 6}> { y = Expand (x, t) }"),
    "expand a row": ("1,1,6", "<int64[3] t = {1, 4, 6}> { y = Expand (x, t) }"),
    "expand by a longer target": (
        "1,6",
        "<int64[3] t = {4, 1, 6}> { a = Expand (x, t) y = ReduceMax <axes=[0], keepdims=0> (a) }",
    ),
    "slice of another axis": (
        "1,4,6",
        "<int64[1] s = {1}, int64[1] e = {3}, int64[1] a = {1}> { y = Slice (x, s, e, a) }",
    ),
    "slice of all": (
        "1,4,6",
        "<int64[2] s = {0, 0}, int64[2] e = {9223372036854775807, 6}, int64[2] a = {0, 2}> { y = Slice (x, s, e, a) }",
    ),
    "a token in front": ("1,4,6", f"<{zeros('token', 1, 2, 6)}> {{ y = Concat <axis = 1> (token, x) }}"),
    "a constant row": ("1,4,6", f"<{zeros('w', 1, 4, 6)}> {{ y = Add (x, w) }}"),
    "where": ("1,4,6", f"<{zeros('w', 4, 6)}, float z = {{0.1}}> {{ c = Greater (x, z) y = Where (c, x, w) }}"),
    "one row picked": ("1,4,6", "<int64 i = {2}> { y = Gather <axis = 1> (x, i) }"),
    "rows picked": ("1,4,6", "<int64[3] i = {3, 0, 2}> { y = Gather <axis = 1> (x, i) }"),
    "an axis of 1 is taken out": ("1,1,6", "<int64[1] a = {1}> { y = Squeeze (x, a) }"),
    "parts": ("1,4,6", "<int64[2] p = {1, 3}> { a, y = Split <axis = 1> (x, p) }"),
    "product": ("1,4,6", f"<{zeros('w', 6, 5)}> {{ y = MatMul (x, w) }}"),
    "product of both": ("1,4,6", "{ t = Transpose <perm = [0, 2, 1]> (x) y = MatMul (x, t) }"),
    "layer": ("1,6", f"<{zeros('w', 5, 6)}, {zeros('b', 5)}> {{ y = Gemm <transB = 1> (x, w, b) }}"),
    "convolution": ("1,2,5,5", f"<{zeros('w', 3, 2, 3, 3)}> {{ y = Conv <pads = [1, 1, 1, 1]> (x, w) }}"),
    "resize by sizes": (
        "1,2,4,4",
        '<int64[4] s = {1, 2, 8, 8}> { y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", '
        'nearest_mode = "floor"> (x, , , s) }',
    ),
    "reshape to fewer axes": ("1,2,3,4", "<int64[2] t = {1, 24}> { y = Reshape (x, t) }"),
    "reshape that copies": ("1,2,3,4", "<int64[3] t = {0, 0, -1}> { y = Reshape (x, t) }"),
    "recurrent": (
        "1,4,6",
        f"<{zeros('w', 1, 12, 6)}, {zeros('r', 1, 12, 3)}, {zeros('h', 1, 1, 3)}, {zeros('c', 1, 1, 3)}> "
        '{ t = Transpose <perm = [1, 0, 2]> (x) a = LSTM <hidden_size = 3> (t, w, r, "", "", h, c) '
        "y = Transpose <perm = [2, 0, 1, 3]> (a) }",
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_each_sample_of_a_batch_is_computed_as_alone(name: str) -> None:
    sizes, body = SAME[name]
    text = HEAD.format(sizes=sizes, out="") + body
    shape = tuple(map(int, sizes.split(",")))
    x = np.random.default_rng(1).standard_normal((BATCH, *shape[1:])).astype(np.float32)
    free = freed(text, f"x=N,{','.join(sizes.split(',')[1:])}")
    assert free.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    alone = zoo.session(onnx.parser.parse_model(text))
    wanted = np.concatenate([alone.run(None, {"x": x[[i]]})[0] for i in range(BATCH)])
    if wanted.shape[0] != BATCH:  # the batch is the first axis no more
        wanted = wanted.reshape(BATCH, -1)
    (found,) = zoo.session(free).run(None, {"x": x})
    np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=1e-6, atol=1e-6)


REFUSED: dict[str, tuple[str, str, str, str]] = {
    "parts of fixed sizes": (
        "1,4",
        "x=1,W",
        "<int64[2] p = {1, 3}> { a, y = Split <axis = 1> (x, p) }",
        "into parts of fixed",
    ),
    "an axis that goes": (
        "1,4",
        "x=N,4",
        "<int64[1] a = {0}> { y = Squeeze (x, a) }",
        "takes axis 0 out, which is now N",
    ),
    "all axes of 1 go": ("1,4", "x=N,4", "{ y = Squeeze (x) }", "takes axis 0 out, which is now N"),
    "rows by constants": (
        "1,4",
        "x=1,W",
        "<int64[2] i = {0, 3}> { y = Gather <axis = 1> (x, i) }",
        "pick from axis 1, now W",
    ),
    "places by constants": (
        "1,4",
        "x=1,W",
        "<int64[1,2] i = {0, 3}> { y = GatherElements <axis = 1> (x, i) }",
        "its indices are constants, made for the old sizes",
    ),
    "channels": (
        "1,2,5,5",
        "x=1,C,5,5",
        f"<{zeros('w', 3, 2, 3, 3)}> {{ y = Conv (x, w) }}",
        "made for a fixed number of channels, not for C",
    ),
    "a part that stays": (
        "1,4,6",
        "x=1,4,W",
        f"<{zeros('w', 1, 2, 6)}> {{ y = Concat <axis = 1> (x, w) }}",
        "axis 2 is now W, and stays 6 in its part 'w'",
    ),
    "a state for a batch of two": (
        "4,2,6",
        "x=4,N,6",
        f"<{zeros('w', 1, 9, 6)}, {zeros('r', 1, 9, 3)}, {zeros('h', 1, 2, 3)}> "
        '{ y, a = GRU <hidden_size = 3> (x, w, r, "", "", h) }',
        "made for a batch of 2",
    ),
    "no multiple": (
        "1,2,4,4",
        "x=1,2,H,W",
        '<int64[4] s = {1, 2, 6, 6}> { y = Resize <mode = "nearest"> (x, , , s) }',
        "its size 6 is not a whole multiple of 4, nor a part of it",
    ),
    "every second": (
        "1,4,6",
        "x=1,4,W",
        "<int64[1] s = {0}, int64[1] e = {6}, int64[1] a = {2}, int64[1] p = {2}> { y = Slice (x, s, e, a, p) }",
        "it takes every few of axis 2 up to 6",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_size_stands_against_is_named(name: str) -> None:
    sizes, shape, body, says = REFUSED[name]
    with pytest.raises(OnnxlintError, match=re.escape(says)):
        freed(HEAD.format(sizes=sizes, out="") + body, shape)


LSTM = f"""<ir_version: 8, opset_import: ["": 17]>
    g (float[5,2,3] x) => (float[5,1,2,4] y)
    <{zeros("w", 1, 16, 3)}, {zeros("r", 1, 16, 4)}, {zeros("none", 1, 1, 4, value="0")}, int64[3] to = {{1, 2, 4}}> {{
        h = Expand (none, to)
        c = Expand (none, to)
        y = LSTM <hidden_size = 4> (x, w, r, "", "", h, c)
    }}"""


def test_the_way_out_of_an_initial_state_for_one_batch_only() -> None:
    """What torch.onnx.export writes for nn.LSTM: GRF008 leaves the zeros out, and then the batch can be free."""
    with pytest.raises(OnnxlintError, match=r"made for a batch of 2; if it is zero, 'onnxlint fix' without --dynamic"):
        freed(LSTM, "x=5,N,3")
    model = Model("m.onnx", onnx.parser.parse_model(LSTM), 0)
    fixed = fix_model(model, Plan(DEFAULT, Options()), Request())[0]
    free = fix_model(Model("m.onnx", fixed, 0), Plan(DEFAULT, Options()), Request(dynamic=("x=5,N,3",)))[0]
    assert free.graph.input[0].type.tensor_type.shape.dim[1].dim_param == "N"
    assert zoo.session(free).run(None, {"x": np.ones((5, 7, 3), np.float32)})[0].shape == (5, 1, 7, 4)
