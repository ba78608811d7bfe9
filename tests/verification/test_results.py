"""What a comparison of two models is said to have shown."""

from __future__ import annotations

from onnxlint.verification.results import EXACT, Trial, Verification


def test_outputs_that_alone_may_differ_by_rounding() -> None:
    """Outputs whose activation was dropped, samples of a batch that was set free: said so where the rest is bit-equal."""
    close = Trial("N=2", "normal", "close", 8.9e-08)
    said = Verification((Trial("N=1", "normal", "equal"), close), "onnxruntime", EXACT).summary()
    assert said == "equal up to rounding (worst difference 8.9e-08) in onnxruntime on 2 inputs (N=1; N=2)"
