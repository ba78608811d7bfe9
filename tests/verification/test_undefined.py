"""Sizes at which onnxruntime runs a model that the specification does not allow there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxlint.api import fix
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view
from onnxlint.verification.contract import common_contract
from onnxlint.verification.results import Trial, Verification
from onnxlint.verification.undefined import without_undefined

FOCUS = """
    <ir_version: 8, opset_import: ["": 13]>
    g (float[N,1,H,W] image) => (float[N,8,H,W] features)
    <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3},
     int64[1] end = {9223372036854775807}> {
        top = Slice (image, zero, end, two, two)
        low = Slice (image, one, end, two, two)
        a = Slice (top, zero, end, three, two)
        b = Slice (low, zero, end, three, two)
        c = Slice (top, one, end, three, two)
        d = Slice (low, one, end, three, two)
        all = Concat <axis = 1> (a, b, c, d)
        features = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (all, w)
    }
"""


@pytest.fixture
def focus() -> onnx.ModelProto:
    model = onnx.parser.parse_model(FOCUS)
    weights = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    return model


def different(height: int, width: int) -> Trial:
    sizes = (("N", 2), ("H", height), ("W", width))
    return Trial("", "normal", "different", 0.3, "features", sizes=sizes)


def test_differences_there_are_none(focus: onnx.ModelProto) -> None:
    view = make_view(Model("", focus, 0))
    contract = common_contract(view, view, {})
    trials = (different(4, 6), different(1, 1), different(4, 3))
    judged = without_undefined(Verification(trials, "onnxruntime"), focus, contract)
    assert [trial.outcome for trial in judged.trials] == ["different", "original failed", "original failed"]
    assert judged.trials[1].why == "Concat 'all' needs sizes 1 and 0 to be equal"
    assert judged.trials[0] is trials[0]


POOL = """
    <ir_version: 8, opset_import: ["": 13]>
    g (float[N,2,H,W] image) => (float[N,2,H,W] features)
    <int64[1] zero = {0}, int64[1] two = {2}, int64[1] four = {4}, float[0] none = {}> {
        small = AveragePool <kernel_shape = [2, 2], strides = [2, 2], count_include_pad = 1> (image)
        s = Shape (small)
        first = Slice (s, zero, two)
        t = Shape (image)
        last = Slice (t, two, four)
        sizes = Concat <axis = 0> (first, last)
        features = Resize <mode = "linear"> (small, none, none, sizes)
    }
"""


def test_windows_larger_than_their_map() -> None:
    model = onnx.parser.parse_model(POOL)
    view = make_view(Model("", model, 0))
    contract = common_contract(view, view, {})
    trials = (different(4, 6), different(5, 1), different(3, 3))
    judged = without_undefined(Verification(trials, "onnxruntime"), model, contract)
    assert [trial.outcome for trial in judged.trials] == ["different", "original failed", "different"]
    assert judged.trials[1].why == "AveragePool 'small' has a window that is larger than its map of 1"


def test_what_onnxruntime_does_there_keeps_no_opset_from_being_changed(tmp_path: Path) -> None:
    """A window of 2×2 on one pixel gives a quarter of it up to opset 18, and all of it from 19 on."""
    onnx.save(onnx.parser.parse_model(POOL), tmp_path / "m.onnx")
    report = fix(tmp_path / "m.onnx", tmp_path / "fixed.onnx", opset=20, isolated=True)
    assert report.verification is not None
    assert report.verification.verified
    assert "original failed" in {trial.outcome for trial in report.verification.trials}
    assert onnx.load(tmp_path / "fixed.onnx").opset_import[0].version == 20


@pytest.mark.parametrize("opset", [11, 16])
def test_they_do_not_keep_a_fix_from_being_made(focus: onnx.ModelProto, tmp_path: Path, opset: int) -> None:
    onnx.save(focus, tmp_path / "m.onnx")
    report = fix(tmp_path / "m.onnx", tmp_path / "fixed.onnx", opset=opset, isolated=True)
    assert report.verification is not None
    assert report.verification.verified
    assert onnx.load(tmp_path / "fixed.onnx").opset_import[0].version == opset
