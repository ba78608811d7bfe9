"""OPS011 fires where onnxruntime gives another shape than it has, and nowhere else."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxlint.model.skeleton import Model
from onnxlint.symbolic.misread import misread_sizes
from onnxlint.symbolic.view import make_view
from tests.support.old_versions import have

ort = pytest.importorskip("onnxruntime")
if have("onnxruntime") < (1, 32):
    pytest.skip("older versions of onnxruntime infer other sizes", allow_module_level=True)


def is_reported(proto: onnx.ModelProto) -> bool:
    return bool(list(misread_sizes(make_view(Model("m.onnx", proto, 0)))))


def is_misread(inputs: str, constants: str, node: str, *shapes: tuple[int, ...]) -> tuple[bool, bool]:
    """Whether onnxruntime says another shape than it makes, and whether that is reported."""
    held = f"<{constants}>" if constants else ""
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => (float[] y, int64[] said) {held} '
        f"{{ made = {node} y = Neg (made) said = Shape (y) }}"
    )
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options)
    feeds = {one.name: np.ones(shape, np.float32) for one, shape in zip(session.get_inputs(), shapes, strict=True)}
    y, said = session.run(None, feeds)
    return y.shape != tuple(said), is_reported(proto)


@pytest.mark.parametrize(
    ("equation", "first", "second"),
    [
        ("bij,bjk->bik", (1, 2, 3), (5, 3, 4)),
        ("i,i->i", (1,), (3,)),
        ("ij,ij->ij", (1, 3), (2, 1)),
        ("bij,bjk->bik", (5, 2, 3), (5, 3, 4)),
        ("...ij,...jk->...ik", (1, 2, 3), (5, 3, 4)),
        ("ij,jk->ik", (2, 3), (3, 4)),
    ],
)
def test_einsum(equation: str, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    inputs = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in (("a", first), ("b", second)))
    wrong, said = is_misread(inputs, "", f'Einsum <equation = "{equation}"> (a, b)', first, second)
    assert wrong == said


@pytest.mark.parametrize("end", [2**31 - 1, 2**63 - 1, -(2**63) + 1, 1, -3])
def test_slice_backwards(end: int) -> None:
    constants = f"int64[1] s = {{-1}}, int64[1] e = {{{end}}}, int64[1] a = {{1}}, int64[1] t = {{-1}}"
    wrong, said = is_misread("float[2,4] x", constants, "Slice (x, s, e, a, t)", (2, 4))
    assert wrong == said


def test_ceil_mode() -> None:
    reported = 0
    for size, kernel, stride, pad in itertools.product((3, 4, 5, 8), (1, 2, 3), (1, 2, 3), (0, 1)):
        if pad >= kernel:
            continue
        node = f"MaxPool <kernel_shape = [{kernel}], strides = [{stride}], pads = [{pad}, {pad}], ceil_mode = 1> (x)"
        wrong, said = is_misread(f"float[1,1,{size}] x", "", node, (1, 1, size))
        assert wrong == said, node
        reported += said
    assert reported > 3


def test_resize() -> None:
    reported = 0
    for size, scale in itertools.product((5, 10, 20, 30, 35, 50), (0.1, 0.3, 0.5, 0.6, 0.7, 1.1, 1.7, 2.0)):
        if size * scale < 1:
            continue
        constants = f"float[3] s = {{1, 1, {scale}}}"
        wrong, said = is_misread(f"float[1,1,{size}] x", constants, "Resize (x, , s)", (1, 1, size))
        assert wrong == said, (size, scale)
        reported += said
    assert reported > 0
