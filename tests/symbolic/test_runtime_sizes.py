"""Sizes of pooling, deconvolution, Resize and Slice as onnxruntime has them, down to maps of 1, free and declared fixed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxlint.symbolic.inference import exact_sizes
from onnxlint.symbolic.sizes import Size, in_floors, substitute
from tests.support import zoo
from tests.support.old_versions import have

ort = pytest.importorskip("onnxruntime")
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException  # noqa: E402

REFUSED = (Fail, InvalidArgument, RuntimeException)
Constants = dict[str, Any]


def windows() -> Iterator[tuple[str, dict[str, Any], Constants]]:
    """Pooling, Conv and ConvTranspose with all kinds of padding."""
    for op, kernel, stride, dilation in itertools.product(
        ("AveragePool", "Conv", "LpPool", "MaxPool"), (1, 2, 3), (1, 2, 3), (1, 2)
    ):
        weights = {"w": np.ones((1, 1, kernel), np.float32)} if op == "Conv" else {}
        given = {"kernel_shape": [kernel], "strides": [stride], "dilations": [dilation]}
        for pads in ([0, 0], [1, 0], [1, 1]):
            yield op, {**given, "pads": pads}, weights
        yield op, {**given, "auto_pad": "SAME_LOWER"}, weights
        if op != "Conv":
            yield op, {**given, "ceil_mode": 1}, weights
    for kernel, stride, extra in itertools.product((1, 2, 3), (1, 2, 3), (0, 1)):
        weights = {"w": np.ones((1, 1, kernel), np.float32)}
        given = {"kernel_shape": [kernel], "strides": [stride], "output_padding": [extra]}
        yield "ConvTranspose", given, weights
        yield "ConvTranspose", {**given, "auto_pad": "SAME_UPPER"}, weights
        yield "ConvTranspose", {"strides": [stride], "output_shape": [3]}, weights


def others() -> Iterator[tuple[str, dict[str, Any], Constants]]:
    """Resize that keeps the ratio, and Slice with ends that stand for all."""
    # Up to 1.26, onnxruntime ends the process for axes that are counted from the end.
    every = ([2],) if have("onnxruntime") < (1, 28) else ([2], [-1])
    for axes, policy in itertools.product(every, ("not_larger", "not_smaller", "stretch")):
        given = {"axes": axes, "keep_aspect_ratio_policy": policy}
        yield "Resize", given, {"": None, " ": None, "s": np.array([3])}
    for start, end, step in itertools.product((-2, 0, 5), (2**31 - 1, 2**63 - 1, -(2**63)), (1, -1, -2)):
        yield "Slice", {}, {k: np.array([v]) for k, v in zip("abcd", (start, end, 2, step), strict=True)}


def model(op: str, given: dict[str, Any], constants: Constants, size: int | str) -> onnx.ModelProto:
    """One node on [1, 1, size]."""
    node = helper.make_node(op, ["x", *map(str.strip, constants)], ["y"], **given)
    opset = 11 if op == "MaxPool" and "ceil_mode" in given else 22  # onnx's inference counts otherwise before 22
    kept = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items() if value is not None]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, size])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", [image], [result], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("kind", [windows, others])
def test_sizes_are_those_of_onnxruntime(kind: Any) -> None:
    compared = 0
    for op, given, constants in kind():
        free = model(op, given, constants, "h")
        try:
            run = zoo.session(free)
        except REFUSED:
            continue
        view = zoo.view(free)
        sizes = exact_sizes(view).shape(view.main, "y")
        assert sizes is not None
        for size in (1, 2, 3, 4, 7):
            try:
                (y,) = run.run(None, {"x": np.ones((1, 1, size), np.float32)})
            except REFUSED:
                continue
            fixed = zoo.view(model(op, given, constants, size))
            claims = [substitute(one, {"h": size}) for one in sizes], exact_sizes(fixed).shape(fixed.main, "y")
            shown = fixed.main.shape("y")
            for claim in filter(None, (*claims, shown)):
                wrong = [(n, have) for n, have in zip(claim, y.shape, strict=True) if isinstance(n, int) and n != have]
                assert not wrong, f"{op} {given} at {size}"
                compared += 1
    assert compared > 50


def test_a_window_that_may_be_larger_than_its_map_is_no_floor_division() -> None:
    view = zoo.view("g (float[N,1,H] x) => (float[A,B,C] y) { y = MaxPool<kernel_shape=[2],strides=[2]>(x) }")
    sizes = exact_sizes(view).shape(view.main, "y")
    assert sizes is not None
    size = sizes[2]
    assert str(size) == "max(1, floor(H/2))"
    assert str(size * 2 - 1) == "2*trunc((H - 2)/2) + 1"
    assert str(in_floors(size)) == "floor(H/2)"
    assert [substitute(size, {"H": number}) for number in (1, 2, 3, 4)] == [1, 1, 1, 2]
    assert str(substitute(size, {"H": Size.symbol("k") * 2})) == "k"


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ("a = MaxPool<kernel_shape=[2],strides=[2]>(x) y = MaxPool<kernel_shape=[3],strides=[3]>(a)", "floor(H/6)"),
        ("a = Concat<axis=2>(x,x) y = MaxPool<kernel_shape=[4],strides=[4]>(a)", "floor(H/2)"),
        ("a = MaxPool<kernel_shape=[2],strides=[2]>(x) b = Pad(a,p) y = MaxPool<kernel_shape=[2],strides=[2]>(b)", ""),
        ("y = MaxPool<kernel_shape=[3],strides=[2]>(x)", ""),
    ],
)
def test_sizes_are_shown_as_a_maximum_where_they_are_one(nodes: str, text: str) -> None:
    view = zoo.view(f"g (float[N,1,H] x) => (float[A,B,C] y) <int64[6] p = {{0, 0, 0, 0, 0, 1}}> {{ {nodes} }}")
    sizes = exact_sizes(view).shape(view.main, "y")
    assert sizes is not None
    assert str(sizes[2]) == f"max(1, {text})" if text else "trunc(" in str(sizes[2])
    for size in range(1, 30) if text else ():
        least = substitute(in_floors(sizes[2]), {"H": size})
        assert isinstance(least, int)
        assert substitute(sizes[2], {"H": size}) == max(1, least)
