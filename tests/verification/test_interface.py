"""Changes of the interface that were asked for are verified: renamed, joined, dropped and bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxlint.model.skeleton import Model
from onnxlint.verification.compare import Verification, verify_models
from onnxlint.verification.interface import Dropped, Interface, Slice

pytest.importorskip("onnxruntime")

HEADS = """
g (float[N,3,4] x) => (float[N,3,2] boxes, float[N,3,2] scores)
<float[4,2] w = {1, 0, 0, 1, 1, 1, 0, 0}> {
    boxes = Neg (scaled)
    logits = MatMul (x, w)
    scores = Softmax <axis = AXIS> (logits)
}
""".replace("boxes = Neg (scaled)", "boxes = MatMul (x, w)")


def parse(text: str, opset: int = 17, **values: Any) -> onnx.ModelProto:
    for key, value in values.items():
        text = text.replace(key, str(value))
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}')


def check(original: onnx.ModelProto, result: onnx.ModelProto, interface: Interface, **options: Any) -> Verification:
    return verify_models(Model("m.onnx", original, 0), original, result, interface=interface, **options)


@pytest.mark.parametrize(("opset", "axis"), [(9, 2), (11, 2), (13, 1), (13, 2), (17, 1), (17, 2)])
def test_joined_outputs_with_a_dropped_softmax(opset: int, axis: int) -> None:
    original = parse(HEADS, opset, AXIS=axis)
    joined = parse(
        """g (float[N,3,4] x) => (float[N,3,4] all) <float[4,2] w = {1, 0, 0, 1, 1, 1, 0, 0}> {
            boxes = MatMul (x, w)
            scores = MatMul (x, w)
            all = Concat <axis = 2> (boxes, scores)
        }""",
        opset,
    )
    interface = Interface(
        joined={"boxes": Slice("all", 2, 0, 2), "scores": Slice("all", 2, 2, 4)},
        dropped={"scores": (Dropped("Softmax", axis),)},
    )
    result = check(original, joined, interface)
    assert result.verified, result.summary()
    assert len(result.shapes) >= 3
    swapped = Interface(
        joined={"boxes": Slice("all", 2, 0, 2), "scores": Slice("all", 2, 0, 2)},
        dropped={"boxes": (Dropped("Softmax", axis),)},
    )
    wrong = check(original, joined, swapped)
    assert not wrong.equal
    assert "in output 'boxes'" in wrong.summary()


def test_an_activation_along_the_wrong_axis_is_caught() -> None:
    original = parse(HEADS, AXIS=2)
    logits = parse(HEADS.replace("scores = Softmax <axis = AXIS> (logits)", "scores = Identity (logits)"))
    assert check(original, logits, Interface(dropped={"scores": (Dropped("Softmax", 2),)})).verified
    assert not check(original, logits, Interface(dropped={"scores": (Dropped("Softmax", 1),)})).equal
    assert not check(original, logits, Interface(dropped={"scores": (Dropped("Sigmoid"),)})).equal


def test_a_softmax_before_opset_13_along_an_inner_axis() -> None:
    text = """g (float[N,2,4,4] x) => (float[N,2,4,4] y) {
        a = Neg (x)
        b = Transpose <perm = [0, 2, 3, 1]> (a)
        c = BODY
        y = Transpose <perm = [0, 3, 1, 2]> (c)
    }"""
    original = parse(text, 11, BODY="Softmax <axis = 3> (b)")
    logits = parse(text, 11, BODY="Identity (b)")
    assert check(original, logits, Interface(dropped={"y": (Dropped("Softmax", 1),)})).verified
    assert not check(original, logits, Interface(dropped={"y": (Dropped("Softmax", 3),)})).equal


def test_an_activation_of_a_part() -> None:
    text = """g (float[N,9,4] x) => (float[N,9,6] y) <float[4,2] w = {1, 0, 0, 1, 1, 1, 0, 0}> {
        boxes = Relu (x)
        logits = MatMul (x, w)
        scores = BODY
        y = Concat <axis = 2> (boxes, scores)
    }"""
    original, fixed = parse(text, BODY="Sigmoid (logits)"), parse(text, BODY="Identity (logits)")
    assert check(original, fixed, Interface(dropped={"y": (Dropped("Sigmoid", part=(2, 4, 6)),)})).verified
    assert not check(original, fixed, Interface(dropped={"y": (Dropped("Sigmoid"),)})).equal


def test_renamed_inputs_and_outputs_even_where_they_change_places() -> None:
    text = "g (float[N,4] A, float[N,4] B) => (float[N,4] Y, float[N,4] Z) { Y = Sub (A, B)\n Z = Neg (A) }"
    original = parse(text, A="a", B="b", Y="y", Z="z")
    swapped = parse(text, A="b", B="a", Y="z", Z="y")
    names = {"a": "b", "b": "a", "y": "z", "z": "y"}
    result = check(original, swapped, Interface(renamed=names))
    assert result.verified, result.summary()
    assert not check(original, parse(text, A="a", B="b", Y="z", Z="y"), Interface(renamed=names)).equal


def test_an_output_that_went_missing_is_a_difference() -> None:
    original = parse("g (float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Relu (x)\n z = Neg (x) }")
    lacking = parse("g (float[N,4] x) => (float[N,4] new) { new = Relu (x) }")
    result = check(original, lacking, Interface(renamed={"y": "new"}))
    assert not result.equal
    assert result.summary() == "different (normal inputs): output 'z' is missing"


def test_a_bound_input() -> None:
    text = "g (float[N,3,H,W] x, float[4] factor) => (float[N,3,h,w] y) { y = Resize (x, , factor) }"
    original = parse(text)
    fixed = parse(
        "g (float[N,3,H,W] x) => (float[N,3,h,w] y) <float[4] factor = {1, 1, 3, 3}> { y = Resize (x, , factor) }"
    )
    value = np.array([1, 1, 3, 3], np.float32)
    result = check(original, fixed, Interface(bound={"factor": value}))
    assert result.verified, result.summary()
    assert not check(original, fixed, Interface(bound={"factor": np.array([1, 1, 2, 2], np.float32)})).equal
    assert "no input 'scale'" in check(original, fixed, Interface(bound={"scale": value})).summary()
