"""GRF003 and the sign of zero: 1 / (-0.0 + 0.0) is inf, and 1 / -0.0 is -inf."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxlint
from onnxlint.model.skeleton import Model
from onnxlint.verification.differences import compare
from tests.support.fixing import fix
from tests.support.zoo import session

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


@pytest.mark.parametrize(
    ("body", "evidence"),
    [
        ("n = Neg (x) y = Add (n, zero)", "proved but for the sign of zeros"),
        ("n = Neg (x) y = Sub (n, negative)", "proved but for the sign of zeros"),
        ("n = Neg (x) y = Sub (n, zero)", "proved"),
        ("n = Neg (x) y = Add (negative, n)", "proved"),
        ("n = Neg (x) y = Mul (n, one)", "proved"),
        ("n = Exp (x) y = Add (n, zero)", "proved"),
        ("n = Neg (x) b = Add (n, zero) c = Relu (b) y = Exp (c)", "proved"),
        ("n = Neg (x) b = Add (n, zero) c = Exp (b) d = Tanh (b) y = Mul (c, d)", "proved but for the sign of zeros"),
        ("n = Neg (x) b = Add (n, zero) c = Greater (b, x) y = Where (c, x, x)", "proved"),
        ("n = Neg (x) y = AveragePool <kernel_shape = [1]> (n)", "proved but for the sign of zeros"),
        ("n = Neg (x) b = Cast <to = 7> (n) c = Add (b, whole) y = Cast <to = 1> (c)", "proved"),
    ],
)
def test_the_evidence_says_what_happens_to_zeros(body: str, evidence: str) -> None:
    """Where it is `proved` alone, zeros have the same signs in onnxruntime."""
    text = f"""<ir_version: 8, opset_import: ["": 19]>
    g (float[N,2,3] x) => (float[N,2,3] y)
    <float zero = {{0}}, float negative = {{-0.0}}, float one = {{1}}, int64 whole = {{0}}> {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.array(-0.0, np.float32), "negative"))
    fixed, report = fix(Model("m.onnx", proto, 0), select="GRF003")
    assert [one.proof for one in report.applied] == [evidence]
    pytest.importorskip("onnxruntime")
    feed = {"x": np.array([0.0, -0.0, 1, -1, np.inf, np.nan], np.float32).reshape(1, 2, 3)}
    (before,), (after,) = session(proto).run(None, feed), session(fixed).run(None, feed)
    assert np.array_equal(before, after, equal_nan=True)
    numbers = ~np.isnan(before)
    is_same = np.array_equal(np.signbit(before[numbers]), np.signbit(after[numbers]))
    assert is_same == (evidence == "proved")


def test_zeros_of_other_signs_are_equal_and_noted() -> None:
    a, b = np.array([0.0, 1.0], np.float32), np.array([-0.0, 1.0], np.float32)
    assert compare(a, b, 0, 0).outcome == "equal"
    assert compare(a, b, 0, 0).zero_signs
    assert not compare(a, a, 0, 0).zero_signs
