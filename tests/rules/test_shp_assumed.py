"""Operands of Reshape, Slice and Pad that become constants under the multiples that the user assumes, and only there."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator

from onnxlint.fixes.engine import fix_model
from onnxlint.fixes.results import FixReport
from onnxlint.lint.engine import Plan, check_view
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Options, Request
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view

RULE = load_registry().find("SHP002")

WINDOWS = """
    <ir_version: 8, opset_import: ["": 15]>
    g (float[N,3,H,W] x) => (float[A,B,C,D,E,F] y)
    <int64[1] eight = {8}, int64[1] three = {3}, int64[1] zero = {0}, int64[1] pad = {0}> {
        t = Transpose <perm = [0, 2, 3, 1]> (x)
        n = Shape <start = 0, end = 1> (x)
        h = Shape <start = 2, end = 3> (x)
        w = Shape <start = 3, end = 4> (x)
        over_h = Mod (h, eight)
        more_h = Sub (eight, over_h)
        pad_h = Mod (more_h, eight)
        pads = Concat <axis = 0> (zero, zero, zero, zero, zero, pad_h, zero, zero)
        p = Pad (t, pads)
        rows = Div (h, eight)
        columns = Div (w, eight)
        target = Concat <axis = 0> (n, rows, eight, columns, eight, three)
        y = Reshape (p, target)
    }
"""
"""A map, channels last, cut into windows of 8×8."""

ROLL = """
    <ir_version: 8, opset_import: ["": 15]>
    g (float[N,3,H,W] x) => (float[N,3,H,W] y)
    <int64[1] two = {2}, int64[1] minus = {-2}, int64[1] axis = {2}, int64[1] zero = {0}> {
        h = Shape <start = 2, end = 3> (x)
        shift = Mod (two, h)
        back = Mod (minus, h)
        top = Slice (x, zero, shift, axis)
        rest = Slice (x, shift, h, axis)
        y0 = Concat <axis = 2> (rest, top)
        most = Slice (y0, zero, back, axis)
        last = Slice (y0, back, h, axis)
        y = Concat <axis = 2> (last, most)
    }
"""
"""A map that is rolled by two rows, and back."""


def fixed(text: str, multiples: tuple[tuple[str, int], ...]) -> tuple[onnx.ModelProto, FixReport]:
    return fix_model(
        Model("m.onnx", onnx.parser.parse_model(text), 0), Plan((RULE,), Options()), Request(multiples=multiples)
    )


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def first_output(model: onnx.ModelProto, data: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(cast(Any, ReferenceEvaluator(model).run(None, data))[0])


@pytest.mark.parametrize("text", [WINDOWS, ROLL])
def test_under_the_assumption_no_size_is_computed(text: str) -> None:
    result, report = fixed(text, (("H", 8), ("W", 8)))
    assert "Shape" not in ops(result)
    assert "Pad" not in ops(result)
    assert set(report.conditions) == {"H % 8 == 0", "W % 8 == 0"}
    for shape in ((1, 3, 8, 16), (2, 3, 24, 8)):
        data = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
        before, after = (
            cast(Any, ReferenceEvaluator(one).run(None, data))[0] for one in (onnx.parser.parse_model(text), result)
        )
        np.testing.assert_array_equal(before, after)


def test_without_it_they_are() -> None:
    for text in (WINDOWS, ROLL):
        result, report = fixed(text, ())
        assert "Shape" in ops(result)
        assert not report.conditions
    assert "Reshape" in ops(fixed(WINDOWS, (("H", 8),))[0])


def test_a_map_that_can_be_smaller_than_the_roll_keeps_its_bounds() -> None:
    """With H = 2, `2 mod H` is 0 and not 2: a multiple of 2 is not enough."""
    result, _ = fixed(ROLL, (("H", 2),))
    data = {"x": np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)}
    before, after = (
        cast(Any, ReferenceEvaluator(one).run(None, data))[0] for one in (onnx.parser.parse_model(ROLL), result)
    )
    np.testing.assert_array_equal(before, after)
    assert "Shape" in ops(result)


def test_the_size_of_an_axis_is_its_end_for_every_input() -> None:
    text = """
        <ir_version: 8, opset_import: ["": 15]>
        g (float[N,3,H,W] x) => (float[N,3,A,W] y) <int32[1] one = {1}, int32[1] axis = {2}> {
            h = Shape <start = 2, end = 3> (x)
            end = Cast <to = 6> (h)
            y = Slice (x, one, end, axis)
        }
    """
    result, report = fixed(text, ())
    assert ops(result) == ["Slice"]
    assert not report.conditions
    data = {"x": np.arange(24, dtype=np.float32).reshape(1, 3, 4, 2)}
    before, after = (
        cast(Any, ReferenceEvaluator(one).run(None, data))[0] for one in (onnx.parser.parse_model(text), result)
    )
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("size", ["Mod (h, two)", "Neg (h)", "Sub (h, h)"])
def test_a_size_that_may_be_zero_or_less_is_no_factor(size: str) -> None:
    rule = load_registry().find("SHP001")
    assert rule is not None
    text = f"""<ir_version: 8, opset_import: ["": 17]> g (float[N,1,H] x) => (float[N,1,A] y) <int64[1] two = {{2}}> {{
        n = Shape <start = 0, end = 2> (x) h = Shape <start = 2> (x) o = {size} t = Concat <axis = 0> (n, o)
        y = Resize <mode = "nearest"> (x, , , t) }}"""
    model = onnx.parser.parse_model(text)
    request = Request(multiples=(("H", 2),))
    for asked in (Request(), request):
        fixed, report = fix_model(Model("m.onnx", model, 0), Plan((rule,)), asked)
        assert fixed is model
        assert [left.finding.code for left in report.left] == ["SHP001"]


def test_what_callers_of_a_function_give_is_not_looked_at() -> None:
    """Another export may do without: that none would is said of the main graph alone."""
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 15, "local": 1]>
        g (float[N,S,16] x, int64[1] cut) => (float[A,B,C] y) { y = local.flat (x, cut) }
        <domain: "local", opset_import: ["": 15]>
        flat (x, cut) => (y) {
            n = Shape <start = 0, end = 1> (x)
            four = Constant <value = int64[1] {4}> ()
            target = Concat <axis = 0> (n, cut, four)
            y = Reshape (x, target)
        }
        """
    )
    findings, _, failures = check_view(make_view(Model("m.onnx", model, 0)), Plan((RULE,), Options()))
    assert not failures
    assert [(one.location.graph, one.actionable) for one in findings] == [("function:local.flat", True)]
