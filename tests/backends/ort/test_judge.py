"""How close quantized models are said to come."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxlint.backends.ort.judge import REMEMBERED, Judge, probabilities
from onnxlint.backends.ort.qdq import quantize
from onnxlint.backends.ort.session import run
from tests.backends.ort.test_int8 import network

INPUTS = [{"x": np.random.default_rng(i).standard_normal((1, 3, 24, 24)).astype(np.float32)} for i in range(5)]


def rounded(levels: int) -> onnx.ModelProto:
    """The network with its weights rounded to so many integers; no activation is."""
    return quantize(
        network(13), {"x": (-4.0, 4.0)}, {"deep0", "deep1", "wide0", "wide1", "box", "class"}, levels=levels
    )


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An entry for each run of a model."""
    found: list[str] = []

    def counted(session: Any, name: str, *more: Any) -> Any:
        found.append(name)
        return run(session, name, *more)

    monkeypatch.setattr("onnxlint.backends.ort.judge.run", counted)
    return found


def test_images_that_a_model_was_tried_on_are_not_run_again(ran: list[str]) -> None:
    judge = Judge.of("net", network(13), INPUTS, 1)
    one, other = rounded(127), rounded(7)
    expected = judge.score(one), judge.score(other, 2)
    ran.clear()
    judge = Judge.of("net", network(13), INPUTS, 1)
    assert judge.score(one, 2) != judge.score(other, 2) == expected[1]
    ran.clear()
    assert judge.score(one) == expected[0]
    assert len(ran) == 2 * (len(INPUTS) - 2)  # the float model and this one, on the others
    judge.snr(one)
    judge.score(other, 1)
    assert len(ran) == 2 * (len(INPUTS) - 2)


PROBABILITIES = """
<ir_version: 8, opset_import: ["": 13]>
g (float[1,3,24,24] x) => (float[1,3,24,24] p, float[1,1728] q, float[1,3,24,24] y, float[1,3,24,24] z) {
    logits = Relu (x)
    s = Softmax <axis = 1> (logits)
    p = Identity (s)
    more = Neg (x)
    t = Sigmoid (more)
    u = Transpose <perm = [0, 2, 3, 1]> (t)
    q = Flatten (u)
    half = Sigmoid (x)
    y = Mul (half, x)
    logs = LogSoftmax <axis = 1> (logits)
    z = Identity (logs)
}
"""


def test_probabilities_are_known_whatever_reshapes_them() -> None:
    model = onnx.parser.parse_model(PROBABILITIES)
    assert probabilities(model) == {"p", "q"}
    judge = Judge.of("net", model, INPUTS, 1)
    assert judge.names == ["logits", "more", "y"]


@pytest.mark.parametrize(("count", "first"), [(1, 2), (5, 2), (8, 2), (32, 8)])
def test_models_are_tried_on_a_quarter_of_the_inputs_first(count: int, first: int) -> None:
    assert Judge.of("net", network(13), (INPUTS * 7)[:count], 1).first == first


def test_few_models_are_remembered() -> None:
    judge = Judge.of("net", network(13), INPUTS[:1], 1)
    for levels in range(7, 7 + 2 * REMEMBERED):
        judge.score(rounded(levels))
    assert len(judge._tried) == REMEMBERED
