"""--unsafe frees a batch that Reshapes fix: the samples of a batch get what they get alone, or nothing is changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxlint.fixes.rule_tests import run
from tests.fixes.test_asked import fix, saved

pytest.importorskip("onnxruntime")

MODEL = """<ir_version: 8, opset_import: ["": 17]> g (float[batch,6,2] x, bool c) => (float[A,B,C] y)
    <int64[3] t = {1, -1, 3}, int64[3] u = {1, -1, 6}, int64[1] one = {1}, int64[1] zero = {0}> {
        a = Reshape (x, t) BODY }"""

BRANCHES = {
    "each of its own": """b = If (c) <
        then_branch = th () => (float[1,P,3] p) { q = Reshape (x, t) p = Neg (q) },
        else_branch = el () => (float[1,Q,3] r) { s = Reshape (x, t) r = Relu (s) }> y = Add (a, b)""",
    "behind others": """y = If (c) <
        then_branch = th () => (float[1,P,6] p) { p = Reshape (a, u) },
        else_branch = el () => (float[1,Q,6] r) { s = Relu (a) r = Reshape (s, u) }>""",
    "nested": """y = If (c) <
        then_branch = th () => (float[1,P,6] p) { p = If (c) <
            then_branch = th2 () => (float[1,P2,6] p2) { p2 = Reshape (a, u) },
            else_branch = el2 () => (float[1,Q2,6] r2) { s2 = Neg (a) r2 = Reshape (s2, u) }> },
        else_branch = el () => (float[1,Q,6] r) { s = Relu (a) r = Reshape (s, u) }>""",
}


@pytest.mark.parametrize("branches", BRANCHES.values(), ids=list(BRANCHES))
def test_samples_get_what_they_get_alone_in_branches_too(tmp_path: Path, branches: str) -> None:
    path = saved(tmp_path, MODEL.replace("BODY", branches))
    result, report = fix(path, unsafe=True)
    assert "SHP003" in {one.finding.code for one in report.applied}
    assert report.verification is not None
    assert report.verification.verified
    x = np.random.default_rng(0).normal(size=(3, 6, 2)).astype(np.float32)
    for c in (True, False):
        feeds = {"x": x, "c": np.array(c)}
        (together,) = run(result, feeds)
        alone = [run(onnx.load(path), {**feeds, "x": x[i : i + 1]})[0] for i in range(3)]
        assert np.array_equal(together, np.concatenate(alone))


def test_what_an_if_makes_of_the_batch_is_kept(tmp_path: Path) -> None:
    asks = """s = Shape (a) n = Gather (s, zero) e = Equal (n, one) d = Squeeze (e) y = If (d) <
        then_branch = th () => (float[D,E,F] p) { p = Neg (a) }, else_branch = el () => (float[G,H,I] r) { r = Relu (a) }>"""
    path = saved(tmp_path, MODEL.replace("BODY", asks).replace(", bool c", ""))
    result, report = fix(path, unsafe=True)
    (left,) = [left for left in report.rolled_back if left.finding.code == "SHP003"]
    assert left.why.startswith("with it samples of a batch do not get what they get alone: different at batch=2")
    x = np.random.default_rng(0).normal(size=(2, 6, 2)).astype(np.float32)
    assert np.array_equal(run(result, {"x": x})[0], run(onnx.load(path), {"x": x})[0])
