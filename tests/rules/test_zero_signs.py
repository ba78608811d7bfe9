"""GRF003 and the sign of zero: 1 / (-0.0 + 0.0) is inf, and 1 / -0.0 is -inf."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxlint
from onnxlint.verification.differences import compare

ADDED = """
<ir_version: 8, opset_import: ["": 13]>
g (float[N,2] x) => (float[N,2] y) <float zero = {{0}}, float one = {{1}}, float minus = {{-1}}, float eps = {{0.00001}}> {{
    n = Neg (x)
    b = Add (n, zero)
    {}
}}
"""


def codes(tmp_path: Path, rest: str) -> list[str]:
    onnx.save(onnx.parser.parse_model(ADDED.format(rest)), tmp_path / "m.onnx")
    return [finding.code for finding in onnxlint.check(tmp_path / "m.onnx", select="GRF003")]


@pytest.mark.parametrize(
    "rest",
    [
        "y = Reciprocal (b)",
        "y = Div (one, b)",
        "r = Sqrt (b)\n y = Div (x, r)",
        "y = Pow (b, minus)",
        "y = Pow (one, b)\n z = Pow (b, x)",
        "m = Clip (b)\n r = Reciprocal (m)\n y = Relu (r)",
    ],
)
def test_an_addition_of_zero_stays_where_its_sign_matters(tmp_path: Path, rest: str) -> None:
    assert "GRF003" not in codes(tmp_path, rest.replace("m = Clip (b)", "m = Transpose (b)"))


@pytest.mark.parametrize(
    "rest",
    [
        "y = Tanh (b)",
        "y = Div (b, one)\n",
        "e = Exp (b)\n y = Div (one, e)",
        "s = Mul (b, b)\n v = ReduceMean (s)\n w = Add (v, eps)\n r = Sqrt (w)\n y = Div (b, r)",
        "a = Abs (b)\n y = Reciprocal (a)",
    ],
)
def test_it_goes_where_nothing_sees_the_sign(tmp_path: Path, rest: str) -> None:
    assert "GRF003" in codes(tmp_path, rest)


def test_what_verification_found_is_not_called_bit_equal(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx.save(
        onnx.parser.parse_model(ADDED.format("a = Tanh (b)\n y = Relu (a)").replace("Neg", "Relu")), tmp_path / "m.onnx"
    )
    report = onnxlint.fix(tmp_path / "m.onnx", tmp_path / "same.onnx")
    assert report.verification is not None
    assert "bit-equal" in report.verification.summary()
    text = ADDED.format("y = Tanh (b)").replace("n = Neg (x)", "p = Relu (x)\n n = Neg (p)")
    onnx.save(onnx.parser.parse_model(text), tmp_path / "n.onnx")
    report = onnxlint.fix(tmp_path / "n.onnx", tmp_path / "other.onnx")
    assert report.verification is not None
    assert "equal but for the sign of zeros" in report.verification.summary()


def test_zeros_of_other_signs_are_equal_and_noted() -> None:
    a, b = np.array([0.0, 1.0], np.float32), np.array([-0.0, 1.0], np.float32)
    assert compare(a, b, 0, 0).outcome == "equal"
    assert compare(a, b, 0, 0).zero_signs
    assert not compare(a, a, 0, 0).zero_signs
