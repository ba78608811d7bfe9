"""Constraints that onnx's inference shows to be met, and the models for which symbolic inference is left out."""

from __future__ import annotations

import pytest

from onnxlint.symbolic.demands import are_met, demands
from onnxlint.symbolic.inference import exact_sizes, knows_sizes
from tests.support.zoo import view

MET = {
    "fixed sizes": """g (float[2,3,8,8] x) => (float[2,4,8,8] y) <float[4,3,1,1] w = {1,1,1,1,1,1,1,1,1,1,1,1}> {
        a = Conv (x, w)
        b = Relu (a)
        y = Add (a, b)
    }""",
    "a free batch": """g (float[N,3,8,8] x, float[3,3,1,1] w, float[8,5] v) => (float[N,3,8,5] y) {
        a = Conv (x, w)
        b = Add (a, x)
        y = MatMul (b, v)
    }""",
}
OPEN = {
    "a baked size": "g (float[N,4,H] x) => (float[N,2,12] y) <int64[3] s = {0, 2, 12}> { y = Reshape (x, s) }",
    "numbers that do not fit": "g (float[2,4] x, float[2,5] z) => (float[2,5] y) { y = Concat <axis = 0> (x, z) }",
    "two free sizes": "g (float[N,4] x, float[M,4] z) => (float[N,4] y) { y = Add (x, z) }",
    "a target that is computed": """g (float[2,4] x, float[2,4] z) => (float[2,4] y) {
        s = Shape (z)
        y = Reshape (x, s)
    }""",
}


@pytest.mark.parametrize("text", MET.values(), ids=MET)
def test_met_without_symbolic_inference(text: str) -> None:
    model = view(text)
    assert are_met(model)
    assert demands(model) == ()
    assert not knows_sizes(model)


@pytest.mark.parametrize("text", OPEN.values(), ids=OPEN)
def test_open_until_sizes_are_exact(text: str) -> None:
    model = view(text)
    assert not are_met(model)
    demands(model)
    assert knows_sizes(model)


@pytest.mark.parametrize("text", [*MET.values(), *OPEN.values()], ids=[*MET, *OPEN])
def test_what_is_met_demands_nothing_of_exact_sizes(text: str) -> None:
    quick, exact = view(text), view(text)
    exact_sizes(exact)
    assert not are_met(exact)
    assert [(str(one.left), str(one.right)) for one in demands(quick)] == [
        (str(one.left), str(one.right)) for one in demands(exact)
    ]
